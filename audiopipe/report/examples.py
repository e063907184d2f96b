"""Segments to look at and listen to: the best, the worst kept ones, and those close to a limit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import soundfile as sf

from audiopipe.dataset.schema import object_names
from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.excerpts import Excerpt, player, spectrogram, waveform
from audiopipe.report.histogram import finite_values
from audiopipe.report.metric_labels import format_metric, metric_name, with_unit
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_duration, humanize
from audiopipe.report.thresholds import Threshold
from audiopipe.scorers.scorer import Column

__all__ = ["MOS", "best", "borderline", "card", "has_mos", "near_misses", "ranks", "worst"]

MOS = "dnsmos_ovrl"
# Without a MOS: the metrics that make a segment good, and whether a higher value is better, with the same weight.
HIGHER_IS_BETTER = {
    "snr_db": True,
    "bandwidth_hz": True,
    "silence_ratio": False,
    "clipping_ratio": False,
    "true_peak_dbtp": False,
}
CHIPS = (MOS, "loudness_lufs", "snr_db", "true_peak_dbtp", "silence_ratio", "clipping_ratio", "bandwidth_hz")
MIN_S = 2.0
MAX_MARGIN = 0.5  # of a borderline segment, in units of `_scale`


def ranks(tables: DatasetTables) -> pd.Series:
    """Return a score of 0 to 1 for each kept segment that is not short: its rank within its language.

    The rank is that of the predicted MOS where the dataset has one, otherwise the mean of several metrics' ranks.
    """
    kept = tables.kept
    kept = kept[kept["duration_s"] >= min(MIN_S, kept["duration_s"].median())] if len(kept) else kept
    groups = kept.groupby("language")
    metrics = [MOS] if has_mos(tables) else tables.present([*HIGHER_IS_BETTER])
    parts = [groups[metric].rank(pct=True, ascending=HIGHER_IS_BETTER.get(metric, True)) for metric in metrics]
    return pd.concat(parts, axis=1).mean(axis=1).dropna() if parts else pd.Series(0.5, index=kept.index)


def has_mos(tables: DatasetTables) -> bool:
    """Check whether the kept segments have a predicted MOS."""
    return MOS in tables.metrics and bool(tables.kept[MOS].notna().any())


def best(tables: DatasetTables) -> Html:
    """Show the kept segments with the highest ranks."""
    cards = _cards(tables, _diverse(tables, ranks(tables).sort_values(ascending=False, kind="stable")))
    return page.join(_ranking(tables), cards)


def _ranking(tables: DatasetTables) -> Html:
    if has_mos(tables):
        return page.note(f"Ranked by <code>{MOS}</code>, the predicted MOS, within each language.")
    names = [metric_name(tables.metrics[metric]) for metric in tables.present([*HIGHER_IS_BETTER])]
    listed = f"the mean rank of {', '.join(names)}" if names else "no metric, as this dataset has none of them"
    return page.note(f"Ranked within each language by {listed}.")


def worst(tables: DatasetTables) -> Html:
    """Show the kept segments with the lowest ranks."""
    return _cards(tables, _diverse(tables, ranks(tables).sort_values(kind="stable")))


def _diverse(tables: DatasetTables, ordered: pd.Series) -> pd.DataFrame:
    """Return the first segments, at most one of each video, with the languages taking turns."""
    rows = tables.segments.loc[ordered.index].drop_duplicates("video_id")
    turn = rows.groupby("language").cumcount()
    return rows.iloc[np.argsort(turn.to_numpy(), kind="stable")].head(tables.examples_per_kind)


def _margins(rows: pd.DataFrame, threshold: Threshold, scale: float) -> pd.Series:
    margins = threshold.margin(rows[threshold.metric]) / scale
    return margins.replace([np.inf, -np.inf], np.nan).dropna()


def _scale(tables: DatasetTables, threshold: Threshold) -> float:
    """Return the range of the metric's middle 80 %, which makes margins of different metrics comparable."""
    values = finite_values(tables.segments[threshold.metric])
    spread = float(np.subtract(*np.percentile(values, [90, 10]))) if len(values) else 0.0
    return spread or abs(threshold.limit) or 1.0


