"""The index page of a folder of reports: every run with its state, dates and totals, and links to its reports.

Each exported page carries in its head what is known of its run; the index is made of these pages alone, so it is right
wherever the folder was copied to. Links are relative.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from audiopipe.report import page
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number, format_percent, pluralize
from audiopipe.store.objects import Store
from audiopipe.store.retry import with_retries

__all__ = ["FOLDER", "NAME", "meta_tag", "render_index"]

FOLDER, NAME = "reports", "index.html"
HEAD_BYTES = 32_768  # the style sheet is in the head too
META = re.compile(r'<meta name="audiopipe-report" content="([^"]*)">')
STATES = {"done": "✓ done", "running": "… running", "incomplete": "✕ not finished", "failed": "✕ failed"}


@dataclass(frozen=True)
class Report:
    """An exported page and what it says of its run."""

    name: str
    title: str
    facts: dict[str, Any]


def meta_tag(title: str, metadata: dict[str, Any]) -> str:
    """The element that a page carries for the index."""
    told = json.dumps({"title": title, **metadata}, ensure_ascii=False)
    return f'<meta name="audiopipe-report" content="{html.escape(told)}">'


def render_index(folder: Store) -> Html:
    """What the index of a folder shows: runs, the newest first, then reports of no run."""
    names = [name for name in folder.list() if name.endswith(".html") and "/" not in name and name != NAME]
    reports = [found for name in names if (found := _read(folder, name))]
    runs: dict[str, list[Report]] = {}
    for report in reports:
        runs.setdefault(str(report.facts.get("run_id") or ""), []).append(report)
    others = runs.pop("", [])
    rows = sorted((_run(run_id, some) for run_id, some in runs.items()), key=lambda row: str(row[2]), reverse=True)
    head = [
        "run",
        "state",
        "started (UTC)",
        "ended (UTC)",
        "videos",
        "failed",
        "segments kept",
        "hours kept",
        "reports",
    ]
    pieces = [page.note(f"{pluralize(len(reports), 'report')} of {pluralize(len(runs), 'run')}, the newest first.")]
    if rows:
        pieces.append(page.table(head, rows, "llll    w"))
    if others:
        pieces += [Html("<h2>Of no run</h2>"), Html(f"<p>{_links(others)}</p>")]
    return page.join(*pieces)


def _read(folder: Store, name: str) -> Report | None:
    """A page that `export` wrote; None for any other. Of a large page no more than its head is fetched."""
    path = folder.path(name)
    head = with_retries(f"reading {folder.url}/{name}", lambda: folder.fs.cat_file(path, start=0, end=HEAD_BYTES))
    found = META.search(bytes(head).decode("utf-8", errors="replace"))
    if found is None:
        return None
    facts = json.loads(html.unescape(found[1]))
    return Report(name, str(facts.pop("title", name)), facts)


def _run(run_id: str, reports: list[Report]) -> list[str | Html]:
    """One row: of each fact what the report that looked last says."""
    facts: dict[str, Any] = {}
    for report in sorted(reports, key=lambda report: str(report.facts.get("at", ""))):
        facts |= {name: value for name, value in report.facts.items() if value is not None}
    state = str(facts.get("state", "–"))
    kept, segments, hours = facts.get("kept"), facts.get("segments"), facts.get("hours_kept")
    return [
        run_id[:13] + ("…" if len(run_id) > 13 else ""),
        STATES.get(state, state),
        str(facts.get("started", "–"))[:16].replace("T", " "),
        str(facts.get("ended", "–"))[:16].replace("T", " "),
        format_number(facts.get("videos")),
        format_number(facts.get("failed")),
        f"{kept:,} / {segments:,} ({format_percent(kept, segments)})" if kept is not None and segments else "–",
        format_number(hours, 2),
        Html(_links(reports)),
    ]


def _links(reports: list[Report]) -> str:
    ordered = sorted(reports, key=lambda report: (report.title, report.name))
    return " · ".join(
        f'<a href="{esc(_url(one.name))}" title="{esc(one.name)}">{esc(one.title)}</a>' for one in ordered
    )


def _url(name: str) -> str:
    """A relative link: percent-encoded, and never taken for a scheme."""
    return "./" + quote(name)
