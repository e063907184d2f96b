"""Render the page around a report: its verdict and contents first, then the pieces, then the provenance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from audiopipe import __version__
from audiopipe.ledger.record import parse_utc
from audiopipe.report import page
from audiopipe.report.css import PAGE, PIECES
from audiopipe.report.page import esc
from audiopipe.report.text import format_duration, format_time

__all__ = ["provenance", "render_page"]

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
{meta}
<title>{title} · audiopipe</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
<footer>{provenance}</footer>
</main>
<script>{script}</script>
</body>
</html>
"""
SCRIPTS = ("tables.js", "charts.js")
HEADING = re.compile(r"<h2[^>]*>(.*?)</h2>", re.DOTALL)
VERDICT = re.compile(r'<div class="verdict \w+" role="status">.*?</div>', re.DOTALL)
TAGS = re.compile(r"<[^>]+>")
MIN_HEADINGS = 3  # a page with fewer has no list of contents


def render_page(title: str, body: str, provenance: str, meta: str = "") -> str:
    """Render a complete HTML page.

    Args:
        title: text.
        body: markup, with its first heading; `provenance` and `meta` are markup too.
    """
    script = "\n".join(page.read_script(name) for name in SCRIPTS)
    body, contents = _make_contents(body)
    return TEMPLATE.format(
        meta=meta,
        title=esc(title),
        css=PIECES + PAGE,
        body=_add_top(body, contents),
        provenance=provenance,
        script=script,
    )


def provenance(notebook: str | None = None, papermill: Mapping[str, Any] | None = None) -> str:
    """Describe the origin of a page as markup: version, notebook, date, duration and parameters.

    Args:
        papermill: the metadata that papermill stores in a notebook.
    """
    parts = [f"audiopipe {esc(__version__)}", *([esc(notebook)] if notebook else [])]
    metadata = papermill or {}
    if metadata.get("start_time") and metadata.get("duration"):
        start = format_time(parse_utc(metadata["start_time"]))
        parts.append(f"executed {start} in {format_duration(metadata['duration'])}")
    if parameters := " ".join(f"{name}={value}" for name, value in metadata.get("parameters", {}).items()):
        parts.append(f"with <code>{esc(parameters)}</code>")
    return " · ".join(parts)


def _make_contents(body: str) -> tuple[str, str]:
    """Give each heading an id; return the body, and links to the headings if there are many."""
    links: list[str] = []

    def add_id(heading: re.Match[str]) -> str:
        links.append(f'<a href="#part-{len(links) + 1}">{TAGS.sub("", heading[1])}</a>')
        return f'<h2 id="part-{len(links)}">{heading[1]}</h2>'

    body = HEADING.sub(add_id, body)
    return body, f'<nav aria-label="Contents">{"".join(links)}</nav>' if len(links) >= MIN_HEADINGS else ""


def _add_top(body: str, contents: str) -> str:
    """Insert below the title the contents and, if no verdict is there, a copy of the last verdict of the page."""
    verdicts = list(VERDICT.finditer(body))
    is_further_down = bool(verdicts) and "<h2" in body[: verdicts[0].start()]
    verdict = f'<div class="ap">{verdicts[-1][0]}</div>' if is_further_down else ""
    head, title, rest = body.partition("</h1>")
    return f"{head}{title}{verdict}{contents}{rest}" if title else f"{verdict}{contents}{body}"
