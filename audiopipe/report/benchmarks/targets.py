"""The targets of the benchmarks: the reason for each, what was measured, and whether the target is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from audiopipe.report import page
from audiopipe.report.benchmarks.results import Measurement, ResultFiles
from audiopipe.report.benchmarks.rows import AUDIOPIPE, COMMAND
from audiopipe.report.figure import BAD
from audiopipe.report.page import Html
from audiopipe.report.text import format_number, pluralize

__all__ = ["TARGETS", "Target", "headline", "targets"]

# Names of pipelines in the saved files.
SEQUENTIAL, FLOOR, FFMPEG = "sequential", "codec floor", "ffmpeg"
MET = "#1b9e77"
DAY_MIN = 24 * 60


@dataclass(frozen=True)
class Target:
    """A limit for a measured number: at least `limit`, or below it. `measure` takes the number from saved files."""

    name: str
    reason: str
    limit: float
    unit: str
    measure: Callable[[ResultFiles], Measurement | None]
    below: bool = False

    def is_met(self, value: float) -> bool:
        return value < self.limit if self.below else value >= self.limit

    def format(self, value: float) -> str:
        digits = 0 if abs(value) >= 100 else 2 if abs(value) < 10 else 1
        return f"{format_number(value, digits)} {self.unit}".strip()


TARGETS = (
    Target(
        "integrated LUFS on one core, relative to pyloudnorm",
        "pyloudnorm takes 45 % of the sequential code's time",
        7,
        "times as fast",
        lambda results: results.loudness_ratio("pyloudnorm"),
    ),
    Target(
        "integrated LUFS on one core, relative to libebur128",
        "libebur128 is the usual C library",
        1,
        "times as fast",
        lambda results: results.loudness_ratio("libebur128"),
    ),
    Target(
        "all metrics and resampling on a GPU, copies to and from the GPU included",
        "500,000 videos in a day on one node need 1,200 segments/s; the plan document asks for 80 per node",
        12_000,
        "segments/s",
        lambda results: results.gpu_value("(b) pinned host"),
    ),
    Target(
        "all metrics and resampling on a GPU, relative to the copy alone",
        "the copy over the bus is the lower bound",
        0.8,
        "of the copy rate",
        lambda results: results.gpu_value("(b) share of the pinned copy"),
    ),
    Target(
        "whole pipeline on one core without a GPU, relative to the sequential code",
        "the sequential code does 26.1 segments/s, 7.56 videos/min: 46 days in all",
        3,
        "times as fast",
        lambda results: results.speed_ratio(SEQUENTIAL, gpu=False),
    ),
    Target(
        "whole pipeline on one core with a GPU, relative to the sequential code",
        "one day needs 46 times the speed; more cores give the rest",
        4.5,
        "times as fast",
        lambda results: results.speed_ratio(SEQUENTIAL, gpu=True),
    ),
    Target(
        "audiopipe run on one core without a GPU, relative to ffmpeg's C code",
        "the fastest ffmpeg of the machine decodes, measures one metric and encodes FLAC",
        1.2,
        "times as fast",
        lambda results: results.speed_ratio(FFMPEG, gpu=False, method=COMMAND),
    ),
    Target(
        "audiopipe run on one core without a GPU, Opus, relative to the codec floor",
        "the codec floor only decodes and encodes; half of the machines to rent have no GPU",
        0.64,
        "of the floor",
        lambda results: results.speed_ratio(FLOOR, gpu=False, method=COMMAND, codec="opus"),
    ),
    Target(
        "audiopipe run on one core without a GPU, AAC, relative to the codec floor",
        "AAC decodes three times as fast as Opus, so that the other stages count more",
        0.45,
        "of the floor",
        lambda results: results.speed_ratio(FLOOR, gpu=False, method=COMMAND, codec="aac"),
    ),
    Target(
        "whole pipeline on one core with a GPU, relative to the codec floor",
        "the codec floor only decodes and encodes",
        0.85,
        "of the floor",
        lambda results: results.speed_ratio(FLOOR, gpu=True),
    ),
    Target(
        "speed per worker with several workers, relative to one worker",
        "2 workers must do at least 1.9 times the work of one",
        0.95,
        "of linear",
        lambda results: results.scaling(),
    ),
    Target(
        "DNSMOS on one core, relative to speechmos, segments of 30 s",
        "speechmos computes each window of 9 s from its start",
        2,
        "times as fast",
        lambda results: results.scorer_row("dnsmos", "speechmos", 30.0),
    ),
    Target(
        "DNSMOS P.835 on one core, relative to onnxruntime, one window",
        "onnxruntime is the usual runtime of this network",
        1,
        "times as fast",
        lambda results: results.scorer_row("dnsmos P.835", "onnxruntime, single windows", 9.01),
    ),
    Target(
        "DNSMOS P.808 on one core, relative to librosa and onnxruntime, one window",
        "onnxruntime is the usual runtime of this network",
        1,
        "times as fast",
        lambda results: results.scorer_row("dnsmos P.808", "librosa + onnxruntime, single windows", 9.01),
    ),
    Target(
        "DNSMOS on a GPU, segments of 5 s",
        "500,000 videos in a day on one node need 1,200 segments/s",
        1_200,
        "segments/s",
        lambda results: results.scorer_row("dnsmos", AUDIOPIPE, 5.0, "cuda"),
    ),
    Target(
        "scheduler and ledger, 500,000 videos, stubbed work",
        "1 % of 24 h",
        0.01 * DAY_MIN,
        "min",
        lambda results: results.scale(lambda row: row.minutes),
        below=True,
    ),
    Target(
        "driver memory, 500,000 videos, stubbed work",
        "a small machine must be enough",
        2000,
        "MB",
        lambda results: results.scale(lambda row: row.driver_mb),
        below=True,
    ),
)


def headline(results: ResultFiles) -> Html:
    """Show how many targets are met, and name the missed ones."""
    measurements = [(target, target.measure(results)) for target in TARGETS]
    values = [(target, measurement.value) for target, measurement in measurements if measurement is not None]
    missed = [target.name for target, value in values if not target.is_met(value)]
    cards = [
        (f"{len(values) - len(missed)} / {len(values)}", "measured targets are met"),
        (f"{len(TARGETS) - len(values)}", "targets were not measured"),
        (f"{len({file.device for file in results.files})}", "machines"),
        (f"{results.files[-1].measured_at:%Y-%m-%d}" if results.files else "–", "newest measurement"),
    ]
    if not values:
        verdict = page.verdict(
            "warn", ["No target is measured yet.", "Run <code>audiopipe bench kernels --save</code>."]
        )
    elif missed:
        verdict = page.verdict("warn", [f"{pluralize(len(missed), 'target')} missed: {'; '.join(missed)}."])
    else:
        verdict = page.verdict("good", ["Every measured target is met."])
    note = page.note("Ratios compare runs on the same machine. Times on different machines cannot be compared.")
    return page.with_styles(page.join(page.cards(cards), verdict, note))


def targets(results: ResultFiles) -> Html:
    """Show each target with its reason and the measured value."""
    head = ["target", "reason", "limit", "measured", "", "machine", "date"]
    return page.table(head, [_row(target, results) for target in TARGETS], "ww  lll")


def _row(target: Target, results: ResultFiles) -> list[str | Html]:
    limit = f"{'<' if target.below else '≥'} {target.format(target.limit)}"
    measurement = target.measure(results)
    if measurement is None:
        return [target.name, target.reason, limit, "not measured", "", "", ""]
    file, value = measurement
    mark = f'<b style="color:{MET}">✓ met</b>' if target.is_met(value) else f'<b style="color:{BAD}">✕ missed</b>'
    return [
        target.name,
        target.reason,
        limit,
        target.format(value),
        Html(mark),
        file.device,
        f"{file.measured_at:%Y-%m-%d}",
    ]
