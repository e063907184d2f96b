"""Say at which sample rate the columns of scorers were measured."""

from __future__ import annotations

from functools import cached_property

from audiopipe.dataset.run_record import ScorerRecord
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.text import format_number, format_percent
from audiopipe.scorers.registry import known_columns

__all__ = ["SampleRates"]

SIGNAL = "signal"
MAX_RATES = 2


class SampleRates:
    """The sample rates of a dataset's columns.

    A run measures the scorer `signal` at the source's rate, before resampling. Everything else, annotations included,
    is measured on the emitted audio, at the rate that the scorer asks for.
    """

    def __init__(self, tables: DatasetTables) -> None:
        self._tables = tables

    @cached_property
    def _at_source(self) -> frozenset[str]:
        records = [record for record in self._tables.dataset.run.scorers if record.name == SIGNAL]
        return frozenset(column.name for record in records for column in record.columns)

    @cached_property
    def _rates(self) -> dict[str, int]:
        """Return the rate of each column that is measured on emitted audio by a scorer that is known here."""
        run = self._tables.dataset.run
        emitted = int(str(run.config["sample_rate"]))
        wanted = {
            column.name: scorer.sample_rate or emitted for scorer, column in known_columns() if scorer.needs_audio
        }
        added = () if run.parent is None else map(ScorerRecord.from_dict, run.parent["annotations"])
        columns = {column.name for record in (*run.scorers, *added) for column in record.columns}
        # A file of values may have any column name, so that only those of scorers count.
        scored = [item for item in self._tables.dataset.annotations if "scorer" in item.record.source]
        columns |= {column.name for item in scored for column in item.columns}
        return {name: rate for name, rate in wanted.items() if name in columns and name not in self._at_source}

    @cached_property
    def _source(self) -> str:
        """Return the rates of the sources, the most frequent first."""
        rates = self._tables.segments["source_rate_hz"].dropna().astype(int).value_counts()
        shown = [
            f"{_kilohertz(int(str(rate)))} in {format_percent(int(count), int(rates.sum()))}"
            for rate, count in rates.head(MAX_RATES).items()
        ]
        return ", ".join([*shown, *(["other rates"] if len(rates) > MAX_RATES else [])])

    def describe(self, column: str) -> str:
        """Return the sample rate of a column as `measured at 16 kHz; `; empty where it is not known."""
        if column in self._at_source:
            return "measured at the source's sample rate; "
        return f"measured at {_kilohertz(self._rates[column])}; " if column in self._rates else ""

    def describe_sources(self) -> str:
        """Return a sentence about the rates of the sources; empty if nothing was measured at them."""
        if not self._at_source or not self._source:
            return ""
        return f"The sample rate of the source, before resampling, is {self._source} of the segments."


def _kilohertz(rate: int) -> str:
    return f"{format_number(rate / 1000, 0 if rate % 1000 == 0 else 1)} kHz"
