"""A selection has the splits and the columns that its options say; options that make no sense are refused."""

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection_factory import frame, make_samples, plan_selection, read_tar, read_tars, select

from audiopipe.dataset.hugging_face import tar_patterns
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.schema import segments_schema
from audiopipe.dataset.selection import SelectionOptions
from audiopipe.dataset.split_groups import group_videos
from audiopipe.dataset.verify import verify
from audiopipe.driver.annotate import annotate
from audiopipe.errors import ConfigError
from audiopipe.scorers.scorer import Column


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
