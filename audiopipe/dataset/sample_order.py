"""Put samples first in a tar that have a number for each column of numbers.

Hugging Face's loader takes the types of all sidecars from the first five samples of the first tar. A column that is
null in all five has the type null there, and the first number after them ends the load with an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["FIRST_SAMPLES", "SampleOrder"]

FIRST_SAMPLES = 5  # that the loader looks at

T = TypeVar("T")


@dataclass
class SampleOrder(Generic[T]):
    """Holds samples back until the first five of a tar can have a number for each column, then passes them on.

    Their order changes only as far as that needs. It depends on the samples alone.

    Args:
        names: the columns of numbers.
    """

    names: Collection[str]
    _waiting: list[tuple[frozenset[str], T]] = field(default_factory=list)
    _examples: dict[frozenset[str], int] = field(default_factory=dict)  # the first waiting sample of each set
    _is_open: bool = False

    def add(self, sample: T, present: Iterable[str]) -> Iterator[T]:
        """Take the next sample; yield those that can be written.

        Args:
            present: the columns that have a value in it.
        """
        if self._is_open:
            yield sample
            return
        numbers = frozenset(self.names).intersection(present)
        is_new = numbers not in self._examples
        self._examples.setdefault(numbers, len(self._waiting))
        self._waiting.append((numbers, sample))
        if is_new and self._covered(self._choose()) >= set(self.names):
            yield from self.finish()

    def finish(self) -> Iterator[T]:
        """Yield the samples that wait: those with the most numbers between them first."""
        self._is_open = True
        first = sorted(self._choose())
        waiting, self._waiting, self._examples = self._waiting, [], {}
        yield from (waiting[number][1] for number in first)
        chosen = set(first)
        yield from (sample for number, (_, sample) in enumerate(waiting) if number not in chosen)

    def _choose(self) -> list[int]:
        """Choose at most five waiting samples, each with the most numbers that those before it lack."""
        chosen: list[int] = []
        missing = set(self.names)
        while missing and len(chosen) < FIRST_SAMPLES:
            gains = {present: (len(present & missing), -first) for present, first in self._examples.items()}
            best = max(gains, key=lambda present: gains[present], default=None)
            if best is None or not best & missing:
                break
            chosen.append(self._examples[best])
            missing -= best
        return chosen

    def _covered(self, numbers: Iterable[int]) -> set[str]:
        return set().union(*(self._waiting[number][0] for number in numbers))
