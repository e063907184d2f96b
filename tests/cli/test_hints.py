"""Commands suggest what was meant, take a file of parameters, and warn if nothing was kept."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from audiopipe import cli
from audiopipe.cli import options
from audiopipe.cli.main import COMPLETION, SYNONYMS
from audiopipe.config import RunConfig
from audiopipe.dataset.totals import Totals
from audiopipe.pipeline.drop_rules import RULES
from audiopipe.report.summary import describe_nothing_kept


@pytest.mark.parametrize(("typed", "command"), [("statu", "monitor"), ("verfy", "verify"), ("subset", "select")])
def test_a_wrong_command_suggests_one(typed: str, command: str) -> None:
    done = CliRunner().invoke(cli.main, [typed])
    assert (done.exit_code, f"Did you mean '{command}'" in done.stderr) == (2, True), done.stderr


def test_every_suggestion_exists() -> None:
    assert set(SYNONYMS.values()) <= cli.main.commands.keys()
    assert not SYNONYMS.keys() & cli.main.commands.keys()


def test_completion_is_documented_and_works() -> None:
    assert COMPLETION.strip().splitlines()[-1].strip() in CliRunner().invoke(cli.main, ["--help"]).output
    done = CliRunner().invoke(cli.main, [], prog_name="audiopipe", env={"_AUDIOPIPE_COMPLETE": "bash_source"})
    assert "complete -o nosort" in done.output


def totals(segments: int, **drops: int) -> Totals:
    total = Totals(shards=1, videos=2, segments=segments)
    total.drops.update(drops)
    return total


def test_nothing_kept_names_the_reason_and_what_to_change() -> None:
    text = str(describe_nothing_kept(totals(3, noisy=2, too_short=1)))
    assert "The most frequent reason is noisy (2 of 3)" in text
    assert "another --min-snr-db ('none' switches it off)" in text
    assert "--segments" in str(describe_nothing_kept(totals(0)))
    assert "--keep-if" in str(describe_nothing_kept(totals(1, **{"speakers = 1": 1})))
    flags = {flag for item in cli.main.commands["run"].params for flag in item.opts}
    for rule in RULES:
        text = str(describe_nothing_kept(totals(1, **{rule.reason: 1})))
        assert flags & set(text.split()), "the option exists"
    assert describe_nothing_kept(Totals(videos=1, videos_failed=1)) is None
    assert describe_nothing_kept(Totals(videos=1, segments=2, segments_kept=1)) is None


def parse(file: Path, *arguments: str) -> RunConfig:
    """Parse the options of `run` with a file of parameters."""
    received: dict[str, object] = {}

    @click.command()
    @click.option("-f", "file", type=click.Path(path_type=Path), callback=options.use_file, is_eager=True)
    @options.config_options
    def probe(file: None, **parameters: object) -> None:
        received.update(parameters)

    done = CliRunner().invoke(probe, ["-f", str(file), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return RunConfig.of(**received)


def test_run_takes_papermills_file_of_parameters(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "catalog: a\noutput: b\nmin_snr_db: null\nmax_silence_ratio: none\nextend: true\nshard_mb: 7\n"
        "columns: {youtube_id: path, text: sentence}\nlanguage: [en, de]\n"
    )
    config = parse(file, "--shard-mb", "8")
    assert (config.catalog, config.min_snr_db, config.max_silence_ratio, config.extend) == ("a", None, None, True)
    assert config.shard_mb == 8
    assert (config.columns, config.language) == ("youtube_id=path,text=sentence", "en,de")
    file.write_text("catalg: a\n")
    done = CliRunner().invoke(cli.main, ["run", "-f", str(file), "--output", "b"])
    assert done.exit_code == 2
    assert "run.yaml: unknown parameter 'catalg': did you mean 'catalog'?" in done.stderr.replace("\n", "")
