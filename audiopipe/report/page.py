"""Pieces of HTML for cells and pages. Everything that others wrote goes through `esc`."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from audiopipe.report.css import PIECES

__all__ = [
    "Html",
    "Level",
    "bar",
    "cards",
    "embed_metadata",
    "esc",
    "figure",
    "grid",
    "inline_code",
    "join",
    "legend",
    "note",
    "table",
    "verdict",
    "with_styles",
]

Level = Literal["good", "warn", "bad"]
SIGNS = {"good": "✓", "warn": "!", "bad": "✕"}


@dataclass(frozen=True)
class Html:
    """Markup that a notebook shows as such."""

    markup: str

    def __repr__(self) -> str:
        return f"<{len(self.markup):,} characters of HTML>"

    def _repr_html_(self) -> str:
        return f'<div class="ap">{self.markup}</div>'


def esc(value: Any) -> str:
    """Text from anywhere as harmless markup."""
    return html.escape(str(value))


def embed_metadata(values: Mapping[str, Any]) -> Html:
    """What the index page is to know of this report's run: not shown, read by `export`."""
    return Html(f'<template class="facts">{esc(json.dumps(dict(values), ensure_ascii=False))}</template>')


def with_styles(piece: Html) -> Html:
    """A piece that brings the style sheet along; the first of a notebook does."""
    return Html(f"<style>{PIECES}</style>{piece.markup}")


def join(*pieces: Html) -> Html:
    return Html("".join(piece.markup for piece in pieces))


def note(markup: str) -> Html:
    """A sentence about what is shown."""
    return Html(f'<p class="dim">{markup}</p>')


def inline_code(text: str) -> Html:
    """Text in which `what is typed` stands between backticks."""
    return Html(re.sub(r"`([^`]+)`", r"<code>\1</code>", esc(text)))


def cards(items: Iterable[tuple[str, str]]) -> Html:
    """Headline numbers with what they are."""
    body = "".join(f'<div class="card"><b>{esc(value)}</b><span>{esc(what)}</span></div>' for value, what in items)
    return Html(f'<div class="cards">{body}</div>')


def verdict(level: Level, sentences: Sequence[str]) -> Html:
    """What is to be known first, in words. The sentences are markup."""
    first, *rest = sentences
    lines = f'<p><b class="sign">{SIGNS[level]}</b><b>{first}</b></p>' + "".join(f"<p>{line}</p>" for line in rest)
    return Html(f'<div class="verdict {level}" role="status">{lines}</div>')


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], alignment: str = "", total: Sequence[Any] | None = None
) -> Html:
    """A table that scrolls sideways where it has to; one with wrapped cells is stacked on a phone.

    Args:
        looks: a letter a column, right-aligned by default: `l` left, `w` left and wrapped.
        total: a last row that stands out.
    """
    classes = [f' class="{look}"' if look in ("l", "w") else "" for look in alignment.ljust(len(head))]
    top = "".join(f"<th{look}>{esc(name)}</th>" for name, look in zip(head, classes, strict=True))
    stacked = "w" in alignment
    # A stacked cell has no heading above it, so it brings its own.
    named = [
        f'{look} data-name="{esc(name)}"' if stacked and name else look
        for name, look in zip(head, classes, strict=True)
    ]
    body = "".join(f"<tr>{_cells(row, named)}</tr>" for row in rows)
    last = "" if total is None else f'<tr class="sum">{_cells(total, named)}</tr>'
    kind = ' class="stack"' if stacked else ""
    inner = f"<thead><tr>{top}</tr></thead><tbody>{body}{last}</tbody>"
    return Html(f'<div class="wide"><table{kind}>{inner}</table></div>')


def _cells(row: Sequence[Any], attributes: Sequence[str]) -> str:
    values = (cell.markup if isinstance(cell, Html) else esc(cell) for cell in row)
    return "".join(f"<td{some}>{value}</td>" for value, some in zip(values, attributes, strict=True))


def bar(shares: Iterable[tuple[float, str]]) -> Html:
    """A small horizontal bar of (share of 1, colour)."""
    inner = "".join(
        f'<i style="width:{100 * max(0.0, share):.2f}%;background:{colour}"></i>' for share, colour in shares
    )
    return Html(f'<span class="bar">{inner}</span>')


def legend(colours: Mapping[str, str]) -> Html:
    entries = "".join(
        f'<span class="entry"><span class="key" style="background:{colour}"></span>{esc(name)}</span>'
        for name, colour in colours.items()
    )
    return Html(f'<p class="legend">{entries}</p>')


def figure(picture: str, title: str = "", about: str = "") -> Html:
    """An inline SVG with its title and what it shows. `title` and `about` are text."""
    caption = f"<figcaption><b>{esc(title)}</b> {esc(about)}</figcaption>" if title or about else ""
    return Html(f"<figure>{caption}{picture}</figure>")


def grid(pieces: Iterable[Html], two: bool = False) -> Html:
    """Pieces side by side, as many as the window is wide, or two."""
    return Html(f'<div class="grid{" two" if two else ""}">{"".join(piece.markup for piece in pieces)}</div>')
