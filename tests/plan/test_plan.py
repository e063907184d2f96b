import itertools
import threading
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.catalog import read as catalog
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, PlanError
from audiopipe.plan import plan
from audiopipe.plan.partition import partition_of
from audiopipe.plan.plan import PlanTotals
from audiopipe.store.objects import Store


def config(**parameters):
    return RunConfig.of(catalog="c", output="o", **parameters)


def table(language, ids, sizes=None, durations=None):
    columns = {
        "video_id": list(ids),
        "language": [language] * len(ids),
        "uri": [f"s3://b/{name}" for name in ids],
        "size_bytes": sizes or [None] * len(ids),
        "duration_s": durations or [None] * len(ids),
    }
    return pa.table(columns, schema=catalog.CATALOG_SCHEMA)


class Videos:
    """A catalogue in memory that knows how often it was read."""

    columns = ("youtube_id", "language", "r2_tar_key")

    def __init__(self, **tables):
        self.tables = tables
        self.reads = 0
        self.asked = []

    def __call__(self, _config):
        self.reads += 1
        return self

    def languages(self):
        return sorted(self.tables)

    def videos(self, language):
        self.asked.append(language)
        return self.tables.get(language, table(language, []))


def ids(count, prefix="v"):
    return [f"{prefix}{i:05d}" for i in range(count)]


def contents(store):
    return {name: store.read(name) for name in store.list("")}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def test_videos_are_in_one_shard_of_their_partition_ordered_by_id(store):
    videos = Videos(en=table("en", ids(500)[::-1]), de=table("de", ids(99, "ä")))
    made = plan.create_plan(config(partition_count=4, shard_videos=10), store, videos)
    for language, names in (("en", ids(500)), ("de", ids(99, "ä"))):
        shards = sorted(made.shards(languages=[language]), key=lambda shard: shard.index)
        assert [shard.index for shard in shards] == list(range(len(shards)))
        assert [shard.partition for shard in shards] == sorted(shard.partition for shard in shards)
        assert sorted(v.video_id for shard in shards for v in shard.videos) == sorted(names)
        for shard in shards:
            of_shard = [v.video_id for v in shard.videos]
            assert of_shard == sorted(of_shard)
            assert set(partition_of(of_shard, 4).tolist()) == {shard.partition}
            assert {v.language for v in shard.videos} == {language}
        by_partition = [[s for s in shards if s.partition == p] for p in range(4)]
        for of_one in by_partition:
            assert all(len(shard.videos) == 10 for shard in of_one[:-1])
            in_order = [v.video_id for shard in of_one for v in shard.videos]
            assert in_order == sorted(in_order, key=str.encode)


def test_partitions_together_are_everything_and_apart(store):
    videos = Videos(en=table("en", ids(300)), de=table("de", ids(100)))
    made = plan.create_plan(config(partition_count=3, shard_videos=7), store, videos)
    parts = [{shard.name for shard in made.shards(p)} for p in range(3)]
    assert set.union(*parts) == {shard.name for shard in made.shards()}
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert not list(made.shards(3))


def test_languages_take_turns(store):
    videos = Videos(a=table("a", ids(3)), b=table("b", ids(1)), c=table("c", ids(2)))
    made = plan.create_plan(config(shard_videos=1), store, videos)
    assert [s.name for s in made.shards(0)] == [
        *("a-000000", "b-000000", "c-000000"),
        *("a-000001", "c-000001", "a-000002"),
    ]
    assert [s.name for s in made.shards(0, ["c", "b", "zz"])] == ["b-000000", "c-000000", "c-000001"]


def test_languages_come_one_after_the_other_in_the_order_of_the_list(store):
    videos = Videos(a=table("a", ids(2)), b=table("b", ids(1)), c=table("c", ids(2)))
    made = plan.create_plan(config(shard_videos=1), store, videos)
    names = [s.name for s in made.shards(0, ["c", "zz", "a", "c"], "sequential")]
    assert names == ["c-000000", "c-000001", "a-000000", "a-000001"]
    assert [s.language for s in made.shards(order="sequential")] == ["a", "a", "b", "c", "c"]


def packed(sizes=None, durations=None, **bounds):
    count = len(sizes or durations)
    shards = plan.assign_shards(table("en", ids(count), sizes, durations), config(**bounds))["shard"].to_pylist()
    return [len(list(rows)) for _, rows in itertools.groupby(shards)]


def test_a_shard_is_bounded_by_number_bytes_and_minutes():
    mb = 1_000_000
    assert packed([mb] * 10, shard_videos=4) == [4, 4, 2]
    assert packed([mb] * 10, shard_mb=3) == [3, 3, 3, 1]
    assert packed(durations=[60.0] * 5, shard_minutes=2) == [2, 2, 1]
    assert packed([mb, 2 * mb, 3 * mb, 1], shard_mb=3) == [2, 1, 1]


