"""Segments to look at and listen to: the best, the worst that were kept, and those close to a limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from audiopipe.dataset.commit import Commit
from audiopipe.errors import VerifyError
from audiopipe.kernels import METRICS
from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables, Rule
from audiopipe.report.excerpts import BLOCK, Excerpt, find_member, outline, player, spectrogram
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import digits, title
from audiopipe.report.text import format_duration, humanize, number

__all__ = ["best", "borderline", "card", "dropped", "ranks", "worst"]

# What makes a segment good: of each the rank counts, by language, whatever the unit. True: more is better.
GOOD = {"snr_db": True, "bandwidth_hz": True, "silence_ratio": False, "clipping_ratio": False, "true_peak_dbtp": False}
CHIPS = ("loudness_lufs", "snr_db", "true_peak_dbtp", "silence_ratio", "clipping_ratio", "bandwidth_hz")
SHORTEST_S = 2.0
NEAR = 0.5  # of the ruler


def ranks(data: DatasetTables) -> pd.Series[float]:
    """A score of 0 to 1 for each kept segment that is not short: the mean of its ranks within its language."""
    kept = data.kept
    kept = kept[kept["duration_s"] >= min(SHORTEST_S, kept["duration_s"].median())] if len(kept) else kept
    groups = kept.groupby("language")
    parts = [groups[name].rank(pct=True, ascending=more) for name, more in GOOD.items()]
    return pd.concat(parts, axis=1).mean(axis=1)


def best(data: DatasetTables) -> Html:
    return _shown(data, _different(data, ranks(data).sort_values(ascending=False, kind="stable")))


def worst(data: DatasetTables) -> Html:
    return _shown(data, _different(data, ranks(data).sort_values(kind="stable")))


def _different(data: DatasetTables, ordered: pd.Series[float]) -> pd.DataFrame:
    """The first of them, each of another language as long as there are some, and never two of a video."""
    rows = data.segments.loc[ordered.index].drop_duplicates("video_id")
    turn = rows.groupby("language").cumcount()
    return rows.iloc[np.argsort(turn.to_numpy(), kind="stable")].head(data.examples_per_kind)


def _distances(rows: pd.DataFrame, rule: Rule, ruler: float) -> pd.Series[float]:
    distance = rule.distance(rows[rule.metric]) / ruler
    return distance.replace([np.inf, -np.inf], np.nan).dropna()


def _ruler(data: DatasetTables, rule: Rule) -> float:
    """What makes distances to different limits comparable: the metric's middle 80 %, else the limit itself."""
    values = data.segments[rule.metric].replace([np.inf, -np.inf], np.nan).dropna()
    spread = float(np.subtract(*np.percentile(values, [90, 10]))) if len(values) else 0.0
    return spread or abs(rule.limit) or 1.0


def borderline(data: DatasetTables) -> Html:
    """Kept segments that a limit just let pass, one for each limit in turn."""
    found: list[tuple[int, float, int, Rule]] = []
    for rule in data.rules:
        near = _distances(data.kept, rule, _ruler(data, rule)).nsmallest(data.examples_per_kind)
        ranked = enumerate(zip(near.index.tolist(), near.tolist(), strict=True))
        found += [(turn, distance, index, rule) for turn, (index, distance) in ranked if distance < NEAR]
    chosen: dict[int, Rule] = {}
    for *_, index, rule in sorted(found, key=lambda item: item[:2]):
        chosen.setdefault(index, rule)
    picked = dict(list(chosen.items())[: data.examples_per_kind])
    if not picked:
        return page.note("No kept segment is near a limit.")
    return _shown(data, data.segments.loc[list(picked)], picked)


def dropped(data: DatasetTables) -> Html:
    """Dropped segments that were closest to being kept. Their audio is not in the dataset, so there is none to play."""
    rows = []
    for rule in data.rules:
        mine = data.segments[data.segments["drop_reason"] == rule.reason]
        near = _distances(mine, rule, 1.0).nlargest(data.examples_per_kind)
        rows += [_dropped(row, rule) for _, row in data.segments.loc[near.index].iterrows()]
    if not rows:
        return page.note("No segment was dropped by a threshold.")
    head = ["reason", "value", "limit", "language", "video", "from", "to", "text"]
    return page.table(head, rows, "l  ll  w")


