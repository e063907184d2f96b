"""A selection is made by the workers like a run; what it cannot be made from or into is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest
from distributed import Client
from output_factory import content
from selection_factory import make_samples, plan_selection, select_here

import audiopipe
from audiopipe.dataset.commit import commit_name
from audiopipe.dataset.run_record import open_run, read_config
from audiopipe.dataset.verify import verify
from audiopipe.driver.run import extend, resume, retry
from audiopipe.errors import ConfigError
from audiopipe.ledger import RunStatus, open_ledger
from audiopipe.report.summary import summary_lines
from audiopipe.store.objects import Store


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_samples(str(tmp_path_factory.mktemp("parent") / "out"), ("en",), 3).url


def copy_of(parent: str, folder: Path) -> Path:
    return Path(shutil.copytree(parent, folder / "copy"))


def test_workers_make_the_bytes_that_one_process_makes(parent: str, client: Client, tmp_path: Path) -> None:
    options = {"where": "snr_db > 20", "split": "train=0.5,test=0.5", "shuffle": 1}
    expected = content(select_here(parent, str(tmp_path / "expected"), tmp_path / "scratch", **options).url)
    dest = str(tmp_path / "dest")
    summary = audiopipe.select(parent, dest, client=client, run_id="made-up", **options)
    assert (summary.exit_code, summary.status, summary.total.videos_failed) == (0, RunStatus.DONE, 0)
    assert summary.new.stage_items["copy"] > 0
    assert content(dest) == expected
    assert any(line.startswith("copied ") for line in summary_lines(summary))
    with open_ledger(None, dest, create=False) as ledger:
        assert ledger.run("made-up").status is RunStatus.DONE  # type: ignore[union-attr]
        assert len(ledger.shards("made-up")) == summary.total.shards == 2
    repeated = audiopipe.select(parent, dest, client=client, **options)
    assert (repeated.new.shards, repeated.exit_code) == (0, 0)
    assert content(dest) == expected
    with pytest.raises(ConfigError, match=r"holds another selection \(where: "):
        audiopipe.select(parent, dest, client=client, **{**options, "where": "snr_db > 21"})
    with pytest.raises(ConfigError, match="is a selection, which has no catalog"):
        extend(dest, client=client)
    assert retry(dest, client=client).exit_code == 0
    with pytest.raises(ConfigError, match="holds a selection of"):
        open_run(Store(dest), read_config(Store(dest)))


def test_a_damaged_tar_fails_its_shards_alone(client: Client, tmp_path: Path) -> None:
    damaged = make_samples(str(tmp_path / "out"), ("en", "de"), 1).url
    tar = Path(damaged) / "en" / "audio_000000.tar"
    intact = tar.read_bytes()
    body = bytearray(intact)
    body[len(body) // 2 + 300] ^= 1
    tar.write_bytes(body)
    dest = str(tmp_path / "dest")
    summary = audiopipe.select(damaged, dest, client=client)
    assert (summary.exit_code, summary.new.shards, summary.total.videos) == (2, 1, 5)
    assert (
        "en/audio_000000.tar of the parent differs from the sha256 in its commit" in summary.shards_failed["en-000000"]
    )
    tar.unlink()
    summary = audiopipe.select(damaged, dest, client=client)
    assert "en/audio_000000.tar of the parent is missing" in summary.shards_failed["en-000000"]
    tar.write_bytes(intact)
    assert audiopipe.select(damaged, dest, client=client).exit_code == 0
    assert verify(dest).findings == ()


def test_a_shard_of_a_selection_can_be_made_again(parent: str, client: Client, tmp_path: Path) -> None:
    dest = select_here(parent, str(tmp_path / "dest"), tmp_path / "scratch").url
    before = content(dest)
    (tmp_path / "dest" / "en" / "audio_000000.tar").write_bytes(b"")
    assert [finding.name for finding in verify(dest).findings] == ["en/audio_000000.tar"]
    assert resume(dest, shards=["en-000000"], client=client).exit_code == 0
    assert content(dest) == before
    assert verify(dest).findings == ()


def test_a_parent_that_has_changed_is_refused(parent: str, tmp_path: Path) -> None:
    changed = copy_of(parent, tmp_path)
    dest = str(tmp_path / "dest")
    plan_selection(str(changed), dest, tmp_path / "scratch")
    (changed / commit_name("en-000002")).unlink()
    with pytest.raises(ConfigError, match=r"has changed since the selection in .* was started: it had 3 shards"):
        audiopipe.select(str(changed), dest)


def test_an_unfinished_parent_gives_what_is_committed(parent: str, client: Client, tmp_path: Path) -> None:
    unfinished = copy_of(parent, tmp_path)
    (unfinished / commit_name("en-000002")).unlink()
    summary = audiopipe.select(str(unfinished), str(tmp_path / "dest"), client=client)
    assert summary.exit_code == 0
    assert json.loads((tmp_path / "dest" / "_run.json").read_text())["parent"]["shards"] == 2
    assert summary.total.videos == 10


def test_destinations_that_overlap_are_refused(parent: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    os.symlink(parent, link)
    above = str(Path(parent).parent)
    for dest, message in (
        (parent, "itself"),
        (f"{parent}/", "itself"),
        (f"file://{parent}", "itself"),
        (str(link), "itself"),
        (f"{parent}/../{Path(parent).name}/x/..", "itself"),
        (f"{parent}/selection", "is inside"),
        (f"{link}/a/b", "is inside"),
        (above, "is inside"),
        (f"file://{above}", "is inside"),
    ):
        with pytest.raises(ConfigError, match=message):
            audiopipe.select(parent, dest)


def test_destinations_that_hold_a_run_are_refused(parent: str, tmp_path: Path) -> None:
    other = copy_of(parent, tmp_path)
    with pytest.raises(ConfigError, match="holds a run, not a selection"):
        audiopipe.select(parent, str(other))


def test_an_empty_result_is_refused_and_leaves_nothing(parent: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no segment of .* is chosen \(left out: 60 in en: snr_db > 1000\)"):
        audiopipe.select(parent, str(tmp_path / "dest"), where="snr_db > 1000")
    assert not (tmp_path / "dest" / "_run.json").exists()


def test_an_interrupted_plan_cannot_be_resumed_but_made_again(parent: str, client: Client, tmp_path: Path) -> None:
    dest = str(tmp_path / "dest")
    plan_selection(parent, dest, tmp_path / "scratch")
    (tmp_path / "dest" / "_selection" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="interrupted before its plan was complete"):
        resume(dest, client=client)
    assert audiopipe.select(parent, dest, client=client).exit_code == 0
    assert verify(dest).findings == ()
