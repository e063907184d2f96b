"""Render the index page of a folder of reports: every run with its state, dates and totals, and links to its reports.

Each exported page carries the metadata of its run in its head. The index is made from these pages alone, so it is
correct wherever the folder is copied to. Links are relative.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from urllib.parse import quote

from audiopipe.report import page
from audiopipe.report.page import Html, Metadata, esc
from audiopipe.report.text import format_number, format_percent, pluralize
from audiopipe.store.objects import Store
from audiopipe.store.retry import with_retries

__all__ = ["FOLDER", "NAME", "meta_tag", "render_index"]

FOLDER, NAME = "reports", "index.html"
HEAD_BYTES = 32_768  # the style sheet is in the head too
META = re.compile(r'<meta name="audiopipe-report" content="([^"]*)">')
STATES = {"done": "✓ done", "running": "… running", "incomplete": "✕ not finished", "failed": "✕ failed"}
COLUMNS = (
    *("run", "state", "started (UTC)", "ended (UTC)", "videos", "failed", "segments kept", "hours kept"),
    "reports",
)
RUN_ID_LETTERS = 13


@dataclass(frozen=True)
class Report:
    """An exported page and the metadata of its run."""

    name: str
    title: str
    metadata: Metadata


def meta_tag(title: str, metadata: Metadata) -> str:
    """Return the element that a page carries for the index."""
    body = json.dumps({"title": title, **metadata}, ensure_ascii=False)
    return f'<meta name="audiopipe-report" content="{html.escape(body)}">'


def render_index(folder: Store) -> Html:
    """Render the index of a folder: its runs, the newest first, then reports without a run."""
    names = [name for name in folder.list() if name.endswith(".html") and "/" not in name and name != NAME]
    reports = [report for name in names if (report := _read_report(folder, name))]
    runs: dict[str, list[Report]] = {}
    for report in reports:
        runs.setdefault(str(report.metadata.get("run_id") or ""), []).append(report)
    others = runs.pop("", [])
    rows = [_format_row(run_id, reports_of_run) for run_id, reports_of_run in runs.items()]
    rows.sort(key=lambda row: str(row[2]), reverse=True)
    pieces = [page.note(f"{pluralize(len(reports), 'report')} of {pluralize(len(runs), 'run')}, the newest first.")]
    if rows:
        pieces.append(page.table(COLUMNS, rows, "llll    w"))
    if others:
        pieces += [Html("<h2>Without a run</h2>"), Html(f"<p>{_format_links(others)}</p>")]
    return page.join(*pieces)


def _read_report(folder: Store, name: str) -> Report | None:
    """Read the head of a page; return None if `export_notebook` did not write it."""
    path = folder.path(name)
    head = with_retries(f"reading {folder.url}/{name}", lambda: folder.fs.cat_file(path, start=0, end=HEAD_BYTES))
    match = META.search(bytes(head).decode("utf-8", errors="replace"))
    if match is None:
        return None
    metadata = json.loads(html.unescape(match[1]))
    return Report(name, str(metadata.pop("title", name)), metadata)


def _format_row(run_id: str, reports: list[Report]) -> list[str | Html]:
    """Format the row of a run; each value is that of the most recent report that has it."""
    values: dict[str, str | float] = {}
    for report in sorted(reports, key=lambda report: str(report.metadata.get("at", ""))):
        values |= {name: value for name, value in report.metadata.items() if value is not None}
    state = str(values.get("state", "–"))
    kept, segments = _number(values, "kept"), _number(values, "segments")
    return [
        run_id[:RUN_ID_LETTERS] + ("…" if len(run_id) > RUN_ID_LETTERS else ""),
        STATES.get(state, state),
        str(values.get("started", "–"))[:16].replace("T", " "),
        str(values.get("ended", "–"))[:16].replace("T", " "),
        format_number(_number(values, "videos")),
        format_number(_number(values, "failed")),
        f"{kept:,.0f} / {segments:,.0f} ({format_percent(kept, segments)})" if kept is not None and segments else "–",
        format_number(_number(values, "hours_kept"), 2),
        Html(_format_links(reports)),
    ]


def _number(values: dict[str, str | float], name: str) -> float | None:
    value = values.get(name)
    return None if value is None else float(value)


def _format_links(reports: list[Report]) -> str:
    ordered = sorted(reports, key=lambda report: (report.title, report.name))
    return " · ".join(
        f'<a href="{esc(_to_url(report.name))}" title="{esc(report.name)}">{esc(report.title)}</a>'
        for report in ordered
    )


def _to_url(name: str) -> str:
    """Return a relative link: percent-encoded, and with a prefix so that no part of it is read as a scheme."""
    return "./" + quote(name)
