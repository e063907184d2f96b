"""Read the text of a report's HTML, as the tests compare it."""

from __future__ import annotations

import html
import re

from audiopipe.report.page import Html

__all__ = ["text_of"]


def text_of(piece: Html, with_figures: bool = False) -> str:
    """Return the visible text, with single spaces. The text inside figures is left out by default."""
    inline = r"</?bdi>"  # no space around it
    hidden = r"<style>.*?</style>|<[^>]+>" if with_figures else r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>"
    return html.unescape(re.sub(r"\s+", " ", re.sub(hidden, " ", re.sub(inline, "", piece.markup), flags=re.DOTALL)))
