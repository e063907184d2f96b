"""The steps of `select.ipynb`: select on a cluster, show before and after, link the quality report."""

from __future__ import annotations

from typing import Any

from audiopipe.config.checks import is_off
from audiopipe.dataset.reader import Dataset
from audiopipe.driver.run import RunSummary
from audiopipe.driver.select import select
from audiopipe.report import comparison, page, selection
from audiopipe.report.dataset_tables import read_tables
from audiopipe.report.notebook.session import with_progress
from audiopipe.report.page import Html

__all__ = ["PARAMETERS", "show_charts", "show_counts", "show_report", "start"]

OPTIONS = ("languages", "unique", "split", "split_by", "shuffle", "hours", "rank_by", "shard_mb", "virtual")
EXECUTION = ("cluster", "workers", "ledger")
PARAMETERS = ("output", "dest", "where", *OPTIONS, *EXECUTION, "max_segments")


def start(parameters: dict[str, Any]) -> RunSummary:
    """Select, or resume that, with live progress below the cell.

    Raises:
        ConfigError: a parameter is invalid, or no segment is chosen.
        Stopped: the kernel was interrupted.
    """
    options = {name: value for name, value in parameters.items() if name != "max_segments"}
    given = {name: value for name, value in options.items() if not is_off(value, float | str | None)}
    return with_progress(lambda on_tick: select(**given, on_tick=on_tick))


def show_counts(parameters: dict[str, Any]) -> Html:
    """Show segments and hours before and after, by language and reason."""
    return page.with_styles(selection.before_and_after(Dataset(parameters["dest"])))


def show_charts(parameters: dict[str, Any]) -> Html:
    """Draw the main metrics of the selection and of the kept segments of its parent."""
    tables = read_tables(parameters["dest"], examples_per_kind=0, max_segments=parameters["max_segments"])
    return comparison.charts(tables) if tables.others else Html("")


def show_report(parameters: dict[str, Any]) -> Html:
    """Link the quality report of the selection."""
    return selection.report_link(parameters["output"], parameters["dest"])
