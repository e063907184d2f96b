"""What an output says of itself: whose run it is at the start, what it holds at the end."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from audiopipe import __version__
from audiopipe.config import OUTPUT_VERSION, RunConfig
from audiopipe.dataset import duplicates
from audiopipe.dataset.commit import COMMITS, Commit, add_checksum, verify_checksum
from audiopipe.dataset.totals import Totals
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.media.encode import SUFFIXES
from audiopipe.plan.files import FOLDER
from audiopipe.plan.plan import Plan, load
from audiopipe.store.objects import Store
from audiopipe.types import ShardResult

__all__ = [
    "Totals",
    "config_of",
    "description_files",
    "effective_results",
    "finalize",
    "open_run",
    "read_commits",
    "read_run",
]

RUN = "_run.json"
DATASET = "dataset.json"

# The parameters that say where the videos come from: not part of the digest, and kept so that a retry finds them.
SOURCE = ("catalog", "source_prefix", "language", "partition_count")


def open_run(store: Store, config: RunConfig) -> str:
    """The run that an output belongs to: the one that it names, or a new one, which it names from now on.

    Raises:
        ConfigError: the output was made with parameters that give other bytes, or belongs to another run.
    """
    mine = {
        "run_id": config.run_id or str(uuid.uuid4()),
        "config_digest": config.digest,
        "config": config.output_fields(),
        "output_version": OUTPUT_VERSION,
        "source": {name: getattr(config, name) for name in SOURCE},
        "versions": {"audiopipe": __version__, "torch": torch.__version__},
    }
    if store.create(RUN, add_checksum(mine)):
        return str(mine["run_id"])
    theirs = read_run(store)
    if theirs["config_digest"] != config.digest:
        raise ConfigError(
            f"{store.url} holds a run made with other parameters ({_differences(theirs, mine)}): "
            "use those again, or another output"
        )
    if config.run_id not in (None, theirs["run_id"]):
        raise ConfigError(f"{store.url} holds run {theirs['run_id']}, not {config.run_id}: leave run_id out to resume")
    return str(theirs["run_id"])


def read_run(store: Store) -> dict[str, Any]:
    """What an output says of its run.

    Raises:
        VerifyError: it is not the output of a run, or its `_run.json` is damaged.
    """
    try:
        return verify_checksum(store.read(RUN), RUN)
    except FileNotFoundError:
        raise VerifyError(f"{store.url} holds no {RUN}: it is not the output of a run") from None


def config_of(store: Store, **parameters: Any) -> RunConfig:
    """The config of an output's run, from the output alone; parameters that are given replace its own.

    Raises:
        VerifyError: as `read_run`.
        ConfigError: the run was made by a version whose parameters this one does not know.
    """
    run = read_run(store)
    return RunConfig.of(**(run["config"] | run["source"] | {"output": store.url} | parameters))


def _differences(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    names = sorted(theirs["config"].keys() | mine["config"].keys())
    different = [name for name in names if theirs["config"].get(name) != mine["config"].get(name)]
    told = [f"{name}: {theirs['config'].get(name)} there, {mine['config'].get(name)} here" for name in different]
    return "; ".join(told) or f"output version {theirs['output_version']} there, {OUTPUT_VERSION} here"


def read_commits(store: Store) -> dict[str, Commit]:
    """All commits of an output by shard. Raises `VerifyError` if one is damaged."""
    bodies = store.read_all([name for name in store.list(COMMITS) if name.endswith(".json")])
    commits = [Commit.from_json(body, name) for name, body in bodies.items()]
    return {commit.result.shard: commit for commit in commits}


def effective_results(commits: Mapping[str, Commit], plan: Plan) -> dict[str, ShardResult]:
    """The results by shard, without the dead letters that a later generation of the plan has taken up since.

    So a video that was tried again counts once, as what became of it the last time.
    """
    last = _last_shards(commits, plan)
    return {shard: _settled(commit.result, last, commits.keys()) for shard, commit in commits.items()}


def _last_shards(commits: Mapping[str, Commit], plan: Plan) -> dict[tuple[str, str], str]:
    """The last shard that the plan has for each dead letter's (language, video)."""
    dead: dict[str, set[str]] = {}
    for commit in commits.values():
        for letter in commit.result.dead_letters:
            dead.setdefault(commit.result.language, set()).add(letter.video_id)
    last = {}
    for language, ids in dead.items():
        table = plan.tables[language].select(["shard", "video_id"])
        rows = table.filter(pc.is_in(table["video_id"], pa.array(sorted(ids)))).sort_by("shard")
        for shard, video_id in zip(rows["shard"].to_pylist(), rows["video_id"].to_pylist(), strict=True):
            last[language, video_id] = f"{language}-{shard:06d}"
    return last


