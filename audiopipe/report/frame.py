"""The page around a report's pieces: how it stands and what is in it first, then the pieces, then what made it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from audiopipe import __version__
from audiopipe.ledger.record import parse_utc
from audiopipe.report.css import PAGE, PIECES
from audiopipe.report.page import esc
from audiopipe.report.text import format_duration, format_time

__all__ = ["provenance", "render_page"]

PAGE_OF = """<!DOCTYPE html>
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
<footer>{made}</footer>
</main>
<script>{script}</script>
</body>
</html>
"""
SCRIPT = "scripts/tables.js"
HEADING = re.compile(r"<h2[^>]*>(.*?)</h2>", re.DOTALL)
VERDICT = re.compile(r'<div class="verdict \w+" role="status">.*?</div>', re.DOTALL)
TAGS = re.compile(r"<[^>]+>")
MANY = 3  # headings, from which on a page has a list of them


def render_page(title: str, body: str, made: str, meta: str = "") -> str:
    """A whole page.

    Args:
        title: as text.
        body: markup, with its first heading; `made` and `meta` are markup too.
    """
    script = files("audiopipe.report").joinpath(SCRIPT).read_text(encoding="utf-8")
    whole = _led(*_contents(body))
    return PAGE_OF.format(meta=meta, title=esc(title), css=PIECES + PAGE, body=whole, made=made, script=script)


def provenance(notebook: str | None = None, papermill: Mapping[str, Any] | None = None) -> str:
    """By which version, from which notebook, when, for how long and with which parameters: as markup."""
    told = [f"audiopipe {esc(__version__)}", *([esc(notebook)] if notebook else [])]
    facts = papermill or {}
    if facts.get("start_time") and facts.get("duration"):
        told.append(f"executed {format_time(parse_utc(facts['start_time']))} in {format_duration(facts['duration'])}")
    given = " ".join(f"{name}={value}" for name, value in facts.get("parameters", {}).items())
    return " · ".join([*told, *([f"with <code>{esc(given)}</code>"] if given else [])])


def _contents(body: str) -> tuple[str, str]:
    """The body with a name on each heading, and links to them if there are many."""
    links: list[str] = []

    def named(heading: re.Match[str]) -> str:
        links.append(f'<a href="#part-{len(links) + 1}">{TAGS.sub("", heading[1])}</a>')
        return f'<h2 id="part-{len(links)}">{heading[1]}</h2>'

    body = HEADING.sub(named, body)
    return body, f'<nav aria-label="Contents">{"".join(links)}</nav>' if len(links) >= MANY else ""


def _led(body: str, contents: str) -> str:
    """The body with its contents below the title, and before them how it ended if that stands further down."""
    verdicts = list(VERDICT.finditer(body))
    below = bool(verdicts) and "<h2" in body[: verdicts[0].start()]
    glance = f'<div class="ap">{verdicts[-1][0]}</div>' if below else ""
    head, title, rest = body.partition("</h1>")
    return f"{head}{title}{glance}{contents}{rest}" if title else f"{glance}{contents}{body}"