def test_a_video_above_the_bound_is_a_shard_alone():
    mb = 1_000_000
    assert packed([mb, 9 * mb, mb, mb, 9 * mb, 9 * mb, None, mb], shard_mb=3) == [1, 1, 2, 1, 1, 2]
    assert packed(durations=[1.0, 999.0, None, 1.0], shard_minutes=1) == [1, 1, 2]


def test_unknown_sizes_leave_the_number_as_the_bound():
    assert packed([None] * 9, shard_mb=1, shard_videos=4) == [4, 4, 1]


@settings(max_examples=50)
@given(
    rows=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=6),
        st.tuples(st.none() | st.integers(0, 5_000_000), st.none() | st.floats(0, 400)),
        max_size=40,
    ),
    count=st.integers(1, 5),
    videos=st.integers(1, 6),
)
def test_no_shard_exceeds_a_bound_and_none_could_take_the_next_video(rows, count, videos):
    names = list(rows)
    limits = config(partition_count=count, shard_videos=videos, shard_mb=3, shard_minutes=5)
    given_table = table("en", names, [rows[n][0] for n in names], [rows[n][1] for n in names])
    found = plan.assign_shards(given_table, limits)
    order = sorted(names, key=lambda n: (int(partition_of([n], count)[0]), n.encode()))
    assert found["video_id"].to_pylist() == order
    shards = [list(s) for _, s in itertools.groupby(found.to_pylist(), key=lambda row: row["shard"])]
    for index, shard in enumerate(shards):
        assert [row["shard"] for row in shard] == [index] * len(shard)
        assert [row["position"] for row in shard] == list(range(len(shard)))
        assert len({row["partition"] for row in shard}) == 1
        assert len(shard) == 1 or fits(shard, limits)
    for shard, following in itertools.pairwise(shards):
        assert shard[0]["partition"] != following[0]["partition"] or not fits([*shard, following[0]], limits)


def fits(rows, limits):
    size = sum(row["size_bytes"] or 0 for row in rows)
    seconds = sum(row["duration_s"] or 0 for row in rows)
    return len(rows) <= limits.shard_videos and size <= 3_000_000 and seconds <= 300


def test_the_same_catalog_in_any_order_makes_the_same_bytes(tmp_path):
    names = ids(1000)
    sizes = np.random.default_rng(0).integers(0, 10**9, 1000).tolist()
    whole = table("en", names, sizes)
    mixed = pa.concat_tables([whole.slice(600), whole.slice(0, 300), whole.slice(300, 300)])
    for name, videos in (("a", whole), ("b", mixed)):
        plan.create_plan(config(partition_count=5), Store(str(tmp_path / name)), Videos(en=videos))
    assert contents(Store(str(tmp_path / "a"))) == contents(Store(str(tmp_path / "b")))
    assert list(contents(Store(str(tmp_path / "a")))) == ["_plan/en-000.parquet"]


def test_an_existing_plan_is_used_without_reading_the_catalog(store):
    videos = Videos(en=table("en", ids(5)), de=table("de", ids(5)))
    first = plan.create_plan(config(), store, videos)
    before = contents(store)
    later = Videos(en=table("en", ids(500)), fr=table("fr", ids(5)))
    second = plan.create_plan(config(), store, later)
    assert later.reads == 0
    assert contents(store) == before
    assert list(second.shards()) == list(first.shards())
    assert plan.create_plan(config(language="en"), store, later).languages() == ["en"]
    assert later.reads == 0


def test_only_the_languages_without_a_plan_are_read(store):
    plan.create_plan(config(language="en"), store, Videos(en=table("en", ids(5))))
    videos = Videos(en=table("en", ids(50)), de=table("de", ids(3)), fr=table("fr", ids(3)))
    assert plan.create_plan(config(language="de"), store, videos).languages() == ["de"]
    made = plan.create_plan(config(), store, videos)
    assert videos.asked == ["de", "fr"]
    assert {name: totals.videos for name, totals in made.totals().items()} == {"de": 3, "en": 5, "fr": 3}


def test_interrupted_planning_is_finished_with_its_first_languages(store):
    videos = Videos(de=table("de", ids(2)), en=table("en", ids(3)), fr=table("fr", ids(4)))
    plan.create_plan(config(), store, videos)
    (store.local_folder / "_plan" / "en-000.parquet").unlink()
    (store.local_folder / "_plan" / "fr-000.parquet").unlink()
    later = Videos(**videos.tables, it=table("it", ids(4)))
    assert plan.create_plan(config(), store, later).languages() == ["de", "en", "fr"]
    assert later.asked == ["en", "fr"]


def test_another_partition_count_is_refused_with_both_numbers(store):
    videos = Videos(en=table("en", ids(5)))
    plan.create_plan(config(partition_count=4), store, videos)
    with pytest.raises(PlanError, match=r"_plan/en-000.parquet was made for partition_count 4, not 8; .* to 4, or"):
        plan.create_plan(config(partition_count=8), store, videos)
    with pytest.raises(PlanError, match="4, not 8"):
        plan.create_plan(config(partition_count=8, language="de"), store, Videos(de=table("de", ids(5))))
    assert list(store.list("")) == ["_plan/en-000.parquet"]


