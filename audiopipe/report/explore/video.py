"""Choose the video to explore: by its id, or an interesting one of an output or a catalog."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.read import CATALOG_SCHEMA, read_catalog
from audiopipe.config import RunConfig
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.run_record import read_config
from audiopipe.errors import ConfigError
from audiopipe.plan.addresses import complete_addresses
from audiopipe.plan.files import ADDED_COLUMNS
from audiopipe.plan.plan import load_plan
from audiopipe.types import Shard, Video

__all__ = ["PARAMETERS", "ChosenVideo", "choose_video"]

PARAMETERS = ("output", "catalog", "source_prefix", "youtube_id", "segment")
BY_ID = "chosen by the parameter youtube_id"
CHOOSE_ANOTHER = "set the parameter youtube_id to see another"


@dataclass(frozen=True)
class ChosenVideo:
    """A shard of one video, and the reason for the choice.

    `dataset` is the output that the video was chosen from, None for a catalog.
    """

    shard: Shard
    config: RunConfig
    reason: str
    dataset: Dataset | None = None

    @property
    def video(self) -> Video:
        return self.shard.videos[0]

    @property
    def run_id(self) -> str | None:
        return self.dataset.run.run_id if self.dataset else None


def choose_video(
    output: str | None = None, catalog: str | None = None, source_prefix: str | None = None, youtube_id: str = ""
) -> ChosenVideo:
    """Choose a video of an output, with its run's parameters, or of a catalog, with the default ones.

    Raises:
        ConfigError: neither output nor catalog is given, or the video does not exist.
        CatalogError, PlanError, VerifyError: the catalog or the output cannot be read.
    """
    if catalog:
        return _from_catalog(catalog, source_prefix, youtube_id)
    if not output:
        raise ConfigError("parameters 'output' and 'catalog' are both empty: set one of them")
    dataset = Dataset(output)
    video_id, reason = (youtube_id, BY_ID) if youtube_id else _interesting_video(dataset)
    return _from_plan(dataset, video_id, reason)


def _from_catalog(catalog: str, source_prefix: str | None, youtube_id: str) -> ChosenVideo:
    config = RunConfig.of(catalog=catalog, output="none", source_prefix=source_prefix)
    table = read_catalog(config).table
    rows = table.filter(pc.field("video_id") == youtube_id) if youtube_id else table.sort_by("video_id")
    if not rows.num_rows:
        raise ConfigError(f"parameter 'youtube_id' {youtube_id!r}: {catalog} has no such video to process")
    reason = BY_ID if youtube_id else f"the first of the catalog; {CHOOSE_ANOTHER}"
    video = _video(rows)
    return ChosenVideo(Shard(video.language, 0, 0, (video,)), config, reason)


def _interesting_video(dataset: Dataset) -> tuple[str, str]:
    """Choose the video with the most drop reasons in the shard with the most drop reasons, and say why."""
    results = {shard: commit.result for shard, commit in dataset.commits.items()}
    if not results:
        raise ConfigError(f"output {dataset.url!r} has no committed shard to choose from; {CHOOSE_ANOTHER}")
    shard = max(
        results,
        key=lambda name: (results[name].segments_kept > 0, len(results[name].drops), results[name].segments, name),
    )
    rows = dataset.select_shards([shard]).to_pandas(["video_id", "kept", "drop_reason"])
    if not len(rows):
        letters = results[shard].dead_letters
        return letters[0].video_id, f"it failed, and no video of its shard has a segment; {CHOOSE_ANOTHER}"
    videos = rows.groupby("video_id").agg(
        reasons=("drop_reason", "nunique"), kept=("kept", "any"), dropped=("kept", lambda kept: int((~kept).sum()))
    )
    chosen = videos.sort_values(["kept", "reasons", "dropped"], ascending=False, kind="stable")
    dropped = "its segments were dropped for the most reasons in its shard"
    reason = dropped if chosen["reasons"].iloc[0] else "the first of its shard"
    return str(chosen.index[0]), f"{reason}; {CHOOSE_ANOTHER}"


def _from_plan(dataset: Dataset, youtube_id: str, reason: str) -> ChosenVideo:
    """Find a video in the plan. A retried video is in several shards, of which the last counts."""
    for language, table in load_plan(dataset.store).tables.items():
        rows = table.filter(pc.field("video_id") == youtube_id)
        if rows.num_rows:
            row = rows.sort_by("shard").slice(rows.num_rows - 1, 1)
            shard = Shard(language, row["shard"][0].as_py(), 0, (_video(row),))
            config = read_config(dataset.store)
            return ChosenVideo(complete_addresses([shard], config)[0], config, reason, dataset)
    raise ConfigError(f"parameter 'youtube_id' {youtube_id!r}: the plan of {dataset.url} has no such video")


def _video(rows: pa.Table) -> Video:
    """Return the video of the first row."""
    first = rows.slice(0, 1)
    row = first.select(CATALOG_SCHEMA.names).to_pylist()[0]
    added = {name: first[name][0].as_py() for name in ADDED_COLUMNS if name in first.column_names}
    segments, values = (added.get(name) for name in ADDED_COLUMNS)
    return Video(**row | {"sidecars": tuple(row["sidecars"] or ()), "segments": segments, "values": values or {}})
