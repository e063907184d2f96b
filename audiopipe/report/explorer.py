"""The threshold explorer: move a limit and see how many segments it would keep.

It runs in the page, without network, on a copy of the metrics in the precision of the Parquet tables, in which DuckDB
compares too. It applies the thresholds in the pipeline's order, so for the run's own limits it shows exactly what the
run kept. It ends with the commands for these limits: `audiopipe select`, which copies segments that have audio, and the
parameters of a new run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

import numpy as np
import pandas as pd

from audiopipe.pipeline.drop_rules import RULES
from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import KEPT
from audiopipe.report.histogram import finite_values
from audiopipe.report.metric_labels import SIGNAL, digits, metric_title
from audiopipe.report.page import Html, esc
from audiopipe.report.segment_table.columns import sql_name
from audiopipe.report.text import format_number, humanize
from audiopipe.scorers.scorer import Column

__all__ = ["explorer"]

MAX_BYTES = 900_000  # of the page, which limits the segments in it
FIXED_BYTES = 9  # of a segment: the duration, the language and three flags; a metric takes 4 more
STEPS = 200
SCRIPT = "scripts/thresholds.js"
RESULTS = (
    ("segments", "segments would be kept"),
    ("share", "of all segments"),
    ("hours", "would be kept"),
    ("change", "gained / lost"),
    ("selected", "can be copied by select"),
)
# Columns of scorers whose high values are the bad ones. Every other number of a scorer gets a minimum.
MAXIMA = ("speakers", "overlap_ratio", "characters_per_s", "repeated_ngram_ratio", "stock_phrase_ratio", "mark_ratio")


@dataclass(frozen=True)
class Slider:
    """One threshold in the page: its limit in the run, None if it is off, and the slider's range and position.

    `parameter` names it: the run's parameter, or the side and the column, as in `min_dnsmos_ovrl`. `column` is the
    column as SQL, `reason` is empty where no parameter of a run has this limit.
    """

    reason: str
    metric: str
    column: str
    parameter: str
    is_minimum: bool
    limit: float | None
    min: float
    max: float
    step: float
    start: float


@dataclass(frozen=True)
class Payload:
    """The data of the page. Columns are base64 of little-endian float32, language of uint16, the last three of uint8.

    `output` and `selection` are addresses, `chosen` the option for some languages, `scope` a condition that leaves out
    what the explorer never keeps, `keep_if` that of the run.
    """

    output: str
    selection: str
    chosen: str
    scope: str
    keep_if: str
    sliders: Sequence[Slider]
    languages: Sequence[str]
    metrics: dict[str, str]
    duration_s: str
    language: str
    excluded: str
    kept: str
    has_audio: str

    def to_json(self) -> str:
        """Return JSON that cannot end the script element around it."""
        return json.dumps(asdict(self)).replace("<", "\\u003c")


def explorer(tables: DatasetTables) -> Html:
    """Show a slider for each threshold, set to the run's limit, and how much all of them would keep."""
    rows = tables.segments
    if not len(rows):
        return page.note("There are no segments.")
    sliders = _sliders(tables)
    if not sliders:
        return page.note("This dataset has no metrics.")
    limit = MAX_BYTES * 3 // 4 // (FIXED_BYTES + 4 * len(sliders))  # Base64 writes three bytes as four
    if len(rows) > limit:
        rows = rows.sample(limit, random_state=0).sort_index()
    # The largest first, because a page shows some and scrolls to the others.
    languages = list(rows["language"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index)
    bars = "".join(
        f'<div data-language class="row"><span>{esc(name)}</span>'
        f'<span class="bar"><i style="background:{KEPT}"></i></span><span class="count"></span></div>'
        for name in languages
    )
    cards = "".join(
        f'<div class="card"><b data-result="{name}">–</b><span>{label}</span></div>' for name, label in RESULTS
    )
    sampled = " drawn at random" if len(rows) < tables.total.segments else ""
    note = f"Computed from {len(rows):,} segments{sampled}. The dataset is not changed."
    script = files("audiopipe.report").joinpath(SCRIPT).read_text(encoding="utf-8")
    return Html(
        f'<div class="explorer"><div class="cards">{cards}</div>'
        f'<div class="panels"><div class="rules">'
        f"{''.join(_row(slider, tables.metrics[slider.metric]) for slider in sliders)}</div>"
        f'<div class="langs">{bars}</div></div>'
        f'<p><button type="button">Reset to this run\'s limits</button></p>'
        f'<p class="dim">{note}</p>{_commands()}'
        f'<script type="application/json">{_payload(tables, rows, sliders, languages).to_json()}</script>'
        f"<script>{script}</script></div>"
    )


def _commands() -> str:
    """Show what applies the limits: a copy of the dataset, on the command line and in a notebook, or a new run."""
    return "".join(
        f'<p class="dim">{text}</p><pre class="command"><code data-result="{name}"></code></pre>'
        for name, text in (
            ("select", "A copy of the segments that pass and have audio, without decoding:"),
            ("papermill", "The same on a cluster, with a report:"),
            ("parameters", "Parameters of a new run into another output, which also finds what this run dropped:"),
        )
    )


def _sliders(tables: DatasetTables) -> list[Slider]:
    """Return the sliders of the run's thresholds, and of the numbers of all other scorers that have values."""
    named = [(reason, metric, parameter) for reason, metric, parameter, _ in RULES if metric in tables.metrics]
    others = [
        ("", name, f"{'max' if name in MAXIMA else 'min'}_{name}")
        for name in tables.metrics
        if name not in SIGNAL and len(finite_values(tables.segments[name]))
    ]
    return [_slider(reason, metric, parameter, tables) for reason, metric, parameter in (*named, *others)]


def _slider(reason: str, metric: str, parameter: str, tables: DatasetTables) -> Slider:
    configured = tables.config.get(parameter) if reason else None
    limit = None if configured is None else float(configured)
    values = finite_values(tables.segments[metric])
    low, high = (float(edge) for edge in (np.percentile(values, [0.2, 99.8]) if len(values) else (0.0, 1.0)))
    low, high = min(low, limit if limit is not None else low), max(high, limit if limit is not None else high)
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-6) / STEPS))
    low, high = float(np.floor(low / step) * step), float(np.ceil(high / step) * step)
    is_minimum = parameter.startswith("min_")
    # A threshold that is off starts where it drops nothing.
    start = limit if limit is not None else low if is_minimum else high
    column = sql_name(metric, tables.dataset.column_types[metric])
    return Slider(reason, metric, column, parameter, is_minimum, limit, *map(_round, (low, high, step, start)))