def test_nodes_that_start_at_the_same_moment_agree_on_one_plan(store):
    # Each sees the catalogue at another time, and so would make another plan.
    seen = [Videos(en=table("en", ids(50 + i)), de=table("de", ids(30 + i))) for i in range(8)]
    barrier, found = threading.Barrier(8), []

    def node(videos):
        barrier.wait()
        found.append(list(plan.create_plan(config(partition_count=2, shard_videos=3), store, videos).shards()))

    threads = [threading.Thread(target=node, args=[videos]) for videos in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(shards == found[0] for shards in found)
    assert list(store.list("")) == ["_plan/de-000.parquet", "_plan/en-000.parquet"]


def test_a_node_with_another_partition_count_adds_no_plan(store):
    class Slow(Videos):
        def videos(self, language):
            plan.create_plan(config(partition_count=2, language="de"), store, Videos(de=table("de", ids(9))))
            return super().videos(language)

    with pytest.raises(PlanError, match="2, not 3"):
        plan.create_plan(config(partition_count=3), store, Slow(de=table("de", ids(9)), en=table("en", ids(9))))
    assert list(store.list("")) == ["_plan/de-000.parquet"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "foreign", "version"])
def test_a_file_that_is_no_plan_is_refused_by_name(store, damage, monkeypatch):
    if damage == "version":
        monkeypatch.setattr("audiopipe.plan.files.VERSION", 2)
    plan.create_plan(config(), store, Videos(en=table("en", ids(5))))
    monkeypatch.undo()
    path = store.local_folder / "_plan" / "en-000.parquet"
    if damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    elif damage != "version":
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"garbage")
    for reading in (lambda: plan.create_plan(config(), store, Videos()), lambda: plan.load_plan(store)):
        with pytest.raises(PlanError, match=r"_plan/en-000\.parquet"):
            reading()


def test_a_catalog_error_leaves_no_plan_behind(store):
    def broken(_config):
        raise CatalogError("no")

    with pytest.raises(CatalogError):
        plan.create_plan(config(), store, broken)
    assert store.list("") == {}


def test_a_plan_is_loaded_without_a_config(store):
    with pytest.raises(PlanError, match="no plan"):
        plan.load_plan(store)
    made = plan.create_plan(
        config(partition_count=3), store, Videos(**{"pt-BR": table("pt-BR", ids(5)), "pt": table("pt", ids(6))})
    )
    loaded = plan.load_plan(store)
    assert loaded.partition_count == 3
    assert loaded.languages() == ["pt", "pt-BR"]
    assert list(loaded.shards()) == list(made.shards())


def test_a_later_generation_continues_the_numbering(store):
    first = plan.create_plan(config(shard_videos=2), store, Videos(en=table("en", ids(5))))
    assert first.totals()["en"].shards == 3
    more = plan.assign_shards(table("en", ids(3, "w")), config(shard_videos=2), first_shard=3)
    facts = {"generation": 1, "partition_count": 1, "languages": None}
    assert store.create(plan.plan_path("en", 1), plan.serialize(more, facts))
    assert [s.index for s in plan.create_plan(config(), store, Videos()).shards()] == [0, 1, 2, 3, 4]


def test_totals_count_known_values(store):
    videos = table("en", ids(4), [10, None, 30, 5], [3600.0, 1800.0, None, None])
    made = plan.create_plan(config(shard_videos=3), store, Videos(en=videos, de=table("de", ids(2))))
    assert made.totals() == {
        "de": PlanTotals(videos=2, shards=1, hours=0.0, videos_with_duration=0, size_bytes=0, videos_with_size=0),
        "en": PlanTotals(videos=4, shards=2, hours=1.5, videos_with_duration=2, size_bytes=45, videos_with_size=3),
    }


def test_totals_of_partitions_add_up(store):
    made = plan.create_plan(config(partition_count=4), store, Videos(en=table("en", ids(100), [7] * 100)))
    parts = [made.totals(p)["en"] for p in range(4)]
    whole = made.totals()["en"]
    assert sum(p.videos for p in parts) == whole.videos == 100
    assert sum(p.shards for p in parts) == whole.shards
    assert sum(p.size_bytes for p in parts) == whole.size_bytes == 700


def test_half_a_million_videos_are_planned_fast_in_little_memory(store):
    count = 500_000 // 4
    tables = {name: table(name, ids(count, name), [5_000_000] * count, [60.0] * count) for name in ("a", "b", "c", "d")}
    began = time.process_time()
    plan.create_plan(config(partition_count=8), store, Videos(**tables))
    tracemalloc.start()
    loaded = plan.load_plan(store)
    shards = videos = 0
    for shard in loaded.shards():
        shards, videos = shards + 1, videos + len(shard.videos)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (videos, shards) == (500_000, sum(totals.shards for totals in loaded.totals().values()))
    assert sum(part.nbytes for part in loaded.tables.values()) < 60 * 2**20
    assert peak < 30 * 2**20, "shards are made one at a time"
    assert time.process_time() - began < 40
