"""The findings of the scorer `speakers`: how many speak in a segment, overlaps, and the hours of labeled speakers."""

from __future__ import annotations

import pandas as pd

from audiopipe.report import page
from audiopipe.report.conditions import Suggestion, condition_table
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, NEUTRAL
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number, format_percent, pluralize

__all__ = ["speakers"]

SPEAKERS, OVERLAP = "speakers", "overlap_ratio"
SUGGESTIONS = (
    Suggestion("not one speaker", SPEAKERS, "speakers = 1"),
    Suggestion("overlapping speakers", OVERLAP, "overlap_ratio <= 0.1"),
    Suggestion("the main speaker says too little", "main_speaker_ratio", "main_speaker_ratio >= 0.9"),
)
COUNTS = ("no speaker", "1 speaker", "2 speakers", "3 or more")
COLORS = (NEUTRAL, KEPT, DROPPED, "#d0457b")
MAX_SPEAKERS = 10
OVERLAPPING = 0.1  # of the speech


def speakers(tables: DatasetTables) -> Html:
    """Show the speakers of the kept segments. Returns an empty piece if the scorer was not used."""
    if SPEAKERS not in tables.columns:
        return Html("")
    heading = Html("<h2>Speakers</h2>")
    if not tables.kept[SPEAKERS].notna().any():
        return page.join(heading, page.note("The speakers of no kept segment are known."))
    labels = _labels(tables) if tables.kept["speaker"].notna().any() else Html("")
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


def _labels(tables: DatasetTables) -> Html:
    """Show the hours of labeled speakers. A label names a speaker within a video, not across videos."""
    kept = tables.kept
    labeled = kept[kept["speaker"].notna()]
    hours = labeled.groupby(["language", "video_id", "speaker"])["duration_s"].agg(["sum", "count"])
    hours = hours.sort_values("sum", ascending=False, kind="stable")
    share = format_percent(float(labeled["duration_s"].sum()), float(kept["duration_s"].sum()))
    median_s = float(hours["sum"].median())
    text = f"{pluralize(len(hours), 'speaker')} with a label in {pluralize(labeled['video_id'].nunique(), 'video')}, "
    text += f"in {share} of the kept time; the median speaker has {format_number(median_s / 60, 1)} min. "
    text += "A label names a speaker within a video: the same label in another video is another speaker."
    largest = float(hours["sum"].iloc[0])
    rows = [
        [
            row["language"],
            Html(f"<code>{esc(row['video_id'])}</code>"),
            row["speaker"],
            page.bar([(row["sum"] / largest, KEPT)]),
            format_number(row["sum"] / 3600, 3),
            f"{row['count']:,}",
        ]
        for _, row in hours.head(MAX_SPEAKERS).reset_index().iterrows()
    ]
    head = ["language", "video", "speaker", "", "hours", "segments"]
    title = Html(f"<h4>Labeled speakers{f', the {MAX_SPEAKERS} with most' if len(hours) > MAX_SPEAKERS else ''}</h4>")
    return page.join(title, page.note(text), page.table(head, rows, "llll"))
