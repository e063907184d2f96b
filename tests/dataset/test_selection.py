"""A selection has the bytes of its parent's samples, chosen, split, ordered and cut as its options say."""

import hashlib
import json
import shutil
import tarfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_factory import content
from selection_factory import flac, make_samples, plan_selection, select_here

from audiopipe.dataset.duplicates import SCHEMA
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.hugging_face import tar_patterns
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.schema import segments_schema
from audiopipe.dataset.selection import SelectionOptions
from audiopipe.dataset.split_groups import group_videos
from audiopipe.dataset.verify import verify
from audiopipe.driver.annotate import annotate
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.pipeline.sample_reader import Extent, coalesce
from audiopipe.plan.plan import load_plan
from audiopipe.scorers.scorer import Column
from audiopipe.store.objects import Store

Samples = dict[str, tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("parent") / "out"
    make_samples(str(folder))
    return str(folder)


def read_tar(path: Path) -> Samples:
    """Return audio and sidecar of each sample, in the order of the tar."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    pairs = zip(members[::2], members[1::2], strict=True)
    return {name.removesuffix(".flac"): (audio, sidecar) for (name, audio), (_, sidecar) in pairs}


def read_tars(url: str) -> Samples:
    return {key: sample for path in sorted(Path(url).glob("*/audio_*.tar")) for key, sample in read_tar(path).items()}


def read_manifests(url: str, pattern: str = "*/manifest_*.json") -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(Path(url).glob(pattern))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def frame(url: str) -> pd.DataFrame:
    return pd.concat(pd.read_parquet(path) for path in sorted(Path(url).glob("*/segments_*.parquet")))


def select(parent: str, folder: Path, name: str = "selection", **options: Any) -> str:
    store = select_here(parent, str(folder / name), folder / f"scratch-{name}", **options)
    return store.url


def test_a_selection_equals_one_made_with_pandas_and_tarfile(parent: str, tmp_path: Path) -> None:
    url = select(parent, tmp_path, where="snr_db > 30 AND text IS NOT NULL OR duration_s > 0.24 AND kept")
    rows = frame(parent)
    rows = rows[rows.kept & ((rows.snr_db > 30) & rows.text.notna() | (rows.duration_s > 0.24))]
    samples = read_tars(parent)
    assert read_tars(url) == {key: samples[key] for key in rows.key}
    chosen = frame(url).set_index("key")
    assert list(chosen.index) == list(rows.sort_values(["language", "shard", "tar_offset"]).key)
    same = ["video_id", "start_s", "duration_s", "text", "snr_db", "audio_bytes", "source_uri", "config_digest"]
    pd.testing.assert_frame_equal(chosen[same], rows.set_index("key").loc[chosen.index, same], check_dtype=False)
    assert verify(url).findings == ()
    assert not collect_garbage(url, min_age_h=0).objects
    dataset = Dataset(url)
    assert {segment.key: segment.read_bytes() for segment in dataset} == {key: samples[key][0] for key in rows.key}
    for row in chosen.itertuples():
        tar = (Path(parent) / str(row.parent_tar)).read_bytes()
        audio = tar[row.parent_offset : row.parent_offset + row.audio_bytes]
        assert audio == samples[str(row.Index)][0]
    manifest = read_manifests(url)
    assert [line["audio_filepath"] for line in manifest] == [f"{key}.flac" for key in read_tars(url)]


def test_the_same_options_give_the_same_bytes(parent: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"where": "snr_db > 10", "shuffle": 7, "split": "train=0.7,test=0.3", "shard_mb": 1}
    first, second = (content(select(parent, tmp_path, name, **options)) for name in ("first", "second"))
    assert first == second
    other = content(select(parent, tmp_path, "other", **{**options, "shuffle": 8}))
    assert other["en/audio_000000.tar"] != first["en/audio_000000.tar"]


def test_a_video_in_several_shards_counts_once(tmp_path: Path) -> None:
    source = make_samples(str(tmp_path / "many"), ("en",), 2, 6, 6, [flac(3.0, seed) for seed in range(3)], None)
    dataset = Dataset(select(source.url, tmp_path, shuffle=1, shard_mb=1))
    assert len(dataset.commits) > 4
    videos = dataset.videos().to_pandas().set_index("video_id")
    counts = frame(dataset.url).groupby("video_id").size()
    assert dict(videos.segments_kept) == dict(counts)
    assert sum(commit.result.videos for commit in dataset.commits.values()) == len(counts) == 12
    assert load_plan(dataset.store).totals()["en"].videos == 12


def test_a_remote_parent_is_read_by_few_requests(parent: str, tmp_path: Path) -> None:
    memory = f"memory://select-{tmp_path.name}"
    remote, local = Store(memory), Store(parent)
    for name in local.list():
        remote.write(name, local.read(name))
    for number, where in enumerate(("kept", "snr_db > 90")):
        url = select(memory, tmp_path, f"remote{number}", where=where)
        assert read_tars(url) == read_tars(select(parent, tmp_path, f"local{number}", where=where))
        requests = sum(commit.result.stage_items["copy"] for commit in Dataset(url).commits.values())
        assert requests == len(set(frame(url).parent_tar))
    tar = "en/audio_000001.tar"
    remote.write(tar, remote.read(tar)[:-600])
    with pytest.raises(VerifyError, match=r"en/audio_000001\.tar of the parent ends before byte"):
        select(memory, tmp_path, "damaged")


def test_near_ranges_share_a_request() -> None:
    extents = [Extent("a", start, 100, True) for start in (0, 100, 900_000, 3_000_000)] + [Extent("b", 0, 100, True)]
    assert [(item.tar, item.start, item.size) for item in coalesce(extents)] == [
        ("a", 0, 900_100),
        ("a", 3_000_000, 100),
        ("b", 0, 100),
    ]
    large = [Extent("a", number * 10_000_000, 10_000_000, True) for number in range(5)]
    assert [item.size for item in coalesce(large)] == [30_000_000, 20_000_000]


def test_tars_have_about_the_same_size(tmp_path: Path) -> None:
    source = make_samples(str(tmp_path / "many"), ("en",), 3, 6, 6, [flac(3.0, seed) for seed in range(3)], None)
    url = select(source.url, tmp_path, shard_mb=1)
    sizes = [path.stat().st_size for path in sorted(Path(url).glob("en/audio_*.tar"))]
    assert len(sizes) == 8
    assert max(sizes) - min(sizes) <= 2 * 90_000
    assert max(sizes) < 1_100_000


def test_the_provenance_counts_what_was_left_out_and_why(parent: str, tmp_path: Path) -> None:
    url = select(
        parent, tmp_path, where="snr_db > 30 AND text IS NOT NULL", languages="en", hours=0.001, rank_by="snr_db"
    )
    body = json.loads((Path(url) / "dataset.json").read_text())
    rows = frame(parent)
    assert body["parent"]["run_id"] == "made-up"
    assert body["parent"]["options"]["where"] == '(snr_db > 30) AND ("text" IS NOT NULL)'
    english = rows[rows.language == "en"]
    assert body["selection"]["before"]["en"]["kept"]["segments"] == english.kept.sum()
    assert body["selection"]["before"]["en"]["noisy"]["segments"] == (english.drop_reason == "noisy").sum()
    left_out = {name: item["segments"] for name, item in body["selection"]["left_out"]["en"].items()}
    assert left_out["snr_db > 30"] == (english.snr_db <= 30).sum()
    assert left_out['"text" IS NOT NULL'] == ((english.snr_db > 30) & english.text.isna()).sum()
    chosen = body["selection"]["after"]["en"]["all"]["segments"]
    assert sum(left_out.values()) + chosen == len(english)
    assert left_out["beyond hours"] > 0
    assert body["selection"]["left_out"]["de"] == {
        "language": {"segments": 40, "hours": pytest.approx(0.0024, abs=1e-4)}
    }


def test_the_best_hours_are_taken_and_ties_go_by_key(parent: str, tmp_path: Path) -> None:
    rows = frame(parent)
    rows = rows[rows.kept]
    for rank_by, ascending in (("snr_db", False), ("duration_s asc", True)):
        column = rank_by.split()[0]
        ranked = rows.sort_values([column, "language", "key", "shard"], ascending=[ascending, True, True, True])
        best = ranked[(ranked.duration_s * 1e6).round().cumsum() <= 3.6e6]
        url = select(parent, tmp_path, column, hours=0.001, rank_by=rank_by)
        assert set(frame(url).key) == set(best.key)


def test_no_video_is_in_two_splits(parent: str, tmp_path: Path) -> None:
    splits = {"train": 0.5, "validation": 0.25, "test": 0.25}
    url = select(parent, tmp_path, split=splits)
    rows = frame(url)
    assert (rows.groupby("video_id").split.nunique() == 1).all()
    for video_id, split in rows.groupby("video_id").split.first().items():
        share = int(hashlib.md5(str(video_id).encode()).hexdigest()[:13], 16) / 16**13
        assert split == ("train" if share < 0.5 else "validation" if share < 0.75 else "test")
    listed = {split: (Path(url) / f"tars_{split}.txt").read_text().split() for split in splits}
    assert sorted(tar for tars in listed.values() for tar in tars) == (Path(url) / "tars.txt").read_text().split()
    for split, tars in listed.items():
        keys = {key for tar in tars for key in read_tar(Path(url) / tar)}
        assert keys == set(rows[rows.split == split].key)
    assert verify(url).findings == ()


def test_no_speaker_is_in_two_splits(parent: str, tmp_path: Path) -> None:
    rows = frame(select(parent, tmp_path, split="train=0.5,test=0.5", split_by="speaker"))
    assert (rows.groupby("speaker").split.nunique() == 1).all()
    assert (rows.groupby("video_id").split.nunique() == 1).all()
    pairs = [("b", "x"), ("a", "x"), ("c", "y"), ("b", "y"), ("d", None), ("e", None)]
    assert group_videos(pairs) == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}


def test_splits_that_cannot_have_their_shares_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_samples(str(tmp_path / "out"), ("en",), 1, 3)
    select(source.url, tmp_path, "few", split="train=0.999999,test=0.000001")
    assert "no video is in split test" in caplog.text
    caplog.clear()
    table = Path(source.url) / "en" / "segments_000000.parquet"
    rows = pq.read_table(table)
    labels = pa.array(["S1"] * rows.num_rows)
    pq.write_table(rows.set_column(rows.column_names.index("speaker"), "speaker", labels), table)
    selection = select(source.url, tmp_path, "labels", split="train=0.5,test=0.5", split_by="speaker")
    assert frame(selection).split.nunique() == 1
    assert "3 of 3 videos are connected by speakers" in caplog.text
    select(source.url, tmp_path, "videos", split="train=0.5,test=0.5")
    assert caplog.text.count("connected by speakers") == 1
    missing = pa.nulls(rows.num_rows, pa.string())
    pq.write_table(rows.set_column(rows.column_names.index("speaker"), "speaker", missing), table)
    caplog.clear()
    first, second = (
        frame(select(source.url, tmp_path, by, split="train=0.5,test=0.5", split_by=by)) for by in ("speaker", "video")
    )
    assert dict(zip(first.key, first.split, strict=True)) == dict(zip(second.key, second.split, strict=True))
    assert "connected by speakers" not in caplog.text


def test_unique_leaves_out_known_duplicates(parent: str, tmp_path: Path) -> None:
    copy = make_samples(str(tmp_path / "copy"), ("en",))
    fields = {"language": "en", "shard": 0, "duplicate_of": "en.0000.0", "similarity": 1.0, "duration_s": 1.0}
    rows = [{"video_id": f"en.0000.{number}", "left_out": number == 2, **fields} for number in (2, 3)]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "copy" / "duplicates.parquet")
    videos = set(frame(select(copy.url, tmp_path, unique=True)).video_id)
    assert videos == set(frame(copy.url).video_id) - {"en.0000.2"}
    (tmp_path / "copy" / "duplicates.parquet").unlink()
    with pytest.raises(ConfigError, match=r"has no duplicates\.parquet"):
        select(copy.url, tmp_path, "other", unique=True)


def test_a_selection_can_be_selected_from(parent: str, tmp_path: Path) -> None:
    first = select(parent, tmp_path, "first", where="snr_db > 20", split="train=0.5,test=0.5", shuffle=1)
    second = select(first, tmp_path, "second", where="snr_db > 50 AND split = 'train'")
    rows = frame(first)
    assert set(frame(second).key) == set(rows[(rows.snr_db > 50) & (rows.split == "train")].key)
    samples = read_tars(parent)
    assert all(sample == samples[key] for key, sample in read_tars(second).items())
    assert verify(second).findings == ()


def test_a_virtual_selection_reads_from_its_parent(parent: str, tmp_path: Path) -> None:
    url = select(parent, tmp_path, "virtual", where="snr_db > 40", virtual=True)
    samples = read_tars(parent)
    rows = frame(parent)
    keys = set(rows[rows.snr_db > 40].key)
    dataset = Dataset(url)
    assert {segment.key: segment.read_bytes() for segment in dataset} == {key: samples[key][0] for key in keys}
    streamed = {segment.key: segment.read_bytes() for segment in dataset.iterate(shuffle=True, columns=["text"])}
    assert streamed.keys() == keys
    assert not list(Path(url).rglob("*.tar"))
    for language, number in (("en", 0), ("en", 1), ("de", 0), ("de", 1)):
        lines = read_manifests(url, f"{language}/manifest_{number:06d}.json")
        tar = read_tar(Path(parent) / language / f"audio_{number:06d}.tar")
        assert [line["audio_filepath"] for line in lines] == [f"{key}.flac" for key in tar if key in keys]
    assert verify(url).findings == ()
    whole = select(url, tmp_path, "whole", where="snr_db > 60")
    assert read_tars(whole) == {key: samples[key] for key in rows[rows.snr_db > 60].key}


@pytest.mark.parametrize("remote", [False, True])
def test_sidecars_may_be_larger_than_is_read_at_first(
    parent: str, tmp_path: Path, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://sidecars-{tmp_path.name}" if remote else parent
    for name in Store(parent).list() if remote else ():
        Store(url).write(name, Store(parent).read(name))
    virtual = select(url, tmp_path, "virtual", where="snr_db > 60", virtual=True)
    monkeypatch.setattr("audiopipe.pipeline.sample_reader.SIDECAR_BYTES", 40)
    samples = read_tars(parent)
    for name, source in (("first", url), ("second", virtual)):
        copy = select(source, tmp_path, name, where="snr_db > 60")
        assert read_tars(copy) == {key: samples[key] for key in frame(copy).key}
        assert verify(copy).findings == ()


def test_a_tar_that_was_touched_is_hashed_once(parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = shutil.copytree(parent, tmp_path / "touched", copy_function=shutil.copyfile)
    hashed: list[str] = []
    file_digest = hashlib.file_digest

    def record(file: Any, *arguments: Any) -> Any:
        hashed.append(Path(file.name).name)
        return file_digest(file, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", record)
    url = select(str(touched), tmp_path, shuffle=1, split="a=0.25,b=0.25,c=0.25,d=0.25", languages="en")
    assert len(list(Path(url).glob("en/audio_*.tar"))) > 2
    assert sorted(name for name in hashed if name.endswith(".tar")) == ["audio_000000.tar", "audio_000001.tar"]


def test_damage_in_a_selection_is_reported(parent: str, tmp_path: Path) -> None:
    url = select(parent, tmp_path)
    listed = next(Path(url).glob("_selection/*.videos.parquet"))
    listed.write_bytes(listed.read_bytes()[:-100])
    with pytest.raises(VerifyError, match=r"videos\.parquet of .* is damaged"):
        verify(url)


def test_annotations_become_columns_of_a_selection(tmp_path: Path) -> None:
    source = make_samples(str(tmp_path / "out"), ("en",))
    rows = frame(source.url)
    labels = pd.DataFrame({"key": rows.key, "stars": range(len(rows))})
    labels.to_parquet(tmp_path / "labels.parquet")
    annotate(source.url, file=str(tmp_path / "labels.parquet"), scratch=str(tmp_path / "scratch"))
    url = select(source.url, tmp_path, where="stars > 20 AND kept")
    expected = labels.set_index("key").stars[lambda stars: stars > 20]
    chosen = Dataset(url).to_pandas().set_index("key")
    assert dict(chosen.stars) == {key: stars for key, stars in expected.items() if key in read_tars(source.url)}
    assert next(iter(Dataset(url))).metrics["stars"] > 20
    assert verify(url).findings == ()


def test_columns_with_the_names_of_internal_ones_are_taken(tmp_path: Path) -> None:
    source = make_samples(str(tmp_path / "out"), ("en",))
    rows = frame(source.url)
    names = ("tar", "rank", "reason", "label", "number", "position", "bytes", "new_shard", "sample_bytes", "is_new")
    labels = pd.DataFrame({"key": rows.key, **{name: range(len(rows)) for name in names}, "is_new": True})
    lists = {"flag": [True, None] * (len(rows) // 2), "levels": [[1.5, 2.0], None] * (len(rows) // 2)}
    labels.assign(**lists).to_parquet(tmp_path / "labels.parquet")
    annotate(source.url, file=str(tmp_path / "labels.parquet"), scratch=str(tmp_path / "scratch"))
    url = select(source.url, tmp_path, where="tar > 20 AND kept", hours=0.001, rank_by="rank asc")
    chosen = Dataset(url).to_pandas().set_index("key")
    expected = labels.assign(**lists).set_index("key").loc[chosen.index]
    assert chosen.tar.min() > 20
    for name in names:
        assert list(chosen[name]) == list(expected[name])
    assert list(chosen.flag) == list(expected.flag)
    assert [None if row is None else list(row) for row in chosen.levels] == list(expected.levels)
    assert verify(url).findings == ()
    before = json.loads((Path(url) / "dataset.json").read_text())["selection"]["before"]["en"]
    assert set(before) == {"kept", "noisy"}
    # The end of a sample is known although a column is named as its tar.
    stored = pq.read_table(next(Path(url).glob("_selection/*.segments.parquet")))
    assert stored["sample bytes"].null_count <= 2


@pytest.mark.parametrize("name", ["split", "parent_tar", "tar_url"])
def test_columns_that_a_selection_adds_are_refused_before(tmp_path: Path, name: str) -> None:
    source = make_samples(str(tmp_path / "out"), ("en",), 1, 1)
    pd.DataFrame({"key": frame(source.url).key, name: "x"}).to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(ConfigError, match=f"column '{name}' is one that `audiopipe select` adds"):
        annotate(source.url, file=str(tmp_path / "labels.parquet"), scratch=str(tmp_path / "scratch"))
    with pytest.raises(ConfigError, match=f"a scorer has the column '{name}'"):
        segments_schema([Column(name, "string", "", "a column")])


def test_a_folder_may_be_named_as_tars_of_dropped_segments(tmp_path: Path) -> None:
    source = make_samples(str(tmp_path / "dropped_before" / "out"), ("en",), 1)
    url = select(source.url, tmp_path, "first", where="snr_db > 20", virtual=True)
    assert verify(url).findings == ()
    second = select(url, tmp_path, "second", where="snr_db > 30", virtual=True)
    assert len(read_manifests(second)) == len(frame(second)) > 0
    assert verify(second).findings == ()


def test_patterns_match_a_range_of_tars_and_no_other() -> None:
    for first, end in ((0, 1), (0, 10), (3, 1204), (999_990, 1_000_012), (99, 101), (7, 7)):
        patterns = tar_patterns("en", first, end)
        names = [f"en/audio_{index:06d}.tar" for index in (*range(1500), *range(999_980, 1_000_030), 10_000_000)]
        matching = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
        assert matching == [f"en/audio_{index:06d}.tar" for index in range(first, end)]
        assert len(patterns) < 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train=0.9,test=0.2"}, "add up to 1"),
        ({"split": "train"}, "not a name and a share"),
        ({"split": "a-b=1"}, "letters, digits and '_'"),
        ({"split": "a=0.5,a=0.5"}, "each with another name"),
        ({"split": "a=1.5,b=-0.5"}, "above 0"),
        ({"split_by": "channel"}, "'video' or 'speaker'"),
        ({"hours": 1.0}, "belong together"),
        ({"rank_by": "snr_db"}, "belong together"),
        ({"hours": float("nan"), "rank_by": "snr_db"}, "above 0"),
        ({"hours": 1.0, "rank_by": "snr_db up"}, "'asc' or 'desc'"),
        ({"virtual": True, "shuffle": 1}, "leave out shuffle or virtual"),
        ({"shard_mb": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectionOptions.parse(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "snr > 1"}, "unknown column 'snr': did you mean"),
        ({"where": "text IN (SELECT content FROM read_text('/etc/passwd'))"}, "a subquery is not allowed"),
        ({"where": "read_csv('/etc/passwd') IS NULL"}, "not allowed"),
        ({"where": "true; COPY segments TO '/tmp/x'"}, "another statement"),
        ({"where": "CAST(text AS INTEGER) > 1"}, "cannot be computed for all segments"),
        ({"hours": 1.0, "rank_by": "snr"}, "rank_by: unknown column 'snr': did you mean"),
        ({"languages": "en,fr"}, "no language 'fr': known are de, en"),
    ],
)
def test_options_that_do_not_fit_the_parent_are_refused(
    parent: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_selection(parent, str(tmp_path / "dest"), tmp_path / "scratch", **options)
    assert not (tmp_path / "dest" / "_run.json").exists()
