"""`audiopipe explain`: every word that this package says has a meaning, and no meaning is of a word that is gone."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import audiopipe
from audiopipe import cli, errors, kernels
from audiopipe.cli.glossary import meanings
from audiopipe.cli.main import EXITS
from audiopipe.config import RunConfig
from audiopipe.pipeline.score import RULES

PACKAGE = Path(audiopipe.__file__).parent


def explained(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.main, ["explain", *words])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_separate_advice(name: str) -> None:
    kind = getattr(errors, name)
    assert "remedy" in vars(kind), f"{name} has no remedy of its own"
    code, told = explained(name)
    assert code == 0
    assert f"what to do: {kind.remedy}" in told


def test_an_errors_exit_code_is_one_that_the_help_explains() -> None:
    assert {getattr(errors, name).exit_code for name in errors.__all__} <= EXITS.keys()


@pytest.mark.parametrize("metric", kernels.METRICS)
def test_every_metric_has_its_unit_its_gaps_and_its_source(metric: str) -> None:
    code, told = explained(metric)
    assert code == 0
    assert f"unit {kernels.METRICS[metric].unit}" in told
    assert "NaN" in told
    (source,) = re.findall(r"^source: (.+)$", told, re.MULTILINE)
    assert (PACKAGE.parent / source).is_file()


def test_every_parameter_exit_code_and_drop_reason_is_explained() -> None:
    known = {meaning.word for meaning in meanings()}
    assert known >= RunConfig.model_fields.keys()
    assert known >= {str(code) for code in EXITS}
    assert known >= {"too_short", "too_long", *(rule[0] for rule in RULES)}


def test_terms_may_be_written_as_in_reports() -> None:
    assert "one worker takes as one task" in explained("shard")[1]
    assert explained("too quiet") == explained("too_quiet")
    assert explained("dead letter")[0] == 0


def test_a_drop_reason_names_its_metric_side_and_limit() -> None:
    assert "snr_db is below min_snr_db" in explained("noisy")[1]
    assert "clipping_ratio is above max_clipping_ratio" in explained("clipped")[1]


def test_a_word_that_is_a_metric_and_a_parameter_is_explained_as_both() -> None:
    _, told = explained("true_peak_dbtp")
    assert "true_peak_dbtp: metric" in told
    assert "true_peak_dbtp: parameter" in told


def test_what_to_do_names_commands_and_options_that_exist() -> None:
    options = {flag for command in cli.main.commands.values() for item in command.params for flag in item.opts}
    for meaning in meanings():
        told = f"{meaning.text} {meaning.remedy}"
        assert set(re.findall(r"audiopipe (?!/)([a-z]+)", told)) <= cli.main.commands.keys(), meaning.word
        assert set(re.findall(r"(?<![\w-])--[a-z-]+", told)) - {"--help"} <= options, meaning.word


def test_an_unknown_term_is_refused_with_the_nearest_one() -> None:
    code, told = explained()
    assert code == 0
    assert len(told.splitlines()) == len(meanings())
    done = CliRunner().invoke(cli.main, ["explain", "BadTarr"])
    assert done.exit_code == 2
