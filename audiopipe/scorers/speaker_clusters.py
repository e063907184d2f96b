"""Group pieces of speech by voice, with the cosine of their embeddings.

All groups come from agglomerative clustering with average linkage, which needs no number of voices and no random start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

__all__ = ["Embedding", "Piece", "cluster_pieces", "label_segments", "mean_voice"]

Embedding = npt.NDArray[np.float32]

# Chosen on half of the voices of tests/scorers/test_speakers_truth.py. The distance of two pieces is 1 - cosine.
SEGMENT_THRESHOLD = 0.60  # largest mean distance within a voice of a segment
DIFFERENT_STREAMS = 0.10  # added between pieces of different streams of the segmentation network
SHORT_VOICE_S = 1.0  # a voice with less speech than this joins the closest one of its stream

VIDEO_THRESHOLD = 0.60  # largest mean distance within a speaker of a video
MOST_CLUSTERED = 3000  # segments of a video that are clustered; the others join the closest speaker


@dataclass(frozen=True, slots=True)
class Piece:
    """A second or two of speech of one stream, in which no other stream is active.

    Args:
        stream: the speaker according to the segmentation network.
        frames: the frames of the segment that it covers, ascending.
        seconds: of speech.
        embedding: of length 1.
    """

    stream: int
    frames: npt.NDArray[np.intp] = field(repr=False)
    seconds: float
    embedding: Embedding = field(repr=False)


def cluster_pieces(pieces: Sequence[Piece]) -> list[int]:
    """Return the voice of each piece of a segment, counted from 0."""
    if len(pieces) < 2:
        return [0] * len(pieces)
    embeddings = np.stack([piece.embedding for piece in pieces])
    streams = np.array([piece.stream for piece in pieces])
    distances = 1 - embeddings @ embeddings.T + DIFFERENT_STREAMS * (streams[:, None] != streams[None, :])
    voices = _cluster(distances, SEGMENT_THRESHOLD)
    return _join_short(pieces, voices, distances)


def _join_short(pieces: Sequence[Piece], voices: list[int], distances: npt.NDArray[np.floating]) -> list[int]:
    """Move pieces of voices with little speech to the closest other voice of the same stream, shortest voice first.

    Such a voice is a piece on a border between two, or one with noise.
    """
    voices = list(voices)
    fixed: set[int] = set()
    while True:
        seconds: Counter[int] = Counter()
        for piece, voice in zip(pieces, voices, strict=True):
            seconds[voice] += piece.seconds  # type: ignore[assignment] # Counter adds floats as well
        short = [voice for voice, total in seconds.items() if total < SHORT_VOICE_S and voice not in fixed]
        if not short or len(seconds) < 2:
            return voices
        smallest = min(short, key=lambda voice: (seconds[voice], voice))
        members = [index for index, voice in enumerate(voices) if voice == smallest]
        streams = {pieces[index].stream for index in members}
        others = [i for i, voice in enumerate(voices) if voice != smallest and pieces[i].stream in streams]
        if others:
            means = {
                voice: distances[np.ix_(members, [i for i in others if voices[i] == voice])].mean()
                for voice in {voices[i] for i in others}
            }
            target = min(means, key=lambda voice: (means[voice], voice))
            for index in members:
                voices[index] = target
        fixed.add(smallest)


def mean_voice(pieces: Sequence[Piece]) -> Embedding:
    """Return the mean embedding of pieces by their seconds, of length 1."""
    mean = sum(piece.embedding * piece.seconds for piece in pieces)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def label_segments(embeddings: Sequence[Embedding | None], speakers: Sequence[str | None]) -> list[str | None]:
    """Return the speaker of each segment of a video; labels of the source stay.

    Segments of one voice get the source's label for it where there is one, else S1, S2 and so on in the order of
    appearance. Segments without an embedding get None.

    Args:
        embeddings: of segments with one speaker; None for others.
        speakers: the labels of the source.
    """
    known = [index for index, embedding in enumerate(embeddings) if embedding is not None]
    chosen = known[:: -(-len(known) // MOST_CLUSTERED) or 1]  # evenly over a long video
    if not chosen:
        return list(speakers)
    vectors = np.stack([_unit(embeddings[index]) for index in chosen])
    voices = _cluster(1 - vectors @ vectors.T, VIDEO_THRESHOLD) if len(chosen) > 1 else [0]
    centers = np.stack([_unit(vectors[np.array(voices) == voice].sum(axis=0)) for voice in range(max(voices) + 1)])
    voice_of = dict(zip(chosen, voices, strict=True))
    for index in known:
        if index not in voice_of:
            voice_of[index] = int(np.argmax(centers @ _unit(embeddings[index])))
    return _name_voices(voice_of, speakers)


def _name_voices(voice_of: dict[int, int], speakers: Sequence[str | None]) -> list[str | None]:
    """Name voices by the label that the source gives most of their segments, else by a number that is not in use."""
    given: dict[int, Counter[str]] = {}
    for index, voice in voice_of.items():
        if (label := speakers[index]) is not None:
            given.setdefault(voice, Counter())[label] += 1
    names: dict[int, str] = {
        voice: min(counts, key=lambda label: (-counts[label], label)) for voice, counts in given.items()
    }
    used = {label for label in speakers if label is not None}
    number = 0
    result = list(speakers)
    for index in sorted(voice_of):
        voice = voice_of[index]
        if voice not in names:
            number += 1
            while f"S{number}" in used:
                number += 1
            names[voice] = f"S{number}"
        if result[index] is None:
            result[index] = names[voice]
    return result


def _unit(vector: object) -> Embedding:
    array = np.asarray(vector, dtype=np.float32)
    return array / max(float(np.linalg.norm(array)), 1e-12)


def _cluster(distances: npt.NDArray[np.floating], threshold: float) -> list[int]:
    """Return the cluster of each item, counted from 0 in the order of first appearance: distances [N, N] -> [N]"""
    upper = distances[np.triu_indices(len(distances), 1)].clip(min=0)
    labels = fcluster(linkage(upper, method="average"), threshold, criterion="distance")
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]
