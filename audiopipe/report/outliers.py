"""Segments that are unlike the rest of their language: the ones to listen to before anybody trains on them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from audiopipe.kernels import METRICS
from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables
from audiopipe.report.examples import card
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import digits, title
from audiopipe.report.text import number

__all__ = ["outliers", "scores"]

# What a listener would notice. Of the others most say the same again.
WATCHED = (
    *("loudness_lufs", "loudness_range_lu", "crest_db", "dc_offset", "snr_db", "silence_ratio"),
    *("zero_crossing_rate", "spectral_centroid_hz", "spectral_flatness", "bandwidth_hz"),
)
FAR = 4.0
TO_SIGMA = 1.4826  # of a normal distribution, in median absolute deviations


def scores(kept: pd.DataFrame) -> pd.DataFrame:
    """How many robust standard deviations each watched metric of each segment lies from its language's median."""
    values = kept[list(WATCHED)].astype(float).replace([np.inf, -np.inf], np.nan)
    groups = values.groupby(kept["language"])
    away = values - groups.transform("median")
    spread = TO_SIGMA * away.abs().groupby(kept["language"]).transform("median")
    # A metric that is the same in most segments has no spread to measure by.
    return away / spread.where(spread > 0)


def outliers(data: DatasetTables) -> Html:
    """The kept segments that are farthest out, each by another metric and of another video where possible."""
    kept = data.kept
    away = scores(kept).to_numpy(dtype=float)
    far = np.nan_to_num(np.abs(away))
    chosen: dict[str, int] = {}
    videos = set[str]()
    for place in np.argsort(-far, axis=None, kind="stable"):
        row, column = divmod(int(place), len(WATCHED))
        video = str(kept["video_id"].iloc[row])
        if far[row, column] < FAR or len(chosen) == data.examples_per_kind:
            break
        if WATCHED[column] not in chosen and video not in videos:
            chosen[WATCHED[column]] = row
            videos.add(video)
    if not chosen:
        return page.note(f"No kept segment lies {FAR:g} or more standard deviations from its language's median.")
    return page.grid(_outlier(data, row, name, away[row, WATCHED.index(name)]) for name, row in chosen.items())


def _outlier(data: DatasetTables, number_of_row: int, metric: str, sigmas: float) -> Html:
    row = data.kept.iloc[number_of_row]
    median = float(data.kept[data.kept["language"] == row["language"]][metric].median())
    unit = METRICS[metric].unit
    shown = digits(metric)
    told = f"{title(metric).partition(' (')[0]} {number(float(row[metric]), shown)}{'' if unit == '1' else ' ' + unit}"
    told += f": {number(abs(sigmas), 1)} deviations {'above' if sigmas > 0 else 'below'} {row['language']}'s "
    told += f"median of {number(median, shown)}"
    return card(data, row, f"<b>{esc(told)}</b>")
