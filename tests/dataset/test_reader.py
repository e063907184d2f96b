"""A dataset is read by tables, by SQL and by segment, at any address, during and after a run."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from output_factory import config, corpus, make_output

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.run_record import open_run
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import create_plan
from audiopipe.store.objects import Store


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five videos in two languages, of which one is missing; a limit drops some segments."""
    folder = tmp_path_factory.mktemp("reader")
    make_output(config(corpus(folder / "corpus"), folder / "out", max_loudness_lufs=-14.85))
    return str(folder / "out")


@pytest.fixture
def dataset(output: str) -> Dataset:
    return Dataset(output)


def tar_members(output: str) -> dict[str, bytes]:
    members = {}
    for path in sorted(Path(output).glob("*/audio_*.tar")):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return members


def test_iteration_yields_each_sample_of_the_tars_once(dataset: Dataset, output: str) -> None:
    samples = {name: data for name, data in tar_members(output).items() if name.endswith(".flac")}
    segments = list(dataset)
    assert len(dataset) == len(segments) == len(samples) > 0
    assert {f"{segment.key}.flac": segment.read_bytes() for segment in segments} == samples


def test_audio_is_what_soundfile_decodes(dataset: Dataset, output: str) -> None:
    segment = next(iter(dataset))
    samples, rate = sf.read(io.BytesIO(tar_members(output)[f"{segment.key}.flac"]), dtype="float32")
    assert segment.sample_rate == rate == 16_000
    assert segment.audio.dtype == np.float32
    np.testing.assert_array_equal(segment.audio, samples)
    assert segment.duration_s == pytest.approx(len(samples) / rate, abs=1e-3)


def test_a_filter_keeps_what_its_condition_holds_for(dataset: Dataset) -> None:
    rows = dataset.to_pandas()
    limit = rows.loudness_lufs.median()
    quiet = dataset.filter(f"loudness_lufs < {limit}").filter("language = 'en'")
    expected = rows[(rows.loudness_lufs < limit) & (rows.language == "en")]
    assert 0 < len(expected) < len(rows)
    assert list(quiet.to_pandas().key) == list(expected.key)
    assert [segment.key for segment in quiet] == list(expected[expected.kept].key)


def test_a_view_of_some_shards_reads_those_only(dataset: Dataset) -> None:
    shard, *others = dataset.commits
    assert others
    view = dataset.select_shards([shard])
    result = dataset.commits[shard].result
    assert view.segments().num_rows == result.segments
    assert set(view.to_pandas()["language"]) == {result.language}
    assert list(view.results) == [shard]


def test_segments_come_in_the_order_of_shards_and_videos(dataset: Dataset) -> None:
    rows = dataset.to_pandas()
    order = ["language", "shard", "video_id", "segment"]
    assert rows[order].equals(rows[order].sort_values(order, ignore_index=True))
    assert rows.duplicated(["language", "shard", "segment"]).any(), "several videos in a shard"


def test_segments_reads_only_the_columns_asked_for(dataset: Dataset) -> None:
    table = dataset.segments(["key", "snr_db"], where="kept")
    assert table.column_names == ["key", "snr_db"]
    assert table.num_rows == len(dataset)


def test_a_query_joins_segments_and_videos(dataset: Dataset) -> None:
    sql = "SELECT status, count(*) AS n FROM videos LEFT JOIN segments USING (video_id) GROUP BY status ORDER BY status"
    rows = dataset.query(sql).to_pylist()
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert dataset.videos().num_rows == 6


def test_metrics_that_do_not_exist_are_none(dataset: Dataset) -> None:
    assert next(iter(dataset)).metrics["loudness_range_lu"] is None


def test_a_dropped_segment_has_no_audio_and_says_why(dataset: Dataset) -> None:
    key = dataset.segments(where="NOT kept").to_pylist()[0]["key"]
    with pytest.raises(ConfigError, match=f"{key} was dropped \\(too_loud\\)"):
        dataset[key].read_bytes()
    with pytest.raises(KeyError):
        dataset["no'such key"]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY segments TO '{folder}/en/segments_000000.parquet'",
        "COPY segments TO '{folder}/new.parquet'",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '{folder}/dataset.json'",
        "ATTACH '{folder}/x.db'",
        "SET enable_external_access = true",
        "SELECT 1; DROP TABLE segments",
        "SELECT nonsense FROM segments",
        "SELEC 1",
    ],
)
def test_a_query_reaches_no_file_but_the_tables(dataset: Dataset, output: str, sql: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(output).rglob("*") if path.is_file()}
    with pytest.raises(ConfigError):
        dataset.query(sql.format(folder=output))
    assert {path: path.stat().st_mtime_ns for path in Path(output).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("condition", ["nonsense > 3", "snr_db >", "1; DROP TABLE segments", "snr_db = 'loud'"])
def test_a_wrong_condition_is_refused_at_once(dataset: Dataset, condition: str) -> None:
    with pytest.raises(ConfigError):
        dataset.filter(condition).segments()
    with pytest.raises(ConfigError):
        dataset.segments(where=condition)


@pytest.mark.parametrize(
    "read",
    [len, list, Dataset.sample, Dataset.segments, Dataset.iterate],
    ids=["len", "list", "sample", "table", "stream"],
)
def test_a_condition_that_cannot_be_computed_is_an_error_of_its_text(
    dataset: Dataset, read: Callable[..., object]
) -> None:
    numbers = dataset.filter("text::INTEGER > 3")
    with pytest.raises(ConfigError, match="Could not convert string"):
        read(numbers, 3) if read is Dataset.sample else read(numbers)


def test_segments_are_read_without_the_tables_of_videos(output: str, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    for path in (tmp_path / "out").glob("*/videos_*.parquet"):
        path.unlink()
    dataset = Dataset(str(tmp_path / "out"))
    assert len(dataset) == len(list(dataset)) == len(dataset.filter("kept")) == len(dataset.sample(1000)) > 0
    assert dataset.segments(["key"]).num_rows > len(dataset)


def test_a_missing_or_damaged_table_is_named(output: str, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    (table, *_) = sorted((tmp_path / "out").glob("*/segments_*.parquet"))
    table.write_bytes(b"PAR1" + table.read_bytes()[4:100])
    with pytest.raises(VerifyError, match=f"cannot be read: .*{table.name}"):
        Dataset(str(tmp_path / "out")).segments()
    table.unlink()
    with pytest.raises(VerifyError, match=f"lacks .*{table.name}, which its commits have"):
        Dataset(str(tmp_path / "out")).segments()


def test_a_dataset_can_be_read_while_it_is_made(tmp_path: Path) -> None:
    settings = config(corpus(tmp_path / "corpus"), tmp_path / "out")
    store = Store(settings.output)
    run_id = open_run(store, settings)
    first, *_ = create_plan(settings, store).shards()
    dataset = Dataset(settings.output)
    assert len(dataset) == dataset.segments().num_rows == dataset.videos().num_rows == 0
    process_shard(first, settings, run_id)
    assert len(dataset) == 0
    assert len(dataset.refresh()) == len(list(dataset.refresh())) > 0


def test_any_address_that_fsspec_knows_can_be_read(output: str) -> None:
    memory = fsspec.filesystem("memory")
    for path in Path(output).rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/reader/{path.relative_to(output)}", path.read_bytes())
    remote, local = Dataset("memory://reader"), Dataset(output)
    pd.testing.assert_frame_equal(remote.to_pandas(), local.to_pandas())
    assert [segment.read_bytes() for segment in remote] == [segment.read_bytes() for segment in local]


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="is not the output of a run"):
        Dataset(str(tmp_path))
