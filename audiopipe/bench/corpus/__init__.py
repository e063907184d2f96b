"""Make a demo corpus of real speech: some thirty videos as they are found online, their catalog, and the ground truth.

`sources` fetches the speech, `prompts` reads it, `script` assigns prompts to videos, `mix` makes the signal, `media`
encodes it, `tars` packs it, `defects` corrupts some videos, `video` makes one video, and `corpus` makes all.
"""

from audiopipe.bench.corpus.corpus import Corpus, make_corpus
from audiopipe.bench.corpus.prompts import Prompt
from audiopipe.bench.corpus.sources import load_speech

__all__ = ["Corpus", "Prompt", "load_speech", "make_corpus"]
