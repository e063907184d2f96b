"""Videos that sound the same, in groups: what `duplicates.parquet` of an output says. Without that file, nothing."""

from __future__ import annotations

import pandas as pd

from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables
from audiopipe.report.figure import KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.text import number, plural
from audiopipe.store.parquet import read_table

__all__ = ["duplicates"]

FILE = "duplicates.parquet"
GROUP = ["duplicate_of_language", "duplicate_of"]
MOST_GROUPS, MOST_VIDEOS = 12, 8


def duplicates(data: DatasetTables) -> Html:
    """The largest groups, with the first of each and how similar the others are to it."""
    if FILE not in data.store.list(FILE):
        return Html("")
    rows = read_table(data.store.read(FILE)).to_pandas()
    rows = rows[rows["language"].isin(data.by_language)]
    head = "<h2>Duplicates</h2><p>Videos that sound the same, whatever their names and codecs."
    if not len(rows):
        return Html(f"{head} There are none.</p>")
    out = int(rows["left_out"].sum())
    told = f"{plural(len(rows), 'duplicate')} in {plural(rows.groupby(GROUP).ngroups, 'group')}; "
    told += f"{out:,} are left out of <code>unique_manifest_*.json</code>, none of the tars."
    return page.join(Html(f"{head}</p><p>{told}</p>"), _groups(rows))


def _groups(rows: pd.DataFrame) -> Html:
    groups = sorted(rows.groupby(GROUP, sort=True), key=lambda group: -len(group[1]))
    table = [_group(str(language), str(first), some) for (language, first), some in groups[:MOST_GROUPS]]
    more = len(groups) - len(table)
    note = page.note(f"{more:,} smaller groups are in <code>{FILE}</code>.") if more else Html("")
    head = ["first of the group", "language", "videos", "", "similarity", "the others"]
    return page.join(page.table(head, table, "ll l w"), note)


def _group(language: str, first: str, some: pd.DataFrame) -> list[str | Html]:
    shown = some.sort_values("similarity", ascending=False, kind="stable").head(MOST_VIDEOS)
    others = ", ".join(
        f"<code>{esc(name)}</code> ({esc(spoken)}, {number(near, 2)})"
        for name, spoken, near in zip(
            shown["video_id"], shown["language"], shown["similarity"].astype(float), strict=True
        )
    )
    left = len(some) - len(shown)
    low, high = float(some["similarity"].min()), float(some["similarity"].max())
    span = number(high, 2) if low == high else f"{number(low, 2)} to {number(high, 2)}"
    bar = page.bar([(float(some["similarity"].mean()), KEPT)])
    return [first, language, f"{len(some) + 1:,}", bar, span, Html(others + (f" and {left:,} more" if left else ""))]
