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

from audiopipe.catalog.read import CATALOG_SCHEMA
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, PlanError
from audiopipe.plan.files import PlanMetadata, plan_path, serialize
from audiopipe.plan.partition import partition_of
from audiopipe.plan.plan import assign_shards, create_plan, load_plan
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
        "sidecars": [None] * len(ids),
    }
    return pa.table(columns, schema=CATALOG_SCHEMA)


class FakeCatalog:
    """A catalog in memory that counts how often it is read."""

    columns = ("youtube_id", "language", "r2_tar_key")

    def __init__(self, **tables):
        self.tables = tables
        self.reads = 0
        self.languages_read = []

    def __call__(self, _config):
        self.reads += 1
        return self

    def languages(self):
        return sorted(self.tables)

    def videos(self, language):
        self.languages_read.append(language)
        return self.tables.get(language, table(language, []))


def ids(count, prefix="v"):
    return [f"{prefix}{i:05d}" for i in range(count)]


def read_objects(store):
    return {name: store.read(name) for name in store.list("")}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "out"))


def test_videos_are_in_one_shard_of_their_partition_ordered_by_id(store):
    videos = FakeCatalog(en=table("en", ids(500)[::-1]), de=table("de", ids(99, "ä")))
    created = create_plan(config(partition_count=4, shard_videos=10), store, videos)
    for language, names in (("en", ids(500)), ("de", ids(99, "ä"))):
        shards = sorted(created.shards(languages=[language]), key=lambda shard: shard.index)
        assert [shard.index for shard in shards] == list(range(len(shards)))
        assert [shard.partition for shard in shards] == sorted(shard.partition for shard in shards)
        assert sorted(video.video_id for shard in shards for video in shard.videos) == sorted(names)
        for shard in shards:
            video_ids = [video.video_id for video in shard.videos]
            assert video_ids == sorted(video_ids)
            assert set(partition_of(video_ids, 4).tolist()) == {shard.partition}
            assert {video.language for video in shard.videos} == {language}
        by_partition = [[s for s in shards if s.partition == p] for p in range(4)]
        for partition_shards in by_partition:
            assert all(len(shard.videos) == 10 for shard in partition_shards[:-1])
            video_ids = [video.video_id for shard in partition_shards for video in shard.videos]
            assert video_ids == sorted(video_ids, key=str.encode)


def test_partitions_are_disjoint_and_complete(store):
    videos = FakeCatalog(en=table("en", ids(300)), de=table("de", ids(100)))
    created = create_plan(config(partition_count=3, shard_videos=7), store, videos)
    parts = [{shard.name for shard in created.shards(p)} for p in range(3)]
    assert set.union(*parts) == {shard.name for shard in created.shards()}
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert not list(created.shards(3))


def test_languages_take_turns(store):
    videos = FakeCatalog(a=table("a", ids(3)), b=table("b", ids(1)), c=table("c", ids(2)))
    created = create_plan(config(shard_videos=1), store, videos)
    assert [s.name for s in created.shards(0)] == [
        *("a-000000", "b-000000", "c-000000"),
        *("a-000001", "c-000001", "a-000002"),
    ]
    assert [s.name for s in created.shards(0, ["c", "b", "zz"])] == ["b-000000", "c-000000", "c-000001"]


def test_sequential_languages_keep_the_given_order(store):
    videos = FakeCatalog(a=table("a", ids(2)), b=table("b", ids(1)), c=table("c", ids(2)))
    created = create_plan(config(shard_videos=1), store, videos)
    names = [s.name for s in created.shards(0, ["c", "zz", "a", "c"], "sequential")]
    assert names == ["c-000000", "c-000001", "a-000000", "a-000001"]
    assert [s.language for s in created.shards(order="sequential")] == ["a", "a", "b", "c", "c"]


def shard_sizes(sizes=None, durations=None, **bounds):
    count = len(sizes or durations)
    shards = assign_shards(table("en", ids(count), sizes, durations), config(**bounds))["shard"].to_pylist()
    return [len(list(rows)) for _, rows in itertools.groupby(shards)]


