"""A plan's totals count what is known, and each video once."""

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.plan.totals import PlanTotals, sum_rows

NAMES = ("video_id", "shard", "partition", "size_bytes", "duration_s")
# "again" failed in shard 0 and was planned again as shard 2, whose row has its size.
ROWS = [
    ("a", 0, 0, 10, 3600.0),
    ("again", 0, 0, None, 1800.0),
    ("b", 1, 1, 30, None),
    ("again", 2, 1, 5, 900.0),
]
TABLE = pa.table(dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True)))


def test_totals_count_known_values():
    first = TABLE.filter(pc.field("shard") < 2)
    assert sum_rows(first, None, 2) == PlanTotals(
        videos=3, shards=2, hours=1.5, videos_with_duration=2, size_bytes=40, videos_with_size=2
    )


def test_a_video_that_was_planned_again_counts_in_its_last_shard():
    assert sum_rows(TABLE, None, 3) == PlanTotals(
        videos=3, shards=3, hours=1.25, videos_with_duration=2, size_bytes=45, videos_with_size=3
    )


def test_totals_of_partitions_add_up():
    parts = [sum_rows(TABLE, partition, shards) for partition, shards in ((0, 1), (1, 2))]
    whole = sum_rows(TABLE, None, 3)
    assert [part.videos for part in parts] == [1, 2]
    assert sum(part.size_bytes for part in parts) == whole.size_bytes
    assert sum(part.hours for part in parts) == whole.hours


def test_rows_without_a_video_count_as_shards_only():
    empty = pa.table({name: pa.nulls(2, TABLE.schema.field(name).type) for name in NAMES})
    rows = empty.set_column(0, "video_id", pa.array(["", ""]))
    assert sum_rows(rows, None, 2) == PlanTotals(0, 2, 0.0, 0, 0, 0)
