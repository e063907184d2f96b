"""Sum up the rows of a plan."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["PlanTotals", "is_planned_once", "sum_rows"]


@dataclass(frozen=True)
class PlanTotals:
    """Sums over shards.

    `hours` covers the `videos_with_duration` whose duration is known, `size_bytes` the `videos_with_size`.
    """

    videos: int
    shards: int
    hours: float
    videos_with_duration: int
    size_bytes: int
    videos_with_size: int


def is_planned_once(table: pa.Table) -> bool:
    """Check that no video has more than one row, as long as nothing was retried."""
    return bool(pc.count_distinct(table["video_id"]).as_py() == table.num_rows)


def sum_rows(table: pa.Table, partition: int | None, shards: int) -> PlanTotals:
    """Sum up the rows of a language's table, of a partition or all; a video that was planned again counts last only.

    Args:
        shards: the number of shards of these rows.
    """
    rows = table
    if not is_planned_once(table):
        rows = table.filter(pa.array(~table["video_id"].to_pandas().duplicated(keep="last")))
    if partition is not None:
        rows = rows.filter(pc.field("partition") == partition)
    sizes, durations = rows["size_bytes"], rows["duration_s"]
    return PlanTotals(
        # A selection's shard without a new video has one row without an id.
        videos=pc.sum(pc.not_equal(rows["video_id"], "")).as_py() or 0,
        shards=shards,
        hours=(pc.sum(durations).as_py() or 0.0) / 3600,
        videos_with_duration=len(durations) - durations.null_count,
        size_bytes=pc.sum(sizes).as_py() or 0,
        videos_with_size=len(sizes) - sizes.null_count,
    )