def test_a_shard_is_limited_by_number_bytes_and_minutes():
    mb = 1_000_000
    assert shard_sizes([mb] * 10, shard_videos=4) == [4, 4, 2]
    assert shard_sizes([mb] * 10, shard_mb=3) == [3, 3, 3, 1]
    assert shard_sizes(durations=[60.0] * 5, shard_minutes=2) == [2, 2, 1]
    assert shard_sizes([mb, 2 * mb, 3 * mb, 1], shard_mb=3) == [2, 1, 1]


def test_a_video_above_a_limit_is_a_shard_of_one():
    mb = 1_000_000
    assert shard_sizes([mb, 9 * mb, mb, mb, 9 * mb, 9 * mb, None, mb], shard_mb=3) == [1, 1, 2, 1, 1, 2]
    assert shard_sizes(durations=[1.0, 999.0, None, 1.0], shard_minutes=1) == [1, 1, 2]


def test_with_unknown_sizes_only_the_number_is_a_limit():
    assert shard_sizes([None] * 9, shard_mb=1, shard_videos=4) == [4, 4, 1]


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
def test_shards_are_full_and_exceed_no_limit(rows, count, videos):
    names = list(rows)
    limits = config(partition_count=count, shard_videos=videos, shard_mb=3, shard_minutes=5)
    videos_table = table("en", names, [rows[n][0] for n in names], [rows[n][1] for n in names])
    assigned = assign_shards(videos_table, limits)
    order = sorted(names, key=lambda n: (int(partition_of([n], count)[0]), n.encode()))
    assert assigned["video_id"].to_pylist() == order
    shards = [list(s) for _, s in itertools.groupby(assigned.to_pylist(), key=lambda row: row["shard"])]
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


def test_a_catalog_in_any_order_makes_the_same_bytes(tmp_path):
    names = ids(1000)
    sizes = np.random.default_rng(0).integers(0, 10**9, 1000).tolist()
    whole = table("en", names, sizes)
    mixed = pa.concat_tables([whole.slice(600), whole.slice(0, 300), whole.slice(300, 300)])
    for name, videos in (("a", whole), ("b", mixed)):
        create_plan(config(partition_count=5), Store(str(tmp_path / name)), FakeCatalog(en=videos))
    assert read_objects(Store(str(tmp_path / "a"))) == read_objects(Store(str(tmp_path / "b")))
    assert list(read_objects(Store(str(tmp_path / "a")))) == ["_plan/en-000.parquet"]


def test_an_existing_plan_is_used_without_reading_the_catalog(store):
    videos = FakeCatalog(en=table("en", ids(5)), de=table("de", ids(5)))
    first = create_plan(config(), store, videos)
    before = read_objects(store)
    later = FakeCatalog(en=table("en", ids(500)), fr=table("fr", ids(5)))
    second = create_plan(config(), store, later)
    assert later.reads == 0
    assert read_objects(store) == before
    assert list(second.shards()) == list(first.shards())
    assert create_plan(config(language="en"), store, later).languages() == ["en"]
    assert later.reads == 0


def test_only_the_languages_without_a_plan_are_read(store):
    create_plan(config(language="en"), store, FakeCatalog(en=table("en", ids(5))))
    videos = FakeCatalog(en=table("en", ids(50)), de=table("de", ids(3)), fr=table("fr", ids(3)))
    assert create_plan(config(language="de"), store, videos).languages() == ["de"]
    created = create_plan(config(), store, videos)
    assert videos.languages_read == ["de", "fr"]
    assert {name: totals.videos for name, totals in created.totals().items()} == {"de": 3, "en": 5, "fr": 3}


def test_interrupted_planning_is_finished_with_its_first_languages(store):
    videos = FakeCatalog(de=table("de", ids(2)), en=table("en", ids(3)), fr=table("fr", ids(4)))
    create_plan(config(), store, videos)
    (store.local_folder / "_plan" / "en-000.parquet").unlink()
    (store.local_folder / "_plan" / "fr-000.parquet").unlink()
    later = FakeCatalog(**videos.tables, it=table("it", ids(4)))
    assert create_plan(config(), store, later).languages() == ["de", "en", "fr"]
    assert later.languages_read == ["en", "fr"]


