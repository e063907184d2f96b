"""Outliers: kept segments that differ from the rest of their language, to check before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.examples import card
from audiopipe.report.metric_labels import SIGNAL, format_metric, metric_name, with_unit
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number
from audiopipe.scorers.scorer import Column

__all__ = ["outliers", "scores"]

# The signal's metrics whose outliers are audible. Most of its others are correlated with these.
AUDIBLE = (
    *("loudness_lufs", "loudness_range_lu", "crest_db", "dc_offset", "snr_db", "silence_ratio"),
    *("zero_crossing_rate", "spectral_centroid_hz", "spectral_flatness", "bandwidth_hz"),
)
MIN_SCORE = 4.0
SIGMA_PER_MAD = 1.4826  # standard deviation over median absolute deviation, of a normal distribution


def _metrics(tables: DatasetTables) -> list[str]:
    """Return the audible metrics of the signal, and those of all other scorers."""
    return [name for name in tables.metrics if name in AUDIBLE or name not in SIGNAL]


def scores(kept: pd.DataFrame, metrics: Sequence[str] = AUDIBLE) -> pd.DataFrame:
    """Return each metric's distance from the median of the segment's language, in robust standard deviations."""
    values = kept[list(metrics)].astype(float).replace([np.inf, -np.inf], np.nan)
    languages = kept["language"]
    distance = values - values.groupby(languages).transform("median")
    sigma = SIGMA_PER_MAD * distance.abs().groupby(languages).transform("median")
    # A metric that is equal in most segments has no spread to measure with.
    return distance / sigma.where(sigma > 0)


def outliers(tables: DatasetTables) -> Html:
    """Show the kept segments with the largest scores, each in another metric and of another video."""
    kept, metrics = tables.kept, _metrics(tables)
    if not metrics:
        return page.note("This dataset has no metrics.")
    signed = scores(kept, metrics).to_numpy(dtype=float)
    size = np.nan_to_num(np.abs(signed))
    chosen: dict[str, int] = {}
    videos = set[str]()
    for position in np.argsort(-size, axis=None, kind="stable"):
        row, column = divmod(int(position), len(metrics))
        video, metric = str(kept["video_id"].iloc[row]), metrics[column]
        if size[row, column] < MIN_SCORE or len(chosen) == tables.examples_per_kind:
            break
        if metric not in chosen and video not in videos:
            chosen[metric] = row
            videos.add(video)
    if not chosen:
        return page.note(f"No kept segment is {MIN_SCORE:g} or more standard deviations from its language's median.")
    return page.grid(
        _outlier(tables, row, tables.metrics[metric], signed[row, metrics.index(metric)])
        for metric, row in chosen.items()
    )


def _outlier(tables: DatasetTables, position: int, metric: Column, score: float) -> Html:
    row = tables.kept.iloc[position]
    median = float(tables.kept[tables.kept["language"] == row["language"]][metric.name].median())
    label = f"{metric_name(metric)} {with_unit(metric, float(row[metric.name]))}: "
    label += f"{format_number(abs(score), 1)} deviations {'above' if score > 0 else 'below'} "
    label += f"the median of {row['language']}, {format_metric(metric, median)}"
    return card(tables, row, f"<b>{esc(label)}</b>")
