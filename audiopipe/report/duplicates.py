"""Groups of videos that sound the same, as an output's `duplicates.parquet` lists them."""

from __future__ import annotations

import pandas as pd

from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number, pluralize
from audiopipe.store.parquet import read_table

__all__ = ["duplicates"]

FILE = "duplicates.parquet"
GROUP = ["duplicate_of_language", "duplicate_of"]
MAX_GROUPS, MAX_VIDEOS = 12, 8


def duplicates(tables: DatasetTables) -> Html:
    """Show the largest groups with their similarities. Returns an empty piece if the output has no such file."""
    if FILE not in tables.dataset.store.list(FILE):
        return Html("")
    rows = read_table(tables.dataset.store.read(FILE)).to_pandas()
    rows = rows[rows["language"].isin(tables.by_language)]
    heading = "<h2>Duplicates</h2><p>Videos that sound the same, whatever their ids and codecs."
    if not len(rows):
        return Html(f"{heading} There are none.</p>")
    left_out = int(rows["left_out"].sum())
    text = f"{pluralize(len(rows), 'duplicate')} in {pluralize(rows.groupby(GROUP).ngroups, 'group')}. "
    text += (
        f"The files <code>unique_manifest_*.json</code> leave out {pluralize(left_out, 'video')}. The tars contain all."
    )
    return page.join(Html(f"{heading}</p><p>{text}</p>"), _groups(rows))


def _groups(rows: pd.DataFrame) -> Html:
    groups = sorted(rows.groupby(GROUP, sort=True), key=lambda group: -len(group[1]))
    table = [_group(str(language), str(first), members) for (language, first), members in groups[:MAX_GROUPS]]
    hidden = len(groups) - len(table)
    note = page.note(f"{hidden:,} smaller groups are in <code>{FILE}</code>.") if hidden else Html("")
    head = ["first of the group", "language", "videos", "", "similarity", "others"]
    return page.join(page.table(head, table, "ll l w"), note)


def _group(language: str, first: str, members: pd.DataFrame) -> list[str | Html]:
    listed = members.sort_values("similarity", ascending=False, kind="stable").head(MAX_VIDEOS)
    columns = (listed["video_id"], listed["language"], listed["similarity"].astype(float))
    others = ", ".join(
        f"<code>{esc(video_id)}</code> ({esc(spoken)}, {format_number(similarity, 2)})"
        for video_id, spoken, similarity in zip(*columns, strict=True)
    )
    hidden = len(members) - len(listed)
    low, high = float(members["similarity"].min()), float(members["similarity"].max())
    similarity = format_number(high, 2) if low == high else f"{format_number(low, 2)} to {format_number(high, 2)}"
    bar = page.bar([(float(members["similarity"].mean()), KEPT)])
    more = f" and {hidden:,} more" if hidden else ""
    return [first, language, f"{len(members) + 1:,}", bar, similarity, Html(others + more)]
