import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from audiopipe import cli
from audiopipe.cli import options
from audiopipe.config import RunConfig
from audiopipe.driver.signals import SignalGuard

COMMAND = [str(Path(sys.executable).parent / "audiopipe")]


def audiopipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=240)


def test_every_command_explains_itself_and_every_option_has_a_help() -> None:
    for name, command in cli.main.commands.items():
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("help", "seed"):
                assert option.help, f"{name} --{option.name}"
        assert CliRunner().invoke(cli.main, [name, "--help"]).exit_code == 0


def test_run_has_an_option_for_every_field_of_the_config() -> None:
    options = {option.name for option in cli.main.commands["run"].params}
    assert options >= RunConfig.model_fields.keys()


def test_the_help_names_the_exit_codes() -> None:
    told = CliRunner().invoke(cli.main, ["--help"]).output
    for line in ("0  done", "2  misused", "3  done, with dead letters", "4  not finished"):
        assert line in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--output", "out"], "--catalog"),
        (["run", "--catalog", "a", "--output", "b", "--catalgo", "c"], "--catalgo"),
        (["run", "--catalog", "a", "--output", "b", "--window-s", "100"], "window_s"),
        (["run", "--catalog", "a", "--output", "b", "--audio-format", "wma"], "wma"),
        (["run", "--catalog", "nowhere.parquet", "--output", "b"], "nowhere.parquet"),
    ],
)
def test_misuse_ends_with_2_and_names_what_is_wrong(arguments: list[str], told: str, tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_none_switches_a_threshold_off() -> None:
    seen = {}

    @click.command()
    @options.config_options
    def probe(**parameters: object) -> None:
        seen.update(parameters)

    needed = ["--catalog", "a", "--output", "b"]
    CliRunner().invoke(probe, [*needed, "--min-snr-db", "none", "--max-clipping-ratio", "0.1"])
    config = RunConfig.of(**seen)
    assert config.min_snr_db is None
    assert config.max_clipping_ratio == 0.1


def test_an_output_that_is_none_cannot_be_verified_or_watched(tmp_path: Path) -> None:
    assert audiopipe("verify", str(tmp_path)).returncode == 1
    told = audiopipe("progress", str(tmp_path), "--once")
    assert told.returncode == 1
    assert "ledger" in told.stderr


def test_the_main_job_runs_resumes_verifies_and_shows_its_progress(tiny_corpus: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    job = ["run", "--catalog", str(tiny_corpus / "catalog.parquet"), "--output", output, "--shard-videos", "6"]
    job += ["--workers", "1", "--json"]
    first = audiopipe(*job)
    assert first.returncode == 3, first.stderr  # the corpus has broken videos
    total = json.loads(first.stdout)
    truth = json.loads((tiny_corpus / "truth.json").read_text())
    bad = [row["error"] for row in truth if row["error"]]
    assert total["videos"] == len(truth)
    assert total["errors"] == {name: bad.count(name) for name in sorted(set(bad))}
    again = audiopipe(*job)
    assert again.returncode == 3
    assert json.loads(again.stdout)["new_shards"] == 0
    verified = audiopipe("verify", output)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "all as committed" in verified.stdout
    progress = audiopipe("progress", output, "--json")
    assert json.loads(progress.stdout)["run"]["status"] == "done"
    other = audiopipe(*job, "--window-s", "3")
    assert other.returncode == 2
    assert "window_s: 5.0 there, 3.0 here" in other.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_drops_in_a_finaliser_is_remembered() -> None:
    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with SignalGuard(signal.SIGTERM) as stop:
        done: list[int] = []
        work = stop.before(done.append)
        work(1)
        unused = Finalised()
        del unused
        with pytest.raises(KeyboardInterrupt):
            work(2)
    assert done == [1]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_a_run_within_20_s_and_it_resumes(
    number: signal.Signals, tiny_corpus: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = ["run", "--catalog", str(tiny_corpus / "catalog.parquet"), "--output", str(output), "--shard-videos", "2"]
    job += ["--workers", "1", "--shards-in-flight", "1"]
    process = subprocess.Popen([*COMMAND, *job], stderr=subprocess.PIPE, text=True)
    while not list(output.glob("_commits/*.json")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    os.kill(process.pid, number)
    told = process.communicate(timeout=20)[1]
    assert process.returncode == 4
    assert "run the same command again" in told
    assert "Traceback" not in told
    assert audiopipe(*job).returncode == 3
    assert audiopipe("verify", str(output)).returncode == 0
