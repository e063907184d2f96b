"""Decide the contents of every video of the corpus before a sample is mixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from audiopipe.bench.corpus.defects import DEFECTS, Defect
from audiopipe.bench.corpus.media import FORMATS, REUPLOAD, Format
from audiopipe.bench.corpus.mix import CONDITIONS, PLAIN, AcousticCondition
from audiopipe.bench.corpus.prompts import Prompt

__all__ = ["Script", "make_video_ids", "write_scripts"]

ID_LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
SIDECARS = ("json", "vtt", "json", None, "json", "srt", "json", None)
LENGTH_S = (20.0, 240.0)
FEW_LENGTH_S = (20.0, 80.0)  # for a small corpus, which tests must make quickly
DEFECT_LENGTH_S = (20.0, 35.0)
MEAN_PAUSE_S = 0.9
SHORT_S = 1.0


@dataclass(frozen=True)
class Script:
    """One video to make. A re-upload mixes the same prompts as its original and encodes them in another format."""

    number: int
    id: str
    language: str
    format: Format
    condition: AcousticCondition
    sidecar: str | None
    prompts: tuple[Prompt, ...]
    seed: tuple[int, ...]
    mixed_channels: int
    defect: Defect | None = None
    duplicate_of: str | None = None


def write_scripts(prompts: Mapping[str, Sequence[Prompt]], videos: int, seed: int) -> list[Script]:
    """Write the scripts of `videos` good videos, the last of which is a re-upload of the first, and one per defect."""
    rng = np.random.default_rng([seed, 0])
    ids = make_video_ids(videos + len(DEFECTS), seed)
    decks = {language: _deck(pool, rng) for language, pool in prompts.items()}
    lengths_s = rng.permutation(np.geomspace(*(LENGTH_S if videos >= 20 else FEW_LENGTH_S), videos))
    good = [_good(number, ids[number], decks, float(lengths_s[number]), seed) for number in range(videos)]
    if videos > 1:
        good[-1] = _reupload(good[-1], good[0])
    defect_lengths_s = rng.uniform(*DEFECT_LENGTH_S, len(DEFECTS))
    bad = [
        _with_defect(_good(number, ids[number], decks, float(defect_lengths_s[number - videos]), seed), defect)
        for number, defect in enumerate(DEFECTS, videos)
    ]
    return [*good, *bad]


def make_video_ids(count: int, seed: int) -> list[str]:
    """Return distinct ids like YouTube's; the first begins with a dash, the second holds an underscore and a dash."""
    rng = np.random.default_rng([seed, 1])
    ids = ["".join(rng.choice(ID_LETTERS, 11)) for _ in range(count)]
    ids[:2] = ["-" + ids[0][1:], ids[1][:4] + "_-" + ids[1][6:]][:count]
    return ids


def _good(number: int, video_id: str, decks: Mapping[str, Iterator[Prompt]], length_s: float, seed: int) -> Script:
    language = list(decks)[number % len(decks)]
    form = FORMATS[number % len(FORMATS)]
    return Script(
        number=number,
        id=video_id,
        language=language,
        format=form,
        condition=CONDITIONS.get(number, PLAIN),
        sidecar=SIDECARS[number % len(SIDECARS)],
        prompts=_deal(decks[language], length_s),
        seed=(seed, 2, number),
        mixed_channels=form.channels,
    )


def _reupload(script: Script, original: Script) -> Script:
    return replace(
        original,
        number=script.number,
        id=script.id,
        format=REUPLOAD,
        sidecar=script.sidecar,
        duplicate_of=original.id,
    )


def _with_defect(script: Script, defect: Defect) -> Script:
    form = defect.format
    return replace(script, format=form, condition=PLAIN, sidecar="json", defect=defect, mixed_channels=form.channels)


def _deck(prompts: Sequence[Prompt], rng: np.random.Generator) -> Iterator[Prompt]:
    """Cycle through all longer prompts and a few short ones, shuffled, so that videos share none until all are used."""
    short = [prompt for prompt in prompts if prompt.length_s < SHORT_S]
    pool = [prompt for prompt in prompts if prompt.length_s >= SHORT_S] + short[::5]
    return itertools.cycle([pool[index] for index in rng.permutation(len(pool))])


def _deal(deck: Iterator[Prompt], length_s: float) -> tuple[Prompt, ...]:
    """Take prompts until they fill `length_s` with their pauses; skip a prompt that would exceed it by far."""
    dealt: list[Prompt] = []
    filled = MEAN_PAUSE_S
    while filled < length_s:
        prompt = next(deck)
        if filled + prompt.length_s > length_s + 5 and dealt:
            continue
        dealt.append(prompt)
        filled += prompt.length_s + MEAN_PAUSE_S
    return tuple(dealt)
