"""A demo corpus of real speech: some thirty videos as they come off the net, a catalogue of them, and the truth.

`sources` fetches the speech, `prompts` reads it, `script` decides who says what, `mix` makes the signal, `media`
encodes it, `tars` wraps it, `flaws` spoils some, `video` does one, and `corpus` does all.
"""

from audiopipe.bench.corpus.corpus import Corpus, make_corpus
from audiopipe.bench.corpus.prompts import Prompt
from audiopipe.bench.corpus.sources import speech

__all__ = ["Corpus", "Prompt", "make_corpus", "speech"]
