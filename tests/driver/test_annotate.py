"""Scorers that run over a committed dataset give what a run with them gives, shard by shard, and can be resumed."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import probe_scorers
import pyarrow as pa
import pyarrow.compute
import pytest
from distributed import Client
from factories import tar_file
from output_factory import RUN_ID, config, corpus, make_output

from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.run_record import read_config
from audiopipe.dataset.verify import verify
from audiopipe.driver import annotate as annotate_module
from audiopipe.driver.annotate import AnnotationSummary, annotate, remove
from audiopipe.errors import ConfigError
from audiopipe.ledger import open_ledger
from audiopipe.pipeline import scorers as pipeline_scorers
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import load_plan
from audiopipe.scorers import registry
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table

SLOW_FORMATS = [pytest.param("wav", 1e-6, marks=pytest.mark.slow), pytest.param("mp3", 0.02, marks=pytest.mark.slow)]

pytestmark = pytest.mark.usefixtures("fast_ticks")


@pytest.fixture(autouse=True, scope="module")
def probes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "BUILT_IN", registry.BUILT_IN | probe_scorers.ALL)
        patch.setattr(pipeline_scorers, "_LOADED", {})
        yield


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "c", videos=6)


@pytest.fixture(scope="module")
def output(catalog: Path, probes: None) -> Store:
    """Return an output in which one segment of a video is dropped."""
    return make_output(config(catalog, catalog.parent.parent / "plain", keep_if="duration_s > 0"))


@pytest.fixture
def store(output: Store) -> Iterator[Store]:
    yield output
    for annotation in list_annotations(output):
        remove(output.url, annotation.record.id)


def tables(store: Store, name: str) -> pa.Table:
    """Read all tables of an annotation."""
    (annotation,) = [item for item in list_annotations(store) if item.record.name == name]
    return pa.concat_tables([read_table(store.read(table)) for table in annotation.tables(sorted(annotation.shards))])


def add(store: Store, client: Client, scorers: str = "probe", **options: object) -> AnnotationSummary:
    return annotate(store.url, scorers=scorers, client=client, device="cpu", **options)  # type: ignore[arg-type]


def assert_equal(values: pa.ChunkedArray, expected: pa.ChunkedArray) -> None:
    assert values.type == expected.type
    assert values.is_valid().equals(expected.is_valid())
    if pa.types.is_list(values.type):
        values, expected = pa.compute.list_flatten(values), pa.compute.list_flatten(expected)
    approximate = pytest.approx if pa.types.is_floating(values.type) else list
    assert values.drop_null().to_pylist() == approximate(expected.drop_null().to_pylist())


def test_values_are_those_of_a_run_with_the_scorers(
    store: Store, catalog: Path, client: Client, tmp_path: Path
) -> None:
    run = make_output(config(catalog, tmp_path / "run", scorers="signal,probe,transcript"))
    summary = add(store, client, "probe,transcript")
    assert (summary.exit_code, summary.annotated, summary.new, summary.shards) == (0, 4, 4, 4)
    expected = Dataset(run.url).segments()
    for scorer in ("probe", "transcript"):
        table = tables(store, scorer)
        assert table.num_rows == expected.num_rows > 0
        for name in table.column_names:
            if name != "probe_speaker_label":
                assert_equal(table[name], expected[name])
    labels = tables(store, "probe")["probe_speaker_label"].to_pylist()
    assert labels == expected["speaker"].to_pylist()
    assert "s1" in labels
    assert verify(store.url).findings == ()


@pytest.mark.slow
def test_dnsmos_is_that_of_a_run(catalog: Path, client: Client, tmp_path: Path) -> None:
    run = make_output(config(catalog, tmp_path / "run", scorers="signal,dnsmos", language="de"))
    store = make_output(config(catalog, tmp_path / "plain", language="de"))
    assert add(store, client, "dnsmos").exit_code == 0
    expected = Dataset(run.url).segments()
    for name in ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"):
        assert tables(store, "dnsmos")[name].to_pylist() == pytest.approx(expected[name].to_pylist(), abs=1e-4)


def test_a_dropped_segment_has_null(catalog: Path, client: Client, tmp_path: Path) -> None:
    store = make_output(config(catalog, tmp_path / "out", keep_if="text = 'one'"))
    add(store, client)
    kept = Dataset(store.url).segments()["kept"].to_pylist()
    assert set(kept) == {True, False}
    table = tables(store, "probe")
    assert [value is not None for value in table["probe_rms"].to_pylist()] == kept
    assert {rank for rank in table["probe_rank"].to_pylist() if rank is not None} == {0}


def test_a_dropped_segment_with_audio_is_scored(catalog: Path, client: Client, tmp_path: Path) -> None:
    options = {"keep_if": "text = 'one'", "keep_dropped": True, "language": "de"}
    store = make_output(config(catalog, tmp_path / "out", **options))
    run = make_output(config(catalog, tmp_path / "run", scorers="signal,probe", **options))
    add(store, client)
    expected = Dataset(run.url).segments()
    assert set(expected["kept"].to_pylist()) == {True, False}
    for name in ("probe_rms", "probe_rank"):
        assert_equal(tables(store, "probe")[name], expected[name])
        assert expected[name].null_count == 0


@pytest.mark.parametrize(("audio_format", "tolerance"), [("opus", 0.02), *SLOW_FORMATS])
def test_each_format_is_decoded(
    catalog: Path, client: Client, tmp_path: Path, audio_format: str, tolerance: float
) -> None:
    settings = config(catalog, tmp_path / "out", audio_format=audio_format, language="de", scorers="signal,probe")
    run = make_output(settings)
    store = make_output(config(catalog, tmp_path / "plain", audio_format=audio_format, language="de"))
    add(store, client)
    expected, table = Dataset(run.url).segments(), tables(store, "probe")
    assert table["probe_rms"].to_pylist() == pytest.approx(expected["probe_rms"].to_pylist(), rel=tolerance)
    assert table["probe_samples"].to_pylist() == expected["probe_samples"].to_pylist()


def test_an_interrupted_annotation_is_resumed_to_the_same_bytes(store: Store, client: Client) -> None:
    add(store, client)
    (annotation,) = list_annotations(store)
    record = annotation.record
    first = {name: store.read(name) for name in annotation.tables(annotation.shards)}
    names = sorted(annotation.shards)
    store.remove_all([record.commit_name(names[0]), record.table_name(names[0]), record.table_name(names[1])])
    assert add(store, client).new == 2
    assert {name: store.read(name) for name in first} == first
    assert add(store, client).new == 0
    assert add(store, client, shards=[names[2]]).new == 1
    assert {name: store.read(name) for name in first} == first
    with open_ledger(None, store.url, create=False) as ledger:
        row = ledger.run(f"{RUN_ID}-annotate-probe-1")
        assert row is not None
        assert (row.status, row.total_videos) == ("done", 7)


def test_a_damaged_tar_fails_its_shard_alone(catalog: Path, client: Client, tmp_path: Path) -> None:
    store = make_output(config(catalog, tmp_path / "out"))
    name = "de/audio_000000.tar"
    data = bytearray(store.read(name))
    middle = len(data) // 2
    data[middle] ^= 0xFF
    store.write(name, bytes(data))
    summary = add(store, client, retries=0)
    assert summary.failed.keys() == {"de-000000"}
    assert name in summary.failed["de-000000"]
    assert f"audiopipe resume {store.url} --shard de-000000" in summary.failed["de-000000"]
    assert (summary.annotated, summary.shards, summary.stopped) == (3, 4, None)
    assert summary.exit_code in (2, 4)
    data[middle] ^= 0xFF
    store.write(name, bytes(data))
    assert add(store, client).exit_code == 0
    store.remove_all([name])
    missing = add(store, client, retries=0, shards=["de-000000", "en-000000"])
    assert missing.uncommitted == 1  # its objects are not all there
    assert (missing.annotated, missing.exit_code) == (3, 4)


def test_a_shard_with_other_segments_is_annotated_again(catalog: Path, client: Client, tmp_path: Path) -> None:
    shutil.copytree(catalog.parent, tmp_path / "c")
    store = make_output(config(tmp_path / "c/catalog.parquet", tmp_path / "out", language="de"))
    add(store, client)
    values = tables(store, "probe")["probe_samples"].to_pylist()
    video = tmp_path / "c/videos/video01.tar"
    with tarfile.open(video) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    tar_file(video, members | {"video01.json": members["video01.json"].replace(b"0.9", b"0.8")})
    store.remove_all(["_commits/de-000000.json"])
    process_shard(next(load_plan(store).shards()), read_config(store, device="cpu"), RUN_ID)
    assert [finding.problem for finding in verify(store.url, fast=True).findings if "annotations" in finding.name] == [
        "was made before its shard was rebuilt with other content"
    ]
    assert add(store, client).new == 1
    assert tables(store, "probe")["probe_samples"].to_pylist() != values
    assert not [finding for finding in verify(store.url).findings if "annotations" in finding.name]


def test_a_scorer_that_raises_stops_by_its_name(store: Store, client: Client) -> None:
    summary = add(store, client, "probe,raising")
    assert summary.exit_code == 2
    assert "scorer 'raising' failed with ValueError: no such thing" in str(summary.stopped)
    assert summary.new == 0


def test_another_version_on_a_worker_is_refused(store: Store, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    create = annotate_module._create_job

    def create_old(*arguments: object) -> object:
        job = create(*arguments)  # type: ignore[arg-type]
        return replace(job, records=tuple(replace(record, version="0") for record in job.records))

    monkeypatch.setattr(annotate_module, "_create_job", create_old)
    summary = add(store, client, "simple")
    assert (summary.exit_code, summary.annotated) == (2, 0)
    assert "has version 1 of scorer 'simple', and the output is of version 0" in str(summary.stopped)


def test_the_file_of_a_network_is_recorded_without_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[str] = []

    def create(names: str, **options: bool) -> tuple[object, ...]:
        given.append(names)
        return (probe_scorers.Simple(),)

    monkeypatch.setattr(annotate_module, "create_scorers", create)
    monkeypatch.chdir(tmp_path)
    job = annotate_module._create_job("networks/simple.yaml", False, False)
    assert given == [str(tmp_path / "networks/simple.yaml")]
    assert job.entries == (str(tmp_path / "networks/simple.yaml"),)
    assert job.records[0].source == {"scorer": "simple.yaml"}


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ("signal", "'signal': its columns are those of every run"),
        ("probe,probe", "twice"),
        ("nothing", "unknown scorer 'nothing'"),
        ("", "must be names"),
    ],
)
def test_wrong_scorers_are_refused_before_anything_is_created(
    store: Store, client: Client, scorers: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        add(store, client, scorers)
    with pytest.raises(ConfigError, match="either scorers or a file"):
        annotate(store.url, scorers=scorers, file="labels.csv")
    assert not list_annotations(store)


def test_columns_of_the_run_are_refused(catalog: Path, client: Client, tmp_path: Path) -> None:
    store = make_output(config(catalog, tmp_path / "out", language="de", scorers="signal,simple"))
    with pytest.raises(ConfigError, match="'simple' is already one of the segments"):
        add(store, client, "probe,simple")
    assert not list_annotations(store)
