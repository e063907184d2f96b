"""Conditions that datasets are usually filtered by, and what each would drop from this one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from audiopipe.conditions import parse_condition
from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED
from audiopipe.report.groups import largest
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number, format_percent

__all__ = ["Suggestion", "condition_table", "dropped_by"]


MAX_COLUMNS = 12  # languages with a column


class Suggestion(NamedTuple):
    """A condition over a column that good segments fulfill, and the defect of the others."""

    defect: str
    column: str
    condition: str


def condition_table(tables: DatasetTables, suggestions: Sequence[Suggestion]) -> Html:
    """Show for each condition how many of the kept segments it would drop, in all and by language.

    Conditions over columns that the dataset lacks are left out. A missing value drops nothing.
    """
    rows: list[list[str | Html]] = []
    kept = tables.kept
    hours = kept["duration_s"] / 3600
    groups = largest(Counter(kept["language"]), MAX_COLUMNS)
    labels = groups.labels(kept["language"])
    for item in (item for item in suggestions if item.column in tables.columns):
        drops = dropped_by(tables, item.condition)
        by_group = labels[drops].value_counts()
        rows.append(
            [
                item.defect,
                Html(f"<code>{esc(item.condition)}</code>"),
                page.bar([(float(drops.mean()) if len(kept) else 0.0, DROPPED)]),
                f"{int(drops.sum()):,}",
                format_percent(int(drops.sum()), len(kept)),
                format_number(float(hours[drops].sum()), 2),
                *(f"{by_group[name]:,}" if name in by_group else "·" for name in groups.names),
            ]
        )
    if not rows:
        return Html("")
    head = ["defect", "condition", "", "segments", "of kept", "hours", *groups.names]
    note = page.note(
        "Nothing applies these by itself. A new run takes them as <code>--keep-if</code>, and keeps segments "
        "without the value. A copy of this dataset takes them as <code>audiopipe select --where</code>, and drops "
        "segments without the value; <code>coalesce(condition, true)</code> takes these too."
    )
    return page.join(page.table(head, rows, "lwl"), note)


def dropped_by(tables: DatasetTables, condition: str) -> pd.Series:
    """Return for each kept segment whether a condition is false; it is not where a value is missing.

    Raises:
        ConfigError: the condition is invalid.
    """
    parsed = parse_condition(condition, tables.dataset.column_types)
    rows = pa.Table.from_pandas(tables.kept[list(parsed.columns)], preserve_index=False)
    failures = parsed.find_failures(rows)
    return pd.Series([failure is not None for failure in failures], index=tables.kept.index, dtype=bool)
