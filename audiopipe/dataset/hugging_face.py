"""Describe an output for Hugging Face's `datasets`: where its tars are, and the types of what is in them.

The loader takes types from the first five samples of the first tar otherwise. There a metric may be null throughout,
for example `loudness_range_lu` where all segments are shorter than 3 s, and a number in another tar is an error then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from audiopipe.dataset.sidecar import sidecar_types
from audiopipe.scorers.scorer import Column

__all__ = ["card_header", "tar_patterns"]


# By language and split the patterns of the tars.
Files = Mapping[str, Mapping[str, Sequence[str]]]


def card_header(audio: str, files: Files, columns: Sequence[Column], with_info: bool) -> list[str]:
    """Return the lines of the YAML header of a dataset's card: a configuration for each language, and one for all.

    Args:
        audio: the suffix of the audio, without a dot.
        files: by language and split the patterns of the tars.
        columns: those of the scorers.
        with_info: the config's `sidecar_info`.
    """
    whole: dict[str, list[str]] = {}
    for splits in files.values():
        for split, patterns in splits.items():
            whole.setdefault(split, []).extend(patterns)
    if list(whole) == ["train"]:
        whole = {"train": ["*/audio_*.tar"]}
    configs = {"default": whole, **files}
    return [
        "---",
        "configs:",
        *(line for name, splits in configs.items() for line in _data_files(name, splits)),
        "dataset_info:",
        *(line for name in configs for line in _features(name, audio, sidecar_types(columns, with_info))),
        "---",
    ]


def tar_patterns(language: str, first: int, end: int) -> list[str]:
    """Return the fewest patterns that match the tars of a language from a number on to the last before another one."""
    patterns = []
    while first < end:
        size = 1
        while first % (size * 10) == 0 and first + size * 10 <= end and size < 1_000_000:
            size *= 10
        digits = len(str(size)) - 1
        number = f"{first // size:0{max(6 - digits, 1)}d}" if digits < 6 else ""
        patterns.append(f"{language}/audio_{number}{'?' * digits}.tar")
        first += size
    return patterns


def _data_files(name: str, splits: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [f"- config_name: {json.dumps(name)}", "  data_files:"]
    for split, patterns in splits.items():
        path = patterns[0] if len(patterns) == 1 else patterns
        lines += [f"  - split: {split}", f"    path: {json.dumps(path)}"]
    return lines


def _features(name: str, audio: str, types: Mapping[str, str]) -> list[str]:
    """Describe the features once, in the first configuration; the others refer to them."""
    head = f"- config_name: {json.dumps(name)}"
    if name != "default":
        return [head, "  features: *features"]
    return [
        head,
        "  features: &features",
        f"  - name: {audio}",
        "    dtype: audio",
        "  - name: json",
        "    struct:",
        *(line for field, kind in types.items() for line in (f"    - name: {field}", _dtype(kind))),
        "  - name: __key__",
        "    dtype: string",
        "  - name: __url__",
        "    dtype: string",
    ]


def _dtype(kind: str) -> str:
    return f"      list: {kind[5:-1]}" if kind.startswith("list<") else f"      dtype: {kind}"
