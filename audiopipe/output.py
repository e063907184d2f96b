"""What an output says of itself: whose run it is at the start, what it holds at the end."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch

from audiopipe import __version__
from audiopipe.commit import Commit
from audiopipe.config import OUTPUT_VERSION, RunConfig
from audiopipe.encode import SUFFIXES
from audiopipe.errors import ConfigError
from audiopipe.store import Store
from audiopipe.types import ShardResult

__all__ = ["Totals", "claim", "finalise", "read_commits"]

RUN = "_run.json"


def claim(store: Store, config: RunConfig) -> str:
    """The run that an output belongs to: the one that it names, or a new one, which it names from now on.

    Raises:
        ConfigError: the output was made with parameters that give other bytes, or belongs to another run.
    """
    mine = {
        "run_id": config.run_id or str(uuid.uuid4()),
        "config_digest": config.digest,
        "config": config.output_fields(),
        "output_version": OUTPUT_VERSION,
        "versions": {"audiopipe": __version__, "torch": torch.__version__},
    }
    if store.create(RUN, json.dumps(mine, indent=1).encode()):
        return str(mine["run_id"])
    theirs = json.loads(store.read(RUN))
    if theirs["config_digest"] != config.digest:
        raise ConfigError(
            f"{store.url} holds a run made with other parameters ({_differences(theirs, mine)}): "
            "use those again, or another output"
        )
    if config.run_id not in (None, theirs["run_id"]):
        raise ConfigError(f"{store.url} holds run {theirs['run_id']}, not {config.run_id}: leave run_id out to resume")
    return str(theirs["run_id"])


def _differences(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    names = sorted(theirs["config"].keys() | mine["config"].keys())
    different = [name for name in names if theirs["config"].get(name) != mine["config"].get(name)]
    told = [f"{name}: {theirs['config'].get(name)} there, {mine['config'].get(name)} here" for name in different]
    return "; ".join(told) or f"output version {theirs['output_version']} there, {OUTPUT_VERSION} here"


def read_commits(store: Store) -> dict[str, Commit]:
    """All commits of an output by shard."""
    bodies = store.read_all(list(store.list("_commits")))
    commits = [Commit.from_json(body) for body in bodies.values()]
    return {commit.result.shard: commit for commit in commits}


@dataclass
class Totals:
    """Sums over shards."""

    shards: int = 0
    videos: int = 0
    videos_failed: int = 0
    segments: int = 0
    segments_kept: int = 0
    audio_s: float = 0.0
    kept_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def __post_init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.stage_s: Counter[str] = Counter()

    @classmethod
    def of(cls, results: Iterable[ShardResult]) -> Totals:
        totals = cls()
        for result in results:
            totals.add(result)
        return totals

    def add(self, result: ShardResult) -> None:
        self.shards += 1
        for item in fields(self):
            if item.name != "shards":
                setattr(self, item.name, getattr(self, item.name) + getattr(result, item.name))
        self.drops.update(result.drops)
        self.errors.update(letter.error_type for letter in result.dead_letters)
        self.stage_s.update(result.stage_s)

    def content(self) -> dict[str, Any]:
        """What depends on input and config alone: no timings."""
        return {
            "shards": self.shards,
            "videos": self.videos,
            "videos_failed": self.videos_failed,
            "errors": dict(sorted(self.errors.items())),
            "segments": self.segments,
            "segments_kept": self.segments_kept,
            "segments_dropped": dict(sorted(self.drops.items())),
            "hours": round(self.audio_s / 3600, 4),
            "hours_kept": round(self.kept_s / 3600, 4),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }


def finalise(store: Store, config: RunConfig, run_id: str, commits: dict[str, Commit]) -> None:
    """Write what describes the whole dataset; the same shards give the same bytes."""
    ordered = [commits[shard] for shard in sorted(commits)]
    tars = [item.name for commit in ordered for item in commit.objects if item.name.endswith(".tar")]
    by_language: dict[str, Totals] = {}
    for commit in ordered:
        by_language.setdefault(commit.result.language, Totals()).add(commit.result)
    body = {
        "run_id": run_id,
        "version": __version__,
        "config_digest": config.digest,
        "config": config.output_fields(),
        "total": Totals.of(commit.result for commit in ordered).content(),
        "languages": {language: totals.content() for language, totals in sorted(by_language.items())},
    }
    store.write("dataset.json", json.dumps(body, indent=1).encode())
    store.write("tars.txt", "".join(f"{name}\n" for name in tars).encode())
    store.write("README.md", _card(body, config).encode())


def _card(body: dict[str, Any], config: RunConfig) -> str:
    rows = [
        f"| {language} | {total['videos']} | {total['segments_kept']} | {total['hours_kept']:.2f} |"
        for language, total in body["languages"].items()
    ]
    suffix = SUFFIXES[config.audio_format][1:]
    return "\n".join(
        [
            "# Speech dataset",
            "",
            f"Made by audiopipe {body['version']}: run `{body['run_id']}`, config `{body['config_digest']}`.",
            "Every parameter is in `dataset.json`. Every segment, kept or dropped, with its metrics and its source, is in",
            "`<language>/segments_*.parquet`; every video in `<language>/videos_*.parquet`.",
            "",
            "| language | videos | segments kept | hours kept |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"Audio is {config.sample_rate} Hz mono {suffix}, in WebDataset tars that `tars.txt` lists:",
            "",
            "```python",
            "import webdataset as wds",
            'dataset = wds.WebDataset(open("tars.txt").read().split(), shardshuffle=False)',
            "sample = next(iter(dataset))",
            f'audio, about = sample["{suffix}"], sample["json"]',
            "```",
            "",
        ]
    )