def borderline(tables: DatasetTables) -> Html:
    """Show kept segments that are close to a limit, with the thresholds taking turns."""
    candidates: list[tuple[int, float, int, Threshold]] = []
    for threshold in tables.thresholds:
        margins = _margins(tables.kept, threshold, _scale(tables, threshold)).nsmallest(tables.examples_per_kind)
        ordered = enumerate(zip(margins.index.tolist(), margins.tolist(), strict=True))
        candidates += [(turn, margin, index, threshold) for turn, (index, margin) in ordered if margin < MAX_MARGIN]
    thresholds: dict[int, Threshold] = {}
    for *_, index, threshold in sorted(candidates, key=lambda candidate: candidate[:2]):
        thresholds.setdefault(index, threshold)
    chosen = dict(list(thresholds.items())[: tables.examples_per_kind])
    if not chosen:
        return page.note("No kept segment is close to a limit.")
    return _cards(tables, tables.segments.loc[list(chosen)], chosen)


def near_misses(tables: DatasetTables) -> Html:
    """List the dropped segments that are closest to their limit. The dataset has no audio of them."""
    rows = []
    for threshold in tables.thresholds:
        dropped = tables.segments[tables.segments["drop_reason"] == threshold.reason]
        closest = _margins(dropped, threshold, 1.0).nlargest(tables.examples_per_kind)
        rows += [_near_miss(row, threshold) for _, row in tables.segments.loc[closest.index].iterrows()]
    if not rows:
        return page.note("No segment was dropped by a threshold.")
    head = ["reason", "value", "limit", "language", "video", "from", "to", "text"]
    return page.table(head, rows, "l  ll  w")


def _near_miss(row: pd.Series, threshold: Threshold) -> list[str]:
    return [
        humanize(threshold.reason),
        with_unit(threshold.metric, float(row[threshold.metric])),
        format_metric(threshold.metric, threshold.limit),
        row["language"],
        row["video_id"],
        f"{row['start_s']:.2f} s",
        f"{row['end_s']:.2f} s",
        _text(row) or "–",
    ]


def _cards(tables: DatasetTables, rows: pd.DataFrame, thresholds: dict[int, Threshold] | None = None) -> Html:
    if not len(rows):
        return page.note("There are no such segments.")
    near = thresholds or {}
    return page.grid(
        card(tables, rows.loc[index], _chips(tables, rows.loc[index], near.get(int(index)))) for index in rows.index
    )


def card(tables: DatasetTables, row: pd.Series, chips: str) -> Html:
    """Show one segment: waveform, spectrogram, player, text, `chips` (markup) and position in the video."""
    text = f'<p class="text">“{esc(_text(row))}”</p>' if _text(row) else ""
    times = f"{row['start_s']:.2f} to {row['end_s']:.2f} s ({format_duration(row['duration_s'])})"
    where = f"{esc(row['language'])} · {esc(row['video_id'])} · {times}"
    audio = _audio(tables, row)
    return Html(f'<div class="sample">{audio}{text}<p class="chips">{chips}</p><p class="where">{where}</p></div>')


def _audio(tables: DatasetTables, row: pd.Series) -> str:
    """Read the audio by one ranged read and draw it; an error becomes a line of text."""
    tar = object_names(row["language"], int(row["shard"]))["audio"]
    try:
        excerpt = Excerpt.decode(tables.dataset.store.read_range(tar, int(row["tar_offset"]), int(row["audio_bytes"])))
    except (FileNotFoundError, sf.LibsndfileError) as error:
        advice = page.inline_code("Run `audiopipe verify` to find damaged objects.").markup
        return f"<p>The audio cannot be read: {esc(error)}. {advice}</p>"
    figures = "".join(f"<figure>{figure}</figure>" for figure in (waveform(excerpt), spectrogram(excerpt)))
    return figures + player(excerpt, esc(row["key"]))


def _text(row: pd.Series) -> str:
    """Return the transcript, empty if it is missing, which is NaN in pandas."""
    return row["text"] if isinstance(row["text"], str) else ""


def _chips(tables: DatasetTables, row: pd.Series, threshold: Threshold | None) -> str:
    """Show the main metrics, first the one that is close to its limit."""
    names = CHIPS if threshold is None else tuple(dict.fromkeys((threshold.metric, *CHIPS)))
    return "".join(
        _chip(tables.metrics[name], row, threshold if threshold and threshold.metric == name else None)
        for name in tables.present(names)
    )


def _chip(metric: Column, row: pd.Series, threshold: Threshold | None) -> str:
    label = esc(f"{metric_name(metric)} {with_unit(metric, float(row[metric.name]))}")
    if threshold is None:
        return f"<span>{label}</span>"
    return f'<span class="near">{label}; limit {format_metric(metric, threshold.limit)}</span>'
