"""The findings of the scorer `speakers`: how many speak in a segment, overlaps, and the hours of labeled speakers."""

from __future__ import annotations

import pandas as pd

from audiopipe.report import page
from audiopipe.report.conditions import Suggestion, condition_table
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, NEUTRAL
from audiopipe.report.page import Html
from audiopipe.report.sources import labeled_speakers
from audiopipe.report.text import format_number, format_percent

__all__ = ["speakers"]

SPEAKERS, OVERLAP = "speakers", "overlap_ratio"
SUGGESTIONS = (
    Suggestion("not one speaker", SPEAKERS, "speakers = 1"),
    Suggestion("overlapping speakers", OVERLAP, "overlap_ratio <= 0.1"),
    Suggestion("the main speaker says too little", "main_speaker_ratio", "main_speaker_ratio >= 0.9"),
)
COUNTS = ("no speaker", "1 speaker", "2 speakers", "3 or more")
COLORS = (NEUTRAL, KEPT, DROPPED, "#d0457b")
OVERLAPPING = 0.1  # of the speech


def speakers(tables: DatasetTables) -> Html:
    """Show the speakers of the kept segments. Returns an empty piece without the scorer and without labels."""
    labels = labeled_speakers(tables)
    heading = Html("<h2>Speakers</h2>")
    if SPEAKERS not in tables.columns:
        return page.join(heading, labels) if labels.markup else Html("")
    if not tables.kept[SPEAKERS].notna().any():
        return page.join(heading, page.note("The speakers of no kept segment are known."), labels)
    return page.join(heading, _counts(tables), condition_table(tables, SUGGESTIONS), labels)


def _counts(tables: DatasetTables) -> Html:
    """Show a row for each language: the shares of segments by number of speakers, and overlaps."""
    groups = [*tables.kept.groupby("language"), ("all", tables.kept)]
    *rows, last = [_row(str(name), rows) for name, rows in groups if len(rows)]
    head = ["language", "", *COUNTS, "median overlap", f"overlap above {100 * OVERLAPPING:.0f} %"]
    legend = page.legend(dict(zip(COUNTS, COLORS, strict=True)))
    note = page.note(
        "Kept segments by the number of speakers with at least 0.25 s of speech. The overlap is the share of the "
        "speech in which two or more speak at once."
    )
    return page.join(note, page.table(head, rows, "ll", last), legend)


def _row(name: str, rows: pd.DataFrame) -> list[str | Html]:
    counted = rows[SPEAKERS].dropna()
    counts = [int((counted == number).sum()) for number in range(3)]
    counts.append(len(counted) - sum(counts))
    shares = [count / max(1, len(counted)) for count in counts]
    overlap = rows[OVERLAP].dropna() if OVERLAP in rows else pd.Series(dtype=float)
    return [
        name,
        page.bar(zip(shares, COLORS, strict=True)),
        *(f"{count:,} ({format_percent(count, len(counted))})" if count else "·" for count in counts),
        format_number(float(overlap.median()), 3),
        format_percent(int((overlap > OVERLAPPING).sum()), len(overlap)),
    ]
