"""Check the estimate as the command and the notebook show it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from audiopipe.cli import main
from audiopipe.estimation import estimate
from audiopipe.estimation.simulate import Outcome
from audiopipe.report.estimate import notes, show, summarize


def test_the_summary_counts_runs_that_met_the_deadline() -> None:
    outcomes = {2: [Outcome(20.0, 1.0, 0), Outcome(25.0, 1.0, 0)], 4: [Outcome(10.0, 1.0, 0), Outcome(12.0, 1.0, 0)]}
    assert summarize(outcomes, 24.0, 2) == "With the estimated 2 nodes, 1 of 2 runs met the deadline; with 4, all did."
    assert summarize(outcomes, 24.0, 4) == "With the estimated 4 nodes, 2 of 2 runs met the deadline."
    assert summarize(outcomes, 11.0, 2) == "With the estimated 2 nodes, 0 of 2 runs met the deadline."


def test_the_notes_say_which_rates_were_not_measured(tmp_path: Path) -> None:
    text = " ".join(notes(estimate(rates_folder=tmp_path)))
    assert "Rates assumed, NOT measured" in text
    assert "128 kbit/s of source audio (8.2 TB)" in text
    assert "9.8 TB of FLAC" in text


def test_the_page_has_machines_notes_and_a_figure(tmp_path: Path) -> None:
    html = show(estimate(2000, nodes=3, rates_folder=tmp_path), simulations=2)._repr_html_()
    assert "With the estimated 3 nodes, 2 of 2 runs met the deadline." in html
    assert "g5.4xlarge" in html
    assert "<svg" in html
    assert "Assumed, not measured" in html


def test_the_command_prints_machines_and_notes(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["estimate", "--rates", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "g5.4xlarge" in result.output
    assert "NOT measured" in result.output


def test_the_command_prints_json_for_a_profile(tmp_path: Path) -> None:
    arguments = ["estimate", "--profile", "gcp", "--nodes", "4", "--json", "--rates", str(tmp_path)]
    body = json.loads(CliRunner().invoke(main, arguments).output)
    assert body["rates"]["measured"] is False
    assert {row["instance"]["provider"] for row in body["rows"]} == {"gcp"}
    assert {row["nodes"] for row in body["rows"]} == {4}
    assert [row["total_usd"] for row in body["rows"]] == sorted(row["total_usd"] for row in body["rows"])


@pytest.mark.slow
def test_the_notebook_shows_machines_and_a_figure(tmp_path: Path) -> None:
    import papermill

    notebook = Path(__file__).parents[2] / "notebooks/estimate.ipynb"
    executed = papermill.execute_notebook(
        str(notebook), str(tmp_path / "estimate.ipynb"), {"simulations": 2, "videos": 2000}, progress_bar=False
    )
    output = str(executed.cells[-1].outputs)
    assert "g5.4xlarge" in output
    assert "<svg" in output
