"""Check `audiopipe explain`: each word that the package prints is explained, and no explanation is out of date."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import audiopipe
from audiopipe import cli, errors, kernels
from audiopipe.cli.glossary import glossary
from audiopipe.cli.main import EXITS
from audiopipe.config import RunConfig
from audiopipe.pipeline.drop_rules import RULES

PACKAGE = Path(audiopipe.__file__).parent


def explain(*arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of `audiopipe explain`."""
    result = CliRunner().invoke(cli.main, ["explain", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_remedy(name: str) -> None:
    kind = getattr(errors, name)
    assert "remedy" in vars(kind), f"{name} inherits its remedy"
    code, output = explain(name)
    assert code == 0
    assert f"what to do: {kind.remedy}" in output


def test_the_help_explains_the_exit_code_of_every_error() -> None:
    assert {getattr(errors, name).exit_code for name in errors.__all__} <= EXITS.keys()


def test_an_error_that_may_become_a_dead_letter_is_both() -> None:
    assert "error (exit code 4), or dead letter of the last attempt, at stage 'decode'" in explain("DecoderCrash")[1]
    assert "exit code 4" in explain("SourceUnavailable")[1]
    assert "exit code 4" in explain("WorkerFailure")[1]


@pytest.mark.parametrize("metric", kernels.METRICS)
def test_every_metric_has_unit_missing_value_and_source(metric: str) -> None:
    code, output = explain(metric)
    assert code == 0
    assert f"unit {kernels.METRICS[metric].unit}" in output
    assert "NaN" in output
    (source,) = re.findall(r"^source: (.+)$", output, re.MULTILINE)
    assert (PACKAGE.parent / source).is_file()


def test_a_metric_is_explained_by_its_own_lines_only() -> None:
    assert "half the sample rate" in explain("bandwidth_hz")[1]
    assert "librosa" not in explain("bandwidth_hz")[1]
    assert "-70 LUFS" in explain("loudness_lufs")[1]
    assert "-70 LUFS" not in explain("momentary_max_lufs")[1]


def test_every_parameter_exit_code_and_drop_reason_is_explained() -> None:
    known = {entry.word for entry in glossary()}
    assert known >= RunConfig.model_fields.keys()
    assert known >= {str(code) for code in EXITS}
    assert known >= {"too_short", "too_long", *(rule[0] for rule in RULES)}


def test_words_may_be_written_as_reports_write_them() -> None:
    assert "one worker processes as one task" in explain("shard")[1]
    assert explain("too quiet") == explain("too_quiet")
    assert explain("dead letter")[0] == 0


def test_a_drop_reason_names_its_metric_side_and_limit() -> None:
    assert "snr_db is below min_snr_db" in explain("noisy")[1]
    assert "clipping_ratio is above max_clipping_ratio" in explain("clipped")[1]


def test_a_metric_that_is_also_a_parameter_is_explained_as_both() -> None:
    _, output = explain("true_peak_dbtp")
    assert "true_peak_dbtp: metric" in output
    assert "true_peak_dbtp: parameter" in output


def test_remedies_name_commands_and_options_that_exist() -> None:
    options = {flag for command in cli.main.commands.values() for item in command.params for flag in item.opts}
    for entry in glossary():
        text = f"{entry.text} {entry.remedy}"
        assert set(re.findall(r"audiopipe (?!/)([a-z]+)", text)) <= cli.main.commands.keys(), entry.word
        assert set(re.findall(r"(?<![\w-])--[a-z-]+", text)) - {"--help"} <= options, entry.word


def test_without_a_word_all_words_are_listed() -> None:
    code, output = explain()
    assert code == 0
    assert len(output.splitlines()) == len(glossary())


def test_an_unknown_word_is_refused_with_the_nearest() -> None:
    code, _ = explain("BadTarr")
    assert code == 2
