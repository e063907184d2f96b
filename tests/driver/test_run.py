import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from distributed import Client
from factories import inject_decoder_code, wav_video
from output_factory import RUN_ID, config, content, corpus, make_output

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.verify import verify
from audiopipe.driver import run
from audiopipe.errors import ConfigError, PermanentStoreError, PlanError, StoreError
from audiopipe.ledger import open_ledger
from audiopipe.pipeline.shard import process_shard
from audiopipe.report.progress import read_run_report
from audiopipe.report.quality import read_tables
from audiopipe.store.objects import Store
from audiopipe.types import Shard, ShardResult

pytestmark = pytest.mark.usefixtures("fast_ticks")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "c")


@pytest.fixture(scope="module")
def reference_output(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of an undisturbed run of the catalog."""
    out = tmp_path_factory.mktemp("reference") / "out"
    make_output(config(catalog, out))
    return out


ATTEMPTS: Counter[str] = Counter()  # of the tasks below, which run on in-process workers


def fail_first_shard(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    ATTEMPTS[shard.name] += 1
    if shard.name == "en-000000":
        raise StoreError("the store does not answer")
    return process_shard(shard, config, run_id, worker)


def refuse_shard(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    ATTEMPTS[shard.name] += 1
    raise PermanentStoreError("reading s3://videos: not permitted (AccessDenied) to these keys")


def snapshot(folder: Path) -> dict[str, tuple[float, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_dead_letter_is_in_table_commit_and_ledger_and_exit_is_3(
    catalog: Path, reference_output: Path, client: Client, tmp_path: Path
) -> None:
    summary = run.run(config(catalog, tmp_path / "out"), client=client)
    assert (summary.exit_code, summary.run_id, summary.total.videos, summary.total.videos_failed) == (3, RUN_ID, 6, 1)
    assert content(tmp_path / "out") == content(reference_output)
    tables = [pq.read_table(path) for path in (tmp_path / "out").glob("*/videos_*.parquet")]
    (failed,) = pa.concat_tables(tables).filter(pc.field("status") == "failed").to_pylist()
    assert (failed["video_id"], failed["error_stage"], failed["error_type"]) == ("nowhere", "fetch", "MissingSource")
    assert "nowhere.tar" in failed["error_message"]
    assert (failed["retriable"], failed["attempts"]) == (True, 1)
    with open_ledger(None, str(tmp_path / "out"), create=False) as ledger:
        (error,) = ledger.errors(RUN_ID)
        assert (error.video_id, error.stage, error.error_type) == ("nowhere", "fetch", "MissingSource")
        assert (error.retriable, error.attempts) == (True, 1)
        assert ledger.run(RUN_ID).status == "done"  # type: ignore[union-attr]


def test_a_second_run_changes_no_byte(catalog: Path, client: Client, tmp_path: Path) -> None:
    run.run(config(catalog, tmp_path / "out"), client=client)
    before = snapshot(tmp_path / "out")
    second = run.run(config(catalog, tmp_path / "out"))  # starts no cluster, because there is nothing to do
    assert (second.exit_code, second.new.shards, second.total.videos) == (3, 0, 6)
    assert snapshot(tmp_path / "out") == before


def test_a_run_without_dead_letters_ends_with_0(client: Client, tmp_path: Path) -> None:
    good = corpus(tmp_path / "c", videos=2, missing=False)
    assert run.run(config(good, tmp_path / "out"), client=client).exit_code == 0


def test_committed_shards_are_not_processed_again(
    catalog: Path, reference_output: Path, client: Client, tmp_path: Path
) -> None:
    shutil.copytree(reference_output, tmp_path / "out")
    (tmp_path / "out/_commits/en-000001.json").unlink()
    summary = run.run(config(catalog, tmp_path / "out"), client=client)
    assert (summary.new.shards, summary.total.shards) == (1, 3)
    assert content(tmp_path / "out") == content(reference_output)


def test_a_digest_that_differs_is_refused_and_named(catalog: Path, reference_output: Path, tmp_path: Path) -> None:
    shutil.copytree(reference_output, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"window_s: 5.0 there, 3.0 here"):
        run.run(config(catalog, tmp_path / "out", window_s=3.0))
    with pytest.raises(ConfigError, match="holds run tests, not other"):
        run.run(config(catalog, tmp_path / "out", run_id="other"))
    with pytest.raises(PlanError, match="partition_count"):
        run.run(config(catalog, tmp_path / "out", partition_count=2))
    assert snapshot(tmp_path / "out") == before


def test_two_drivers_on_one_run_do_no_harm(
    catalog: Path, reference_output: Path, client: Client, tmp_path: Path
) -> None:
    settings = config(catalog, tmp_path / "out")
    with ThreadPoolExecutor(2) as pool:
        ledgers = [settings.model_copy(update={"ledger": str(tmp_path / f"{name}.sqlite")}) for name in "ab"]
        summaries = list(pool.map(lambda settings: run.run(settings, client=client), ledgers))
    assert {summary.exit_code for summary in summaries} == {3}
    assert content(tmp_path / "out") == content(reference_output)
    assert verify(str(tmp_path / "out")).findings == ()


def test_independent_partitions_form_one_dataset(catalog: Path, client: Client, tmp_path: Path) -> None:
    halves = [config(catalog, tmp_path / "out", partition_count=2, partition_index=index) for index in (0, 1)]
    first = run.run(halves[0], client=client)
    assert not (tmp_path / "out/dataset.json").exists()
    second = run.run(halves[1], client=client)
    assert first.new.videos + second.new.videos == 6
    assert second.total.videos == 6
    assert verify(str(tmp_path / "out")).findings == ()


def test_a_temporary_error_is_retried_and_leaves_the_shard_open(
    catalog: Path, reference_output: Path, client: Client, tmp_path: Path
) -> None:
    ATTEMPTS.clear()
    summary = run.run(config(catalog, tmp_path / "out", retries=2), client=client, task=fail_first_shard)
    assert summary.exit_code == 4
    assert summary.shards_failed == {"en-000000": "StoreError: the store does not answer"}
    assert ATTEMPTS["en-000000"] == 3
    assert not (tmp_path / "out/dataset.json").exists()
    with open_ledger(None, str(tmp_path / "out"), create=False) as ledger:
        assert "StoreError" in {error.error_type for error in ledger.errors(RUN_ID)}
    assert run.run(config(catalog, tmp_path / "out"), client=client).exit_code == 3
    assert content(tmp_path / "out") == content(reference_output)


def test_a_store_that_refuses_several_shards_ends_the_run(client: Client, tmp_path: Path) -> None:
    ATTEMPTS.clear()
    many = corpus(tmp_path / "c", videos=30, seconds=0.5)
    settings = config(many, tmp_path / "out", shard_videos=1, retries=1)
    summary = run.run(settings, client=client, task=refuse_shard)
    assert summary.exit_code == 2, "a person must act"
    assert len(summary.shards_failed) == 31
    assert summary.stopped is not None
    assert "not permitted" in summary.stopped
    assert "stopped: PermanentStoreError" in list(summary.shards_failed.values())[-1]
    assert ATTEMPTS.total() < 12


def test_a_forbidden_source_is_a_dead_letter_that_can_be_retried(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = corpus(tmp_path / "c", videos=2, missing=False)
    real = Path.open

    def refuse(self, *rest, **options):  # root could read the file
        if self.name == "video00.tar":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert run.run(config(catalog, tmp_path / "out"), client=client).exit_code == 3
    monkeypatch.undo()
    (letter,) = read_commits(Store(str(tmp_path / "out")))["en-000000"].result.dead_letters
    assert (letter.error_type, letter.stage, letter.retriable) == ("ForbiddenSource", "fetch", True)
    assert run.retry(str(tmp_path / "out"), client=client).exit_code == 0


def test_a_committed_but_unpublishable_shard_is_not_done(
    catalog: Path, reference_output: Path, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/en").write_text("a file in place of the language's folder")
    summary = run.run(config(catalog, tmp_path / "out", retries=0), client=client)
    assert summary.exit_code == 4
    assert "en-000000" in summary.shards_failed
    assert not (tmp_path / "out/dataset.json").exists()
    (tmp_path / "out/en").unlink()
    assert run.run(config(catalog, tmp_path / "out"), client=client).exit_code == 3
    assert content(tmp_path / "out") == content(reference_output)


def test_a_read_only_output_is_refused_before_any_work(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in place of the folder")
    with pytest.raises(PermanentStoreError, match="cannot be created"):
        run.run(config(catalog, tmp_path / "out"))


def test_retry_processes_only_the_dead_letters_as_new_shards(client: Client, tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "c"), tmp_path / "out"
    assert run.run(config(source, out), client=client).exit_code == 3
    before = content(out)
    unchanged = run.retry(str(out), client=client, max_failed_share=1.0)
    assert (unchanged.exit_code, unchanged.new.videos, unchanged.total.videos, unchanged.total.videos_failed) == (
        3,
        1,
        6,
        1,
    )
    assert read_run_report(str(out)).numbers == read_tables(str(out)).numbers
    (second,) = pq.read_table(out / "en/videos_000002.parquet").to_pylist()
    assert (second["video_id"], second["attempts"]) == ("nowhere", 2)
    wav_video(tmp_path / "c/videos", "nowhere", 2.0)
    healed = run.retry(str(out), client=client, max_failed_share=1.0)
    assert (healed.exit_code, healed.new.videos, healed.total.videos, healed.total.videos_failed) == (0, 1, 6, 0)
    (third,) = pq.read_table(out / "en/videos_000003.parquet").to_pylist()
    assert (third["status"], third["attempts"]) == ("done", 3)
    report = read_run_report(str(out))
    assert report.numbers == read_tables(str(out)).numbers
    assert report.numbers.done == "6 / 6"
    assert not report.errors
    after = content(out)
    described = {"croissant.json", "dataset.json", "README.md", "tars.txt"}
    assert {name: after[name] for name in before.keys() - described} == {
        name: before[name] for name in before.keys() - described
    }
    assert json.loads(after["dataset.json"])["total"]["videos_failed"] == 0
    assert verify(str(out)).findings == ()
    idle = run.retry(str(out))
    assert (idle.exit_code, idle.new.shards) == (0, 0)
    assert content(out) == after


def test_a_retry_killed_after_planning_is_resumed(client: Client, tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "c"), tmp_path / "out"
    run.run(config(source, out), client=client)
    run.retry(str(out), client=client, max_failed_share=1.0)
    (out / "_commits/en-000002.json").unlink()
    assert run.retry(str(out), client=client, max_failed_share=1.0).new.shards == 1
    assert sorted(path.name for path in (out / "_plan").iterdir()) == [
        *("de-000.parquet", "en-000.parquet", "en-001.parquet"),
    ]


def test_extend_processes_only_new_rows(client: Client, tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "c", missing=False), tmp_path / "out"
    run.run(config(source, out), client=client)
    before = content(out)
    new = wav_video(tmp_path / "c/videos", "added", 2.0)
    french = wav_video(tmp_path / "c/videos", "francais", 2.0)
    rows = pq.read_table(source).to_pylist()
    shared = {"status": "COMPLETED", "size_bytes": new.size_bytes}
    rows += [{"youtube_id": "added", "language": "en", "r2_tar_key": "videos/added.tar", **shared}]
    rows += [{"youtube_id": french.video_id, "language": "fr", "r2_tar_key": "videos/francais.tar", **shared}]
    pq.write_table(pa.Table.from_pylist(rows), source)
    assert run.run(config(source, out), client=client).new.shards == 0
    grown = run.extend(str(out), client=client)
    assert (grown.exit_code, grown.new.videos, grown.total.videos) == (0, 2, 7)
    after = content(out)
    assert all(after[name] == before[name] for name in before if name.startswith(("en/", "de/", "_plan/")))
    assert sorted(read_commits(Store(str(out)))) == ["de-000000", "en-000000", "en-000001", "en-000002", "fr-000000"]
    assert verify(str(out)).findings == ()
    assert run.extend(str(out)).new.shards == 0


def test_extend_adds_a_language_to_a_list_when_it_is_named(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, out = corpus(tmp_path / "c", missing=False), tmp_path / "out"
    run.run(config(source, out, language="en"), client=client)
    with caplog.at_level("INFO", "audiopipe"):
        assert run.extend(str(out)).new.shards == 0
    assert "looking for new videos in en (select others with --language)" in caplog.text
    german = run.extend(str(out), client=client, language="de")
    assert (german.exit_code, german.new.videos, german.total.videos) == (0, 2, 5)
    added = wav_video(tmp_path / "c/videos", "added", 2.0)
    row = {"youtube_id": "added", "language": "de", "r2_tar_key": "videos/added.tar", "size_bytes": added.size_bytes}
    pq.write_table(pa.Table.from_pylist([*pq.read_table(source).to_pylist(), {**row, "status": "COMPLETED"}]), source)
    assert run.extend(str(out), client=client).new.videos == 1  # the added language is part of the run from now on
    assert verify(str(out)).findings == ()


def test_resume_refuses_a_shard_that_is_not_planned(reference_output: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shard 'en-000099' in the plan"):
        run.resume(str(reference_output), shards=["en-000099"])


# A decoder that kills the worker when it opens a poisoned file, as a crash in a library would. The worker is the parent
# of the fork server.
POISON = """
if b"POISON" in open(request["url"].split(",,:", 1)[1], "rb").read():
    parents = open(f"/proc/{os.getppid()}/stat").read()
    os.kill(int(parents.rpartition(")")[2].split()[1]), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_poison_video_fails_alone_and_its_neighbors_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    source = corpus(tmp_path / "c", videos=6, missing=False)
    make_output(config(source, tmp_path / "innocent", shard_videos=3))
    poison = wav_video(tmp_path / "c/videos", "video02", 2.2, json=b'{"segments": [], "POISON": 1}')
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    monkeypatch.setenv("PYTHONPATH", inject_decoder_code(tmp_path / "poison", POISON)["PYTHONPATH"])
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        summary = run.run(config(source, tmp_path / "out", shard_videos=3), client=client)
    assert (summary.exit_code, summary.total.videos_failed) == (3, 1)
    (letter,) = [
        letter
        for commit in read_commits(Store(str(tmp_path / "out"))).values()
        for letter in commit.result.dead_letters
    ]
    assert (letter.video_id, letter.error_type, letter.stage) == (poison.video_id, "PoisonVideo", "process")
    assert "signal 9" in letter.message
    tables = [pq.read_table(path) for path in (tmp_path / "out").glob("*/segments_*.parquet")]
    assert set(pa.concat_tables(tables)["video_id"].to_pylist()) == {f"video0{number}" for number in (0, 1, 3, 4, 5)}
    # The worker also died while it processed the German shard, which has no poisoned video.
    expected, actual = content(tmp_path / "innocent"), content(tmp_path / "out")
    assert all(actual[name] == expected[name] for name in expected if name.startswith("de/"))
    assert verify(str(tmp_path / "out")).findings == ()
