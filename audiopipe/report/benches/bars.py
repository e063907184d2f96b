"""The bars that the benchmarks have to meet, with where each comes from, what was measured, and whether it is met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from audiopipe.report import page
from audiopipe.report.benches.saved import ResultFile, Saved
from audiopipe.report.figure import BAD
from audiopipe.report.page import Html
from audiopipe.report.text import number, plural

__all__ = ["BARS", "Target", "bars", "headline"]

TODAY, FLOOR, FFMPEG = "today's sequential way", "codec floor", "ffmpeg's C pipeline"
MET = "#1b9e77"
DAY_MIN = 24 * 60


@dataclass(frozen=True)
class Target:
    """A number that must be at least, or below, another. `found` takes it from what was saved."""

    what: str
    anchor: str
    limit: float
    unit: str
    found: Callable[[Saved], tuple[ResultFile, float] | None]
    below: bool = False

    def met(self, value: float) -> bool:
        return value < self.limit if self.below else value >= self.limit

    def told(self, value: float) -> str:
        shown = 0 if abs(value) >= 100 else 2 if abs(value) < 10 else 1
        return f"{number(value, shown)} {self.unit}".strip()


BARS = (
    Target(
        "integrated LUFS on one core, over pyloudnorm",
        "the sequential code spends 45 % of its time there",
        7,
        "times as fast",
        lambda saved: saved.loudness_times("pyloudnorm"),
    ),
    Target(
        "the same, over libebur128",
        "the usual library in C",
        1,
        "times as fast",
        lambda saved: saved.loudness_times("libebur128"),
    ),
    Target(
        "all metrics and resampling on a GPU, from the host and back",
        "the plan wants 80 segments/s of a node; a day for 500,000 videos on one takes 1,200",
        12_000,
        "segments/s",
        lambda saved: saved.gpu_value("(b) pinned host"),
    ),
    Target(
        "the same, of what the bus can copy",
        "nothing can be faster than the copy",
        0.8,
        "of the copy rate",
        lambda saved: saved.gpu_value("(b) share of the pinned copy"),
    ),
    Target(
        "whole pipeline without a GPU, over today's code",
        "26.1 segments/s, 7.56 videos/min: 46 days",
        3,
        "times as fast on one core",
        lambda saved: saved.speed_over(TODAY, gpu=False),
    ),
    Target(
        "whole pipeline with a GPU, over today's code",
        "46 times are needed in all; the rest is cores",
        4.5,
        "times as fast on one core",
        lambda saved: saved.speed_over(TODAY, gpu=True),
    ),
    Target(
        "whole pipeline without a GPU, over ffmpeg's C",
        "decode, one metric, FLAC: about what C can do",
        1,
        "times as fast",
        lambda saved: saved.speed_over(FFMPEG, gpu=False),
    ),
    Target(
        "whole pipeline with a GPU, of the codec floor",
        "decoding and encoding alone, nothing else",
        0.85,
        "of the floor",
        lambda saved: saved.speed_over(FLOOR, gpu=True),
    ),
    Target(
        "two workers and more, of that many times one",
        "2 workers at least 1.9 times one",
        0.95,
        "of linear",
        lambda saved: saved.scaling(),
    ),
    Target(
        "scheduler and ledger, 500,000 videos, work stubbed out",
        "1 % of 24 h",
        0.01 * DAY_MIN,
        "min",
        lambda saved: saved.scale("minutes"),
        below=True,
    ),
    Target(
        "memory of the driver, of the same",
        "a small machine must do",
        2000,
        "MB",
        lambda saved: saved.scale("driver_mb"),
        below=True,
    ),
)


def headline(saved: Saved) -> Html:
    """How many bars are met, and which are not."""
    found = [(bar, bar.found(saved)) for bar in BARS]
    measured = [(bar, value[1]) for bar, value in found if value is not None]
    missed = [bar.what for bar, value in measured if not bar.met(value)]
    cards = [
        (f"{len(measured) - len(missed)} / {len(measured)}", "measured bars are met"),
        (f"{len(found) - len(measured)}", "bars were not measured"),
        (f"{len({file.device for file in saved.files})}", "machines"),
        (f"{saved.files[-1].at:%Y-%m-%d}" if saved.files else "–", "newest measurement"),
    ]
    if not measured:
        told = page.verdict("warn", ["Nothing was measured yet.", "Run <code>audiopipe bench kernels --save</code>."])
    elif missed:
        told = page.verdict("warn", [f"{plural(len(missed), 'bar')} missed: {'; '.join(missed)}."])
    else:
        told = page.verdict("good", ["Every bar that was measured is met."])
    note = page.note("Ratios are of runs side by side on one machine; seconds of different machines say little.")
    return page.styled(page.join(page.cards(cards), told, note))


def bars(saved: Saved) -> Html:
    """Each bar, where it comes from, and what was measured."""
    head = ["what", "anchor", "bar", "measured", "", "on", "date"]
    return page.table(head, [_row(bar, saved) for bar in BARS], "ww  lll")


def _row(bar: Target, saved: Saved) -> list[str | Html]:
    limit = f"{'<' if bar.below else '≥'} {bar.told(bar.limit)}"
    found = bar.found(saved)
    if found is None:
        return [bar.what, bar.anchor, limit, "not measured", "", "", ""]
    file, value = found
    sign = f'<b style="color:{MET}">✓ met</b>' if bar.met(value) else f'<b style="color:{BAD}">✕ missed</b>'
    return [bar.what, bar.anchor, limit, bar.told(value), Html(sign), file.device, f"{file.at:%Y-%m-%d}"]
