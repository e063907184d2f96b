"""Build pieces of HTML for notebook cells and pages. Text from outside this package goes through `esc`."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from audiopipe.report.css import PIECES

__all__ = [
    "Html",
    "Level",
    "Metadata",
    "bar",
    "bdi",
    "cards",
    "embed_metadata",
    "esc",
    "figure",
    "grid",
    "inline_code",
    "join",
    "legend",
    "note",
    "read_script",
    "table",
    "verdict",
    "with_styles",
]

Level = Literal["good", "warn", "bad"]
# The run of a report: run_id, state, started, ended, at, videos, failed, segments, kept, hours_kept.
Metadata = Mapping[str, str | float | None]
SIGNS = {"good": "✓", "warn": "!", "bad": "✕"}


@dataclass(frozen=True)
class Html:
    """Markup that a notebook renders."""

    markup: str

    def __repr__(self) -> str:
        return f"<{len(self.markup):,} characters of HTML>"

    def _repr_html_(self) -> str:
        return f'<div class="ap">{self.markup}</div>'


def esc(value: object) -> str:
    """Escape a value as text in HTML."""
    return html.escape(str(value))


def bdi(text: object) -> str:
    """Escape a text and isolate it, so that Arabic or Hebrew does not reorder the numbers and commas around it."""
    return f"<bdi>{esc(text)}</bdi>"


def embed_metadata(values: Metadata) -> Html:
    """Embed what the index page shows of the report's run. Browsers do not show it; the index reads it."""
    return Html(f'<template class="metadata">{esc(json.dumps(dict(values), ensure_ascii=False))}</template>')


def with_styles(piece: Html) -> Html:
    """Add the style sheet and the script of figures to a piece, as the first piece of a notebook needs."""
    return Html(f'<style>{PIECES}</style>{piece.markup}<script class="charts">{read_script("charts.js")}</script>')


@cache
def read_script(name: str) -> str:
    """Read a script of this package."""
    return files("audiopipe.report").joinpath("scripts", name).read_text(encoding="utf-8")


def join(*pieces: Html) -> Html:
    """Concatenate pieces."""
    return Html("".join(piece.markup for piece in pieces))


def note(markup: str) -> Html:
    """Show a sentence in a dimmed paragraph."""
    return Html(f'<p class="dim">{markup}</p>')


def inline_code(text: str) -> Html:
    """Escape text and show the parts between backticks as code."""
    return Html(re.sub(r"`([^`]+)`", r"<code>\1</code>", esc(text)))


def cards(items: Iterable[tuple[str, str]]) -> Html:
    """Show headline numbers, given as (value, label)."""
    body = "".join(f'<div class="card"><b>{esc(value)}</b><span>{esc(label)}</span></div>' for value, label in items)
    return Html(f'<div class="cards">{body}</div>')


def verdict(level: Level, sentences: Sequence[str]) -> Html:
    """Show the most important statement of a page. The sentences are markup."""
    first, *rest = sentences
    lines = f'<p><b class="sign">{SIGNS[level]}</b><b>{first}</b></p>' + "".join(f"<p>{line}</p>" for line in rest)
    return Html(f'<div class="verdict {level}" role="status">{lines}</div>')


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], alignment: str = "", total: Sequence[object] | None = None
) -> Html:
    """Show a table that scrolls sideways if it is wide. On a phone, a table with wrapped cells stacks its cells.

    Args:
        alignment: one letter per column: `l` left, `w` left and wrapped, otherwise right.
        total: a last row, in bold.
    """
    classes = [f' class="{letter}"' if letter in ("l", "w") else "" for letter in alignment.ljust(len(head))]
    top = "".join(f"<th{attribute}>{esc(name)}</th>" for name, attribute in zip(head, classes, strict=True))
    stacked = "w" in alignment
    # A stacked cell has no heading above it, so it carries the name of its column.
    attributes = [
        f'{attribute} data-name="{esc(name)}"' if stacked and name else attribute
        for name, attribute in zip(head, classes, strict=True)
    ]
    body = "".join(f"<tr>{_cells(row, attributes)}</tr>" for row in rows)
    last = "" if total is None else f'<tr class="sum">{_cells(total, attributes)}</tr>'
    kind = ' class="stack"' if stacked else ""
    inner = f"<thead><tr>{top}</tr></thead><tbody>{body}{last}</tbody>"
    return Html(f'<div class="wide"><table{kind}>{inner}</table></div>')


def _cells(row: Sequence[object], attributes: Sequence[str]) -> str:
    values = (cell.markup if isinstance(cell, Html) else esc(cell) for cell in row)
    return "".join(f"<td{attribute}>{value}</td>" for value, attribute in zip(values, attributes, strict=True))


def bar(shares: Iterable[tuple[float, str]]) -> Html:
    """Show a small horizontal bar of (share of 1, color)."""
    inner = "".join(f'<i style="width:{100 * max(0.0, share):.2f}%;background:{color}"></i>' for share, color in shares)
    return Html(f'<span class="bar">{inner}</span>')


def legend(colors: Mapping[str, str]) -> Html:
    """Show a legend of names and their colors."""
    entries = "".join(
        f'<span class="entry"><span class="key" style="background:{color}"></span>{esc(name)}</span>'
        for name, color in colors.items()
    )
    return Html(f'<p class="legend">{entries}</p>')


def figure(svg: str, title: str = "", description: str = "") -> Html:
    """Show an inline SVG with a title and a description, which are text."""
    caption = f"<figcaption><b>{esc(title)}</b> {esc(description)}</figcaption>" if title or description else ""
    return Html(f"<figure>{caption}{svg}</figure>")


def grid(pieces: Iterable[Html], two: bool = False) -> Html:
    """Show pieces side by side, as many as fit into the window, or two."""
    return Html(f'<div class="grid{" two" if two else ""}">{"".join(piece.markup for piece in pieces)}</div>')