def test_another_partition_count_is_refused_with_both_numbers(store):
    videos = FakeCatalog(en=table("en", ids(5)))
    create_plan(config(partition_count=4), store, videos)
    with pytest.raises(PlanError, match=r"_plan/en-000.parquet was made for partition_count 4, not 8; .* to 4, or"):
        create_plan(config(partition_count=8), store, videos)
    with pytest.raises(PlanError, match="4, not 8"):
        create_plan(config(partition_count=8, language="de"), store, FakeCatalog(de=table("de", ids(5))))
    assert list(store.list("")) == ["_plan/en-000.parquet"]


def test_nodes_that_start_together_agree_on_one_plan(store):
    # Each reads the catalog at another time, and so would make another plan.
    catalogs = [FakeCatalog(en=table("en", ids(50 + i)), de=table("de", ids(30 + i))) for i in range(8)]
    barrier, plans = threading.Barrier(8), []

    def run_node(catalog):
        barrier.wait()
        plans.append(list(create_plan(config(partition_count=2, shard_videos=3), store, catalog).shards()))

    threads = [threading.Thread(target=run_node, args=[catalog]) for catalog in catalogs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans) == 8
    assert all(shards == plans[0] for shards in plans)
    assert list(store.list("")) == ["_plan/de-000.parquet", "_plan/en-000.parquet"]


def test_a_node_with_another_partition_count_adds_no_plan(store):
    class SlowCatalog(FakeCatalog):
        def videos(self, language):
            create_plan(config(partition_count=2, language="de"), store, FakeCatalog(de=table("de", ids(9))))
            return super().videos(language)

    with pytest.raises(PlanError, match="2, not 3"):
        create_plan(config(partition_count=3), store, SlowCatalog(de=table("de", ids(9)), en=table("en", ids(9))))
    assert list(store.list("")) == ["_plan/de-000.parquet"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "foreign", "version"])
def test_a_file_that_is_not_a_plan_is_refused_by_name(store, damage, monkeypatch):
    if damage == "version":
        monkeypatch.setattr("audiopipe.plan.files.VERSION", 1)
    create_plan(config(), store, FakeCatalog(en=table("en", ids(5))))
    monkeypatch.undo()
    path = store.local_folder / "_plan" / "en-000.parquet"
    if damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
    elif damage != "version":
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"garbage")
    for read in (lambda: create_plan(config(), store, FakeCatalog()), lambda: load_plan(store)):
        with pytest.raises(PlanError, match=r"_plan/en-000\.parquet"):
            read()


def test_a_catalog_error_leaves_no_plan_behind(store):
    def fail(_config):
        raise CatalogError("no")

    with pytest.raises(CatalogError):
        create_plan(config(), store, fail)
    assert store.list("") == {}


def test_a_plan_is_loaded_without_a_config(store):
    with pytest.raises(PlanError, match="does not have a plan"):
        load_plan(store)
    created = create_plan(
        config(partition_count=3), store, FakeCatalog(**{"pt-BR": table("pt-BR", ids(5)), "pt": table("pt", ids(6))})
    )
    loaded = load_plan(store)
    assert loaded.partition_count == 3
    assert loaded.languages() == ["pt", "pt-BR"]
    assert list(loaded.shards()) == list(created.shards())


def test_a_later_generation_continues_the_numbering(store):
    first = create_plan(config(shard_videos=2), store, FakeCatalog(en=table("en", ids(5))))
    assert first.totals()["en"].shards == 3
    later = assign_shards(table("en", ids(3, "w")), config(shard_videos=2), first_shard=3)
    assert store.create(plan_path("en", 1), serialize(later, PlanMetadata.of(config(), generation=1)))
    assert [s.index for s in create_plan(config(), store, FakeCatalog()).shards()] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_half_a_million_videos_are_planned_in_little_memory(store):
    count = 500_000 // 4
    tables = {name: table(name, ids(count, name), [5_000_000] * count, [60.0] * count) for name in ("a", "b", "c", "d")}
    started = time.process_time()
    create_plan(config(partition_count=8), store, FakeCatalog(**tables))
    tracemalloc.start()
    loaded = load_plan(store)
    shards = videos = 0
    for shard in loaded.shards():
        shards, videos = shards + 1, videos + len(shard.videos)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (videos, shards) == (500_000, sum(totals.shards for totals in loaded.totals().values()))
    assert sum(part.nbytes for part in loaded.tables.values()) < 60 * 2**20
    assert peak < 30 * 2**20, "shards are made one at a time"
    assert time.process_time() - started < 40
