"""Verification in parts: on threads, interrupted and continued, by a sample, with little memory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from output_factory import config, corpus, make_output
from scipy.stats import binom

from audiopipe.dataset.verify import verify
from audiopipe.dataset.verify_journal import default_journal
from audiopipe.dataset.verify_shards import choose_sample, upper_bound
from audiopipe.store.objects import Store
from audiopipe.types import Shard


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_output(config(corpus(folder / "corpus", videos=8), folder / "out", shard_videos=1))
    return folder / "out"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep journals in a folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def tars_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the tars that are read."""
    names: list[str] = []
    real = Store.read_range

    def read_range(self: Store, name: str, start: int, size: int) -> bytes:
        if name.endswith(".tar"):
            names.append(name)
        return real(self, name, start, size)

    monkeypatch.setattr(Store, "read_range", read_range)
    return names


def interrupt(out: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify an output until so many shards are checked."""

    def stop(done: int, total: int) -> None:
        if done == shards:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(str(out), threads=1, on_shard=stop)


def test_any_number_of_threads_finds_the_same_in_plan_order(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    tars = sorted(out.glob("*/audio_*.tar"))
    for tar in (tars[0], tars[-1]):
        body = bytearray(tar.read_bytes())
        body[len(body) // 2] ^= 1
        tar.write_bytes(body)
    single, many = (verify(str(out), threads=threads) for threads in (1, 4))
    assert single == many
    assert [finding.name for finding in single.findings] == [str(tar.relative_to(out)) for tar in (tars[0], tars[-1])]
    assert (single.bad, single.max_bad_share) == (2, 2 / single.shards)


def test_an_interrupted_verification_continues(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tars_read: list[str]
) -> None:
    interrupt(whole, 3, monkeypatch)
    first = set(tars_read)
    tars_read.clear()
    result = verify(str(whole), threads=2)
    assert (result.findings, result.checked) == ((), result.shards)
    assert result.known >= 3
    assert not first & set(tars_read)
    assert len(first) + len(set(tars_read)) == len((whole / "tars.txt").read_text().split())
    assert not default_journal(str(whole)).exists()
    tars_read.clear()
    assert verify(str(whole)).known == 0, "a complete verification is not continued"
    assert tars_read


def test_a_restart_or_another_attempt_is_read_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tars_read: list[str]
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    interrupt(out, 3, monkeypatch)
    journal = default_journal(str(out))
    lines = journal.read_text().splitlines()
    other = json.loads(lines[0]) | {"attempt": "another"}
    journal.write_text("\n".join([json.dumps(other), *lines[1:], lines[0][:20]]))
    tars_read.clear()
    assert verify(str(out)).known == len(lines) - 1
    interrupt(out, 3, monkeypatch)
    assert verify(str(out), restart=True).known == 0


def test_a_journal_does_not_hide_an_object_that_is_lost(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    interrupt(out, 3, monkeypatch)
    shard = json.loads(default_journal(str(out)).read_text().splitlines()[0])["shard"]
    language, number = shard.rsplit("-", 1)
    (out / language / f"segments_{number}.parquet").unlink()
    assert f"{language}/segments_{number}.parquet" in {finding.name for finding in verify(str(out)).findings}


def test_a_sample_is_random_repeatable_and_bounded(whole: Path, tars_read: list[str]) -> None:
    result = verify(str(whole), sample=2, seed=5)
    assert (result.checked, len(set(tars_read)), result.findings) == (2, 2, ())
    assert result.shards > 2
    assert verify(str(whole), sample=2, seed=5).samples == result.samples
    shards = [Shard("en", index, 0, ()) for index in range(10)]
    choices = {tuple(shard.index for shard in choose_sample(shards, 3, seed)) for seed in range(40)}
    assert {index for choice in choices for index in choice} == set(range(10))
    assert all(list(choice) == sorted(choice) for choice in choices)
    assert len(choose_sample(shards, 50, 0)) == 10


@pytest.mark.parametrize(("bad", "checked"), [(0, 200), (3, 200), (1, 1), (0, 1), (7, 5000)])
def test_the_bound_of_a_sample_is_that_of_the_binomial(bad: int, checked: int) -> None:
    share = upper_bound(bad, checked)
    if bad < checked:
        assert binom.cdf(bad, checked, share) == pytest.approx(0.05, abs=1e-6)
    else:
        assert share == 1.0


def test_the_command_states_what_a_sample_means(whole: Path) -> None:
    command = [str(Path(sys.executable).parent / "audiopipe"), "verify", str(whole), "--sample", "3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert f"3 of {verify(str(whole), fast=True).shards} shards" in done.stdout
    assert "with 95 % confidence, at most 63.2% of all shards have findings" in done.stdout


def test_a_large_tar_is_read_in_blocks(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks: list[int] = []
    real = Store.read_range

    def read_range(self: Store, name: str, start: int, size: int) -> bytes:
        blocks.append(size)
        return real(self, name, start, size)

    monkeypatch.setattr(Store, "read_range", read_range)
    monkeypatch.setattr(Store.read_blocks, "__defaults__", (4096,))
    assert verify(str(whole)).findings == ()
    assert max(blocks) <= 4096