def _dropped(row: pd.Series, rule: Rule) -> list[str]:
    shown = digits(rule.metric)
    unit = METRICS[rule.metric].unit
    value = number(float(row[rule.metric]), shown) + ("" if unit == "1" else f" {unit}")
    times = [f"{row['start_s']:.2f} s", f"{row['end_s']:.2f} s"]
    return [
        humanize(rule.reason),
        value,
        number(rule.limit, shown),
        row["language"],
        row["video_id"],
        *times,
        _text(row) or "–",
    ]


def _shown(data: DatasetTables, rows: pd.DataFrame, near: dict[int, Rule] | None = None) -> Html:
    if not len(rows):
        return page.note("There are no such segments.")
    near = near or {}
    return page.grid(card(data, rows.loc[index], _chips(rows.loc[index], near.get(int(index)))) for index in rows.index)


def card(data: DatasetTables, row: pd.Series[Any], label: str) -> Html:
    """One segment: pictures, player, what is told of it (markup), and where it is from."""
    try:
        excerpt = Excerpt.of(_audio(data, row))
        pictures = "".join(f"<figure>{drawn}</figure>" for drawn in (outline(excerpt), spectrogram(excerpt)))
        picture = pictures + player(excerpt, esc(row["key"]))
    except (VerifyError, FileNotFoundError) as error:
        picture = f"<p>Its audio cannot be read: {esc(error)}</p>"
    text = f'<p class="text">“{esc(_text(row))}”</p>' if _text(row) else ""
    times = f"{row['start_s']:.2f} to {row['end_s']:.2f} s ({format_duration(row['duration_s'])})"
    where = f"{esc(row['language'])} · {esc(row['video_id'])} · {times}"
    return Html(f'<div class="sample">{picture}{text}<p class="chips">{label}</p><p class="where">{where}</p></div>')


def _chips(row: pd.Series[Any], rule: Rule | None) -> str:
    return "".join(_chip(row, name, rule) for name in _names(rule))


def _text(row: pd.Series) -> str:
    """What is said, if it is known; pandas has NaN for what is not."""
    return row["text"] if isinstance(row["text"], str) else ""


def _names(rule: Rule | None) -> Iterable[str]:
    return CHIPS if rule is None else (rule.metric, *(name for name in CHIPS if name != rule.metric))


def _chip(row: pd.Series, metric: str, rule: Rule | None) -> str:
    unit = METRICS[metric].unit
    name = title(metric).partition(" (")[0]
    told = f"{name} {number(float(row[metric]), digits(metric))}" + ("" if unit == "1" else f" {unit}")
    if rule is None or rule.metric != metric:
        return f"<span>{esc(told)}</span>"
    return f'<span class="near">{esc(told)}; limit {number(rule.limit, digits(metric))}</span>'


def _audio(data: DatasetTables, row: pd.Series) -> bytes:
    commit = _commit(data, row)
    tar = next(item for item in commit.objects if item.name.endswith(".tar"))
    return find_member(data.store, tar.name, tar.size, row["key"], _guess(data, row, tar.size))


def _commit(data: DatasetTables, row: pd.Series) -> Commit:
    return data.commits[f"{row['language']}-{int(row['shard']):06d}"]


def _guess(data: DatasetTables, row: pd.Series, size: int) -> int:
    """About where a sample is in its tar: after the audio before it, and an even share of all that is not audio."""
    kept = data.kept
    shard = kept[(kept["language"] == row["language"]) & (kept["shard"] == row["shard"])]
    padded = -(-shard["audio_bytes"].to_numpy(dtype=np.int64) // BLOCK) * BLOCK
    before = int(np.flatnonzero(shard.index == row.name)[0])
    beside = (size - int(padded.sum())) / max(len(shard), 1)
    return int(padded[:before].sum() + before * beside) // BLOCK * BLOCK
