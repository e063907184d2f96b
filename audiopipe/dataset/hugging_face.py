"""Describe an output for Hugging Face's `datasets`: where its tars are, and the types of what is in them.

The loader takes types from the first five samples of the first tar otherwise. There a metric may be null throughout,
for example `loudness_range_lu` where all segments are shorter than 3 s, and a number in another tar is an error then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from audiopipe.dataset.sidecar import sidecar_types
from audiopipe.scorers.scorer import Column

__all__ = ["card_header"]


def card_header(audio: str, languages: Iterable[str], columns: Sequence[Column], with_info: bool) -> list[str]:
    """Return the lines of the YAML header of a dataset's card: a configuration for each language, and one for all.

    Args:
        audio: the suffix of the audio, without a dot.
        columns: those of the scorers.
        with_info: the config's `sidecar_info`.
    """
    folders = {"default": "*"} | {language: language for language in languages}
    return [
        "---",
        "configs:",
        *(line for name, folder in folders.items() for line in _data_files(name, folder)),
        "dataset_info:",
        *(line for name in folders for line in _features(name, audio, sidecar_types(columns, with_info))),
        "---",
    ]


def _data_files(name: str, folder: str) -> list[str]:
    path = json.dumps(f"{folder}/audio_*.tar")
    return [f"- config_name: {json.dumps(name)}", "  data_files:", "  - split: train", f"    path: {path}"]


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