def _settled(result: ShardResult, last: Mapping[tuple[str, str], str], committed: Set[str]) -> ShardResult:
    later = {letter: last.get((result.language, letter.video_id), result.shard) for letter in result.dead_letters}
    letters = tuple(letter for letter, shard in later.items() if shard == result.shard or shard not in committed)
    gone = len(result.dead_letters) - len(letters)
    return replace(result, videos=result.videos - gone, videos_failed=result.videos_failed - gone, dead_letters=letters)


def finalize(store: Store) -> None:
    """Write what describes the whole dataset; the same shards give the same bytes."""
    run, commits = read_run(store), read_commits(store)
    duplicates.write_duplicates(store, commits, run["config"].get("duplicate_similarity"))
    for name, data in description_files(store, run, commits, load(store)).items():
        store.write(name, data)


def description_files(
    store: Store, run: Mapping[str, Any], commits: Mapping[str, Commit], plan: Plan
) -> dict[str, bytes]:
    """The objects that describe the whole dataset, by name."""
    results = effective_results(commits, plan)
    ordered = [results[shard] for shard in sorted(results)]
    tars = [item.name for shard in sorted(commits) for item in commits[shard].objects if item.name.endswith(".tar")]
    by_language: dict[str, Totals] = {}
    for result in ordered:
        by_language.setdefault(result.language, Totals()).add(result)
    body = {
        "run_id": run["run_id"],
        "version": run["versions"]["audiopipe"],
        "config_digest": run["config_digest"],
        "config": run["config"],
        "plan": {name: hashlib.sha256(store.read(name)).hexdigest() for name in store.list(FOLDER)},
        "total": Totals.of(ordered).counts(),
        "languages": {language: totals.counts() for language, totals in sorted(by_language.items())},
    }
    if run["config"].get("duplicate_similarity") is not None:
        body["duplicates"] = duplicates.summarize_duplicates(store)
    return {
        DATASET: add_checksum(body),
        "tars.txt": "".join(f"{name}\n" for name in tars).encode(),
        "README.md": _card(body).encode(),
    }


def _card(body: dict[str, Any]) -> str:
    rows = [
        f"| {language} | {total['videos']} | {total['segments_kept']} | {total['hours_kept']:.2f} |"
        for language, total in body["languages"].items()
    ]
    suffix = SUFFIXES[body["config"]["audio_format"]][1:]
    return "\n".join(
        [
            "# Speech dataset",
            "",
            f"Made by audiopipe {body['version']}: run `{body['run_id']}`, config `{body['config_digest']}`.",
            "Every parameter is in `dataset.json`. Every segment, kept or dropped, with metrics and source, is in",
            "`<language>/segments_*.parquet`; every video in `<language>/videos_*.parquet`.",
            "",
            "| language | videos | segments kept | hours kept |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"Audio is {body['config']['sample_rate']} Hz mono {suffix}, in WebDataset tars that `tars.txt` lists:",
            "",
            "```python",
            "import webdataset as wds",
            'dataset = wds.WebDataset(open("tars.txt").read().split(), shardshuffle=False)',
            "sample = next(iter(dataset))",
            f'audio, about = sample["{suffix}"], sample["json"]',
            "```",
            "",
            *(_about_duplicates(body["duplicates"]) if "duplicates" in body else []),
        ]
    )


def _about_duplicates(told: dict[str, Any]) -> list[str]:
    return [
        f"{told['videos']} videos ({told['hours']:.2f} h) have the audio of another: `duplicates.parquet` names them.",
        "They are in the tars and the tables, and not in the manifests `<language>/unique_manifest_*.json`.",
        "",
    ]
