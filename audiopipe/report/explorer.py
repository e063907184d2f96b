"""Move a threshold and see what would be kept: in the page itself, from its own copy of the scores, without a network.

The page judges by the rules of `score.py`, on the values that the Parquet tables hold, in their own precision: what it
says for a run's own limits is what the run did.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from audiopipe.kernels import METRICS
from audiopipe.pipeline.score import RULES
from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables
from audiopipe.report.figure import KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import digits, title
from audiopipe.report.text import humanize, number

__all__ = ["explorer"]

MOST = 60_000  # segments in the page: each takes about 40 bytes of it
STEPS = 200
SCRIPT = "scripts/thresholds.js"


def explorer(data: DatasetTables) -> Html:
    """Sliders for every threshold there is, with what they would keep. Those of the run are where they stand first."""
    rows = data.segments
    if len(rows) > MOST:
        rows = rows.sample(MOST, random_state=0).sort_index()
    if not len(rows):
        return page.note("There are no segments.")
    rules = [_rule(rule, data) for rule in RULES]
    languages = sorted(rows["language"].unique())
    body = _body(rows, rules, languages)
    inputs = "".join(_slider(rule) for rule in rules)
    bars = "".join(
        f'<div data-language class="row"><span>{esc(name)}</span>'
        f'<span class="bar"><i style="background:{KEPT}"></i></span><span class="told"></span></div>'
        for name in languages
    )
    told = "".join(
        f'<div class="card"><b data-out="{name}">–</b><span>{what}</span></div>'
        for name, what in (
            ("segments", "segments would be kept"),
            ("share", "of all segments"),
            ("hours", "would be kept"),
            ("change", "come back / are lost"),
        )
    )
    note = f"Of {len(rows):,} segments" + (" drawn at random" if len(rows) < data.total.segments else "")
    note += "; the dataset is not changed. To have it so, start a run with these parameters into another output:"
    script = files("audiopipe.report").joinpath(SCRIPT).read_text(encoding="utf-8")
    return Html(
        f'<div class="explorer"><div class="cards">{told}</div><div class="rules">{inputs}</div>'
        f'<p><button type="button">back to this run\'s limits</button></p><div class="langs">{bars}</div>'
        f'<p class="dim">{note} <code data-out="parameters"></code></p>'
        f'<script type="application/json">{_inline(body)}</script><script>{script}</script></div>'
    )


def _inline(body: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(body).replace("<", "\\u003c")


def _rule(rule: tuple[str, str, str, Any], data: DatasetTables) -> dict[str, Any]:
    reason, metric, field, _ = rule
    configured = data.run.config.get(field)
    limit = None if configured is None else float(configured)
    values = data.segments[metric].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    low, high = (float(edge) for edge in (np.percentile(finite, [0.2, 99.8]) if len(finite) else (0.0, 1.0)))
    low, high = min(low, limit if limit is not None else low), max(high, limit if limit is not None else high)
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-6) / STEPS))
    low, high = float(np.floor(low / step) * step), float(np.ceil(high / step) * step)
    below = field.startswith("min_")
    # A rule that is off starts where it would drop nothing.
    start = limit if limit is not None else low if below else high
    numbers = {"min": _tidy(low), "max": _tidy(high), "step": _tidy(step), "start": _tidy(start)}
    return {"reason": reason, "metric": metric, "field": field, "below": below, "limit": limit, **numbers}


def _tidy(value: float) -> float:
    """Without the last bits of a binary fraction."""
    return float(f"{value:.10g}")


def _slider(rule: dict[str, Any]) -> str:
    metric, field = rule["metric"], rule["field"]
    unit = METRICS[metric].unit
    span = f'min="{rule["min"]}" max="{rule["max"]}" step="{rule["step"]}" value="{rule["start"]}"'
    checked = " checked" if rule["limit"] is not None else ""
    was = "off in this run" if rule["limit"] is None else f"{number(rule['limit'], max(digits(metric), 1))} in this run"
    what = f"{title(metric)} {'at least' if rule['below'] else 'at most'}"
    return (
        f'<div data-rule class="row"><label><input type="checkbox"{checked} aria-label="{field} on"> <b>{esc(what)}</b>'
        f'<small>{esc(humanize(rule["reason"]))} · {was}</small></label><input type="range" {span} aria-label="{field}">'
        f'<span><input type="number" step="any" value="{rule["start"]}" aria-label="{field} exactly"> '
        f'{"" if unit == "1" else unit}</span><span class="told"></span></div>'
    )


def _body(rows: pd.DataFrame, rules: list[dict[str, Any]], languages: list[str]) -> dict[str, Any]:
    """The scores as the tables have them, in base64."""
    reasons = [rule["reason"] for rule in rules]
    # What was dropped before it was measured is dropped by any limit.
    excluded = ~rows["kept"] & ~rows["drop_reason"].isin(reasons)
    numbers = pd.Series(range(len(languages)), index=languages)
    columns = {rule["metric"]: _packed(rows[rule["metric"]], "<f4") for rule in rules}
    return {
        "rules": rules,
        "languages": languages,
        "metrics": columns,
        "seconds": _packed(rows["duration_s"], "<f4"),
        "language": _packed(rows["language"].map(numbers), "u1"),
        "excluded": _packed(excluded, "u1"),
        "kept": _packed(rows["kept"], "u1"),
    }


def _packed(values: pd.Series[Any], dtype: str) -> str:
    return base64.b64encode(values.to_numpy().astype(dtype).tobytes()).decode()
