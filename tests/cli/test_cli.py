import json
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from output_factory import content, make_output
from waiting import wait_until

from audiopipe import cli
from audiopipe.cli import options
from audiopipe.config import RunConfig
from audiopipe.driver.signals import SignalGuard

COMMAND = [str(Path(sys.executable).parent / "audiopipe")]


def audiopipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in another process."""
    return subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=240)


def invoke(*arguments: str) -> Result:
    """Run the command in this process, which has imported most of what it needs."""
    return CliRunner().invoke(cli.main, arguments)


def test_every_command_and_every_option_has_a_help_text() -> None:
    for name, command in cli.main.commands.items():
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                assert option.help, f"{name} --{option.name}"
        assert CliRunner().invoke(cli.main, [name, "--help"]).exit_code == 0


def test_run_has_an_option_for_every_field_of_the_config() -> None:
    options = {option.name for option in cli.main.commands["run"].params}
    assert options >= RunConfig.model_fields.keys()


def test_the_help_names_the_exit_codes() -> None:
    output = CliRunner().invoke(cli.main, ["--help"]).output
    for line in ("0  done", "2  misused", "3  done, with dead letters", "4  not finished"):
        assert line in output


def test_renamed_commands_and_options_are_gone() -> None:
    for name in ("plan", "progress"):
        assert CliRunner().invoke(cli.main, [name, "--help"]).exit_code == 2
    flags = {flag for item in cli.main.commands["run"].params for flag in item.opts}
    assert not flags & {"--held-mb", "--fetched-mb", "--videos-ahead"}
    assert flags >= {"--batch-queue-mb", "--prefetch-mb", "--prefetch-videos"}


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["run", "--output", "out"], "--catalog"),
        (["run", "--catalog", "a", "--output", "b", "--catalgo", "c"], "--catalgo"),
        (["run", "--catalog", "a", "--output", "b", "--window-s", "100"], "window_s"),
        (["run", "--catalog", "a", "--output", "b", "--audio-format", "wma"], "wma"),
        (["run", "--catalog", "nowhere.parquet", "--output", "b"], "nowhere.parquet"),
    ],
)
def test_misuse_exits_with_2_and_names_the_culprit(
    arguments: list[str], culprit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert culprit in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_command_reports_misuse() -> None:
    done = audiopipe("run", "--output", "out")
    assert done.returncode == 2
    assert "--catalog" in done.stderr
    assert "Traceback" not in done.stderr


def test_none_switches_a_threshold_off() -> None:
    received = {}

    @click.command()
    @options.config_options
    def probe(**parameters: object) -> None:
        received.update(parameters)

    required = ["--catalog", "a", "--output", "b"]
    CliRunner().invoke(probe, [*required, "--min-snr-db", "none", "--max-clipping-ratio", "0.1"])
    config = RunConfig.of(**received)
    assert config.min_snr_db is None
    assert config.max_clipping_ratio == 0.1


def test_an_empty_folder_cannot_be_verified_or_monitored(tmp_path: Path) -> None:
    assert invoke("verify", str(tmp_path)).exit_code == 1
    done = invoke("monitor", str(tmp_path), "--once")
    assert done.exit_code == 2
    assert "ledger" in done.stderr


def test_a_run_can_be_resumed_verified_and_monitored(tiny_corpus: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    job = ["run", "--catalog", str(tiny_corpus / "catalog.parquet"), "--output", output, "--shard-videos", "6"]
    job += ["--workers", "1", "--json", "--max-failed-share", "1"]
    first = audiopipe(*job)
    assert first.returncode == 3, first.stderr  # the corpus has broken videos
    total = json.loads(first.stdout)
    truth = json.loads((tiny_corpus / "truth.json").read_text())
    bad = [row["error"] for row in truth if row["error"]]
    assert total["videos"] == len(truth)
    assert total["errors"] == {name: bad.count(name) for name in sorted(set(bad))}
    second = audiopipe(*job)
    assert second.returncode == 3
    assert json.loads(second.stdout)["new_shards"] == 0
    assert "next:" not in first.stderr + second.stderr, "a program reads the summary"
    verified = invoke("verify", output)
    assert verified.exit_code == 0
    assert verified.stderr == f"next: audiopipe report {output}; or audiopipe select {output} DEST\n"
    assert "all objects match their commits" in verified.stdout
    monitored = invoke("monitor", output, "--json")
    assert json.loads(monitored.stdout)["run"]["status"] == "done"
    mismatch = invoke(*job, "--window-s", "3")
    assert mismatch.exit_code == 2
    assert "window_s: 5.0 there, 3.0 here" in mismatch.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_python_drops_in_a_finalizer_is_handled() -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    previous = signal.getsignal(signal.SIGTERM)
    with SignalGuard(signal.SIGTERM) as stop:
        done: list[int] = []
        work = stop.before(done.append)
        work(1)
        unused = Finalized()
        del unused
        with pytest.raises(KeyboardInterrupt):
            work(2)
    assert done == [1]
    assert signal.getsignal(signal.SIGTERM) is previous


def interrupt(job: list[str], commits: int, number: signal.Signals, log: Path) -> int:
    """Send a run a signal once it has so many commits; return its exit code after at most 20 s."""
    output = Path(job[job.index("--output") + 1])
    with log.open("w") as stderr, subprocess.Popen([*COMMAND, *job], stderr=stderr) as process:
        wait_until(
            lambda: process.poll() is not None or len(list(output.glob("_commits/*.json"))) >= commits,
            f"{commits} shards are committed",
            timeout_s=240,
        )
        assert process.poll() is None, log.read_text()
        process.send_signal(number)
        return process.wait(timeout=20)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bytes(tiny_corpus: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    job = ["run", "--catalog", str(tiny_corpus / "catalog.parquet"), "--output", str(output), "--shard-videos", "2"]
    job += ["--workers", "1", "--shards-in-flight", "1", "--run-id", "r", "--max-failed-share", "1"]
    for commits, number in ((1, signal.SIGTERM), (3, signal.SIGINT)):
        assert interrupt(job, commits, number, log) == 4
        assert "run the same command again" in log.read_text()
        assert "Traceback" not in log.read_text()
    assert interrupt(job, 5, signal.SIGKILL, log) == -signal.SIGKILL
    assert audiopipe(*job).returncode == 3
    assert invoke("verify", str(output)).exit_code == 0
    expected = RunConfig.of(
        catalog=str(tiny_corpus / "catalog.parquet"), output=str(tmp_path / "expected"), shard_videos=2, run_id="r"
    )
    assert content(output) == content(make_output(expected).url)
