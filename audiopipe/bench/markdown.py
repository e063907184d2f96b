"""Format tables of results as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["format_markdown"]


def format_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table with a row of headings."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))
