"""A selection has the bytes of its parent's samples, chosen, split, ordered and cut as its options say."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_factory import content
from selection_factory import flac, frame, make_samples, read_tar, read_tars, select

from audiopipe.dataset.duplicates import SCHEMA
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.pipeline.sample_reader import Extent, coalesce
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store


def read_manifests(url: str, pattern: str = "*/manifest_*.json") -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(Path(url).glob(pattern))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


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


def test_a_folder_may_be_named_as_tars_of_dropped_segments(tmp_path: Path) -> None:
    source = make_samples(str(tmp_path / "dropped_before" / "out"), ("en",), 1)
    url = select(source.url, tmp_path, "first", where="snr_db > 20", virtual=True)
    assert verify(url).findings == ()
    second = select(url, tmp_path, "second", where="snr_db > 30", virtual=True)
    assert len(read_manifests(second)) == len(frame(second)) > 0
    assert verify(second).findings == ()