def _round(value: float) -> float:
    """Remove the rounding error of binary fractions."""
    return float(f"{value:.10g}")


def _row(slider: Slider, metric: Column) -> str:
    parameter, unit = slider.parameter, metric.unit
    span = f'min="{slider.min}" max="{slider.max}" step="{slider.step}" value="{slider.start}"'
    checked = "" if slider.limit is None else " checked"
    limit = "off" if slider.limit is None else format_number(slider.limit, max(digits(metric), 1))
    title = f"{metric_title(metric)} {'at least' if slider.is_minimum else 'at most'}"
    return (
        f'<div data-threshold class="row">'
        f'<label><input type="checkbox"{checked} aria-label="{parameter} on"> <b>{esc(title)}</b>'
        f"<small>{esc(f'{humanize(slider.reason)} · {limit} in this run' if slider.reason else metric.name)}</small>"
        f"</label>"
        f'<input type="range" {span} aria-label="{parameter}">'
        f'<span><input type="number" step="any" value="{slider.start}" aria-label="{parameter} value"> '
        f'{"" if unit == "1" else esc(unit)}</span><span class="count"></span></div>'
    )


def _payload(tables: DatasetTables, rows: pd.DataFrame, sliders: list[Slider], languages: list[str]) -> Payload:
    # Segments that were dropped before they were measured, or by keep_if, are dropped by any limit.
    reasons = [slider.reason for slider in sliders if slider.reason]
    excluded = ~rows["kept"] & ~rows["drop_reason"].isin(reasons)
    has_audio = rows["tar_offset"].notna()
    listed = ", ".join(f"'{reason}'" for reason in reasons)
    scope = f"(kept OR drop_reason IN ({listed}))" if reasons else "kept"
    indices = pd.Series(range(len(languages)), index=languages)
    return Payload(
        output=tables.dataset.url,
        selection=f"{tables.dataset.url.rstrip('/')}-selected",
        chosen="" if tables.language == "all" else tables.language,
        scope=scope if (excluded & has_audio).any() else "",
        keep_if=str(tables.config.get("keep_if") or ""),
        sliders=sliders,
        languages=languages,
        metrics={slider.metric: _encode(rows[slider.metric], "<f4") for slider in sliders},
        duration_s=_encode(rows["duration_s"], "<f4"),
        language=_encode(rows["language"].map(indices), "<u2"),
        excluded=_encode(excluded, "u1"),
        kept=_encode(rows["kept"], "u1"),
        has_audio=_encode(has_audio, "u1"),
    )


def _encode(column: pd.Series, dtype: str) -> str:
    return base64.b64encode(column.to_numpy().astype(dtype).tobytes()).decode()
