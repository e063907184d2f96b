"""The tables of the quality report: exact totals from the commits, and the segments of all shards or of a sample.

Everything is read from the output, at any URL, without the ledger. Memory is bounded: about `max_segments` segments are
held, in whole shards drawn at random from each language in proportion.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.selection import read_selection
from audiopipe.dataset.totals import Totals
from audiopipe.errors import AudiopipeError, ConfigError
from audiopipe.report.numbers import RunNumbers
from audiopipe.report.thresholds import Threshold, active_thresholds
from audiopipe.scorers.scorer import Column
from audiopipe.types import DeadLetter

__all__ = ["PARAMETERS", "DatasetTables", "read_tables"]

LOG = logging.getLogger(__name__)
PARENT = "parent"
PARAMETERS = ("output", "language", "examples_per_kind", "max_segments", "seed", "compare_with")
MAX_EXAMPLES, MAX_SEGMENTS = 12, 10**7
COLUMNS = (
    *("key", "video_id", "language", "shard", "segment", "start_s", "end_s", "duration_s", "text", "speaker"),
    *("kept", "drop_reason", "tar_offset", "audio_bytes", "source_rate_hz"),
)
SOURCE_COLUMNS = ("title", "channel")  # of the catalog, where segments carry them


@dataclass(frozen=True)
class DatasetTables:
    """The tables of an output, or of some of its languages.

    `segments` has a row for each segment of the shards that were read, with the columns of all scorers and annotations
    but lists. `others` are outputs to compare with, `language` the parameter of `read_tables`.
    """

    dataset: Dataset
    segments: pd.DataFrame
    examples_per_kind: int
    others: tuple[DatasetTables, ...] = ()
    language: str = "all"

    @property
    def other(self) -> DatasetTables | None:
        """Return the first output to compare with."""
        return self.others[0] if self.others else None

    @property
    def by_language(self) -> dict[str, Totals]:
        return self.dataset.totals

    @cached_property
    def total(self) -> Totals:
        return Totals.of(self.dataset.results.values())

    @cached_property
    def numbers(self) -> RunNumbers:
        """Return the numbers that all pages share; its videos are those of the committed shards."""
        return RunNumbers.of_totals(self.total)

    @property
    def is_sample(self) -> bool:
        return len(self.segments) < self.total.segments

    @property
    def kept(self) -> pd.DataFrame:
        return self.segments[self.segments["kept"]]

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Return the columns of scorers and annotations in `segments` by name, in their order."""
        return {column.name: column for column in self.dataset.score_columns if column.type != "floats"}

    @property
    def metrics(self) -> Mapping[str, Column]:
        """Return those of them that are numbers."""
        return {name: column for name, column in self.columns.items() if column.type in ("float", "int")}

    def present(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that are metrics of this dataset, for not every scorer was used in every run."""
        return [name for name in names if name in self.metrics]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        return [letter for result in self.dataset.results.values() for letter in result.dead_letters]

    @property
    def config(self) -> Mapping[str, str | float | bool | None]:
        """Return the run's parameters."""
        return self.dataset.run.config

    @property
    def thresholds(self) -> list[Threshold]:
        """Return the run's thresholds that are on, in the order in which the pipeline applies them."""
        return [threshold for threshold in active_thresholds(self.config) if threshold.metric in self.metrics]


def read_tables(
    output: str,
    language: str = "all",
    examples_per_kind: int = 3,
    max_segments: int = 200_000,
    seed: int = 0,
    compare_with: str | None = "parent",
) -> DatasetTables:
    """Read an output's commits and segments.

    Args:
        language: 'all', or names separated by commas.
        examples_per_kind: the number of examples of each kind: best, worst, borderline and so on.
        max_segments: the approximate maximum of segments to hold; of a larger dataset a sample of shards is read.
        seed: the seed of that sample.
        compare_with: other outputs, separated by commas, which become `DatasetTables.others`; "parent" is the dataset
            from which this one was selected, if it was and if that can still be read.

    Raises:
        ConfigError: a parameter is out of range, or nothing is committed yet.
        PlanError, VerifyError: the URL is not the output of a run, or the output is damaged.
    """
    _check_range("examples_per_kind", examples_per_kind, 0, MAX_EXAMPLES)
    _check_range("max_segments", max_segments, 1, MAX_SEGMENTS)
    dataset = _select_languages(Dataset(output), language)
    sample = dataset.select_shards(_sample(dataset.commits, max_segments, seed))
    addresses = [address.strip() for address in (compare_with or "").split(",") if address.strip()]
    compared = (_read_other(dataset, address, language, max_segments, seed) for address in addresses)
    others = tuple(other for other in compared if other is not None)
    scores = [column.name for column in dataset.score_columns if column.type != "floats"]
    carried = [name for name in SOURCE_COLUMNS if name not in scores and _is_scalar(dataset, name)]
    return DatasetTables(dataset, sample.to_pandas([*COLUMNS, *carried, *scores]), examples_per_kind, others, language)


def _is_scalar(dataset: Dataset, name: str) -> bool:
    """Check whether the segments have a column of this name that is not of lists."""
    return not dataset.column_types.get(name, "[]").endswith("[]")


def _read_other(
    dataset: Dataset, compare_with: str, language: str, max_segments: int, seed: int
) -> DatasetTables | None:
    if compare_with != PARENT:
        return read_tables(compare_with, language, 0, max_segments, seed, None)
    selection = read_selection(dataset.run)
    if selection is None:
        return None
    try:
        return read_tables(selection.url, language, 0, max_segments, seed, None)
    except (AudiopipeError, OSError) as error:
        LOG.warning("the dataset that %s was selected from cannot be read: %s", dataset.url, error)
        return None


def _check_range(parameter: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"parameter '{parameter}' {value!r}: must be a whole number from {low} to {high:,}")


def _select_languages(dataset: Dataset, language: str) -> Dataset:
    languages = {shard: commit.result.language for shard, commit in dataset.commits.items()}
    if not languages:
        raise ConfigError(f"output {dataset.url!r} has no committed shard: wait for the first one")
    if language == "all":
        return dataset
    names = {name.strip() for name in language.split(",")}
    known = set(languages.values())
    if names - known:
        raise ConfigError(f"parameter 'language' {language!r}: the output has {', '.join(sorted(known))} so far")
    return dataset.select_shards(shard for shard, name in languages.items() if name in names)


def _sample(commits: Mapping[str, Commit], max_segments: int, seed: int) -> list[str]:
    """Return all shards; or random shards of each language, up to its share of `max_segments`."""
    results = [commit.result for commit in commits.values()]
    total = sum(result.segments for result in results)
    if total <= max_segments:
        return list(commits)
    quota = dict.fromkeys((result.language for result in results), 0.0)
    for result in results:
        quota[result.language] += max_segments / total * result.segments
    sample = []
    for index in np.random.default_rng(seed).permutation(len(results)):
        result = results[index]
        if quota[result.language] > 0:
            sample.append(result.shard)
            quota[result.language] -= result.segments
    return sample
