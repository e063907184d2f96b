"""Show the largest of many groups by name, and the rest as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

__all__ = ["Groups", "largest"]


class Groups:
    """The groups that have a row or a color, in order, and those that share one.

    Attributes:
        names: the labels in order, that of the others last.
        hidden: the groups that are among the others.
    """

    def __init__(self, shown: Sequence[str], hidden: Sequence[str]) -> None:
        self.hidden = list(hidden)
        self.others = f"{len(hidden):,} others" if hidden else ""
        self.names = [*shown, *([self.others] if hidden else [])]
        self._shown = frozenset(shown)

    def label(self, name: str) -> str:
        """Return the label of a group: its name, or that of the others."""
        return name if name in self._shown else self.others

    def labels(self, column: pd.Series) -> pd.Series:
        """Return the labels of a column of names."""
        result: pd.Series = column.where(column.isin(self._shown), self.others)
        return result


def largest(sizes: Mapping[str, float], limit: int) -> Groups:
    """Choose the groups to show: all up to the limit, else the largest `limit - 1`; both in alphabetical order."""
    names = sorted(sizes)
    if len(names) <= limit:
        return Groups(names, [])
    shown = set(sorted(names, key=lambda name: (-sizes[name], name))[: limit - 1])
    return Groups(*([name for name in names if (name in shown) is kept] for kept in (True, False)))
