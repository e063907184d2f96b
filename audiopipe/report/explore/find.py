"""Which video to look at: one that is named, or an interesting one of an output or of a catalogue."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog import read as catalogues
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, read_commit, read_commits
from audiopipe.dataset.run_record import read_config, read_run_record
from audiopipe.errors import ConfigError
from audiopipe.plan.plan import Plan, load
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table
from audiopipe.types import Shard, Video

__all__ = ["PARAMETERS", "Selection", "find"]

PARAMETERS = ("output", "catalog", "source_prefix", "youtube_id", "segment")
UNNAMED = "give the parameter 'youtube_id' to look at another"


@dataclass(frozen=True)
class Selection:
    """A shard of this video alone, and how it came to be looked at. `store` and `commit` are the output's, if any."""

    shard: Shard
    config: RunConfig
    why: str
    store: Store | None = None
    commit: Commit | None = None
    run_id: str | None = None

    @property
    def video(self) -> Video:
        return self.shard.videos[0]


def find(
    output: str | None = None, catalog: str | None = None, source_prefix: str | None = None, youtube_id: str = ""
) -> Selection:
    """The video of an output, with its run's parameters; or of a catalogue, with the default ones.

    Raises:
        ConfigError: neither or both are given, or there is no such video.
        CatalogError, PlanError, VerifyError: what is given cannot be read.
    """
    if catalog:
        return _of_catalog(catalog, source_prefix, youtube_id)
    if not output:
        raise ConfigError("parameters 'output' and 'catalog': give one of them, to take the video from")
    return _of_output(Store(output), youtube_id)


def _of_catalog(catalog: str, source_prefix: str | None, youtube_id: str) -> Selection:
    config = RunConfig.of(catalog=catalog, output="none", source_prefix=source_prefix)
    table = catalogues.read_catalog(config).table
    rows = table.filter(pc.field("video_id") == youtube_id) if youtube_id else table.sort_by("video_id")
    if not rows.num_rows:
        raise ConfigError(f"parameter 'youtube_id' {youtube_id!r}: {catalog} has no such video to be processed")
    why = "named by the parameter youtube_id" if youtube_id else f"the first of the catalogue; {UNNAMED}"
    video = Video(**rows.slice(0, 1).to_pylist()[0])
    return Selection(Shard(video.language, 0, 0, (video,)), config, why)


def _of_output(store: Store, youtube_id: str) -> Selection:
    plan, config = load(store), read_config(store)
    if youtube_id:
        return _named(store, plan, config, youtube_id)
    commits = read_commits(store)
    if not commits:
        raise ConfigError(f"output {store.url!r} has no committed shard to choose from: {UNNAMED}")
    # Of the shards that keep something that with the most kinds of drops, and of its videos likewise: the most to show.
    results = {name: commit.result for name, commit in commits.items()}
    shard = max(
        results,
        key=lambda name: (results[name].segments_kept > 0, len(results[name].drops), results[name].segments, name),
    )
    video_id, why = _interesting(store, commits[shard])
    return replace(_named(store, plan, config, video_id), why=f"{why}; {UNNAMED}")


def _interesting(store: Store, commit: Commit) -> tuple[str, str]:
    name = next(item.name for item in commit.objects if "/segments_" in item.name)
    columns = ["video_id", "kept", "drop_reason"]
    rows = read_table(store.read(name), columns).to_pandas()
    if not len(rows):
        letters = commit.result.dead_letters
        return letters[0].video_id, "a video that failed, since none of its shard has a segment"
    kinds = rows.groupby("video_id").agg(
        kinds=("drop_reason", "nunique"), kept=("kept", "any"), dropped=("kept", lambda kept: int((~kept).sum()))
    )
    chosen = kinds.sort_values(["kept", "kinds", "dropped"], ascending=False, kind="stable")
    why = "its segments were dropped for the most reasons, of its shard" if chosen["kinds"].iloc[0] else "the first"
    return str(chosen.index[0]), why


def _named(store: Store, plan: Plan, config: RunConfig, youtube_id: str) -> Selection:
    """By the plan, whose last shard with the video counts: that of its last retry."""
    for language, table in plan.tables.items():
        rows = table.filter(pc.field("video_id") == youtube_id)
        if rows.num_rows:
            row = rows.sort_by("shard").slice(rows.num_rows - 1, 1)
            shard = Shard(language, row["shard"][0].as_py(), 0, (_video(row),))
            commit = read_commit(store, shard.name)
            return Selection(
                shard, config, "named by the parameter youtube_id", store, commit, read_run_record(store).run_id
            )
    raise ConfigError(f"parameter 'youtube_id' {youtube_id!r}: the plan of {store.url} has no such video")


def _video(row: pa.Table) -> Video:
    return Video(**row.select(catalogues.SCHEMA.names).to_pylist()[0])
