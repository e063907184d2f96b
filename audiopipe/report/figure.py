"""matplotlib figures as inline SVG that take the text color of the page, light or dark.

Text and axes are drawn in a color that nothing else has, which then becomes `currentColor`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from audiopipe.extras import require_extra
from audiopipe.report.chart_data import ChartData, chart_script

__all__ = ["BAD", "DROPPED", "KEPT", "LIMIT", "NEUTRAL", "SERIES", "draw", "series_colors"]

# Distinguishable with any color vision, on white and on black (after Okabe and Ito, and Tol). The last four of the
# series are for many languages, where hue is not enough: they differ in lightness too.
KEPT, DROPPED, LIMIT, BAD, NEUTRAL = "#3b8bc4", "#e08214", "#d0457b", "#d73a3a", "#8a8f98"
SERIES = (
    *("#3b8bc4", "#e08214", "#1b9e77", "#b46fc9", "#c9a400", "#d0457b", "#56b4e9", "#8c6d46"),
    *("#f2a0a8", "#7d8794", "#8fc97c", "#6f63c9"),
)

INK = "#010203"
RC_PARAMS: Any = {  # matplotlib's stubs list every key
    "svg.fonttype": "none",  # text stays text: small, searchable, in the font of the page
    "svg.hashsalt": "audiopipe",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "figure.dpi": 72,
    "image.interpolation": "nearest",
}
POINTS_PER_INCH = 72
CLEANUP = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>", ""),
        (r'<style type="text/css">.*?</style>', ""),  # it would apply to the whole page
        (r'<g id="patch_1">.*?</g>', ""),  # the white background
        (r'<g id="[A-Za-z0-9._]+_\d+">', "<g>"),  # ids that the next figure has too
        (r'(?<=<svg )(?:width|height)="[^"]*" |(?<= )(?:width|height)="[\d.]+pt" ', ""),
        (r"font-family: [^;\"]*", "font-family: inherit"),
        (r"rotate\(-0 [^)]*\)", "rotate(0)"),
        (r"\s*\n\s*", " "),
        (r"> <", "><"),
    )
)
OUTLINE = re.compile(r'(?<![\w-])d="((?:[MLz] ?[-\d. ]*)+)"')
NUMBER = re.compile(r"-?\d+\.?\d*")


def draw(
    plot: Callable[..., None],
    width: int = 460,
    height: int = 200,
    data: ChartData | None = None,
    panels: Sequence[float] = (1,),
) -> str:
    """Return the SVG of one plot, followed by its values if they are given.

    Args:
        plot: a function that draws into the axes it gets.
        width, height: in pixels at full size. The figure shrinks on a narrow screen.
        data: the values that a page shows under the pointer and exports.
        panels: relative heights of axes below each other with a common horizontal axis; `plot` gets all of them.
    """
    # Imported here, so that tables can be printed where the extra is not installed.
    with require_extra("notebooks", "drawing a figure"):
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    buffer = io.StringIO()
    with mpl.rc_context(RC_PARAMS):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), layout=layout)
        axes = list(figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=panels)[:, 0])
        plot(*axes)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        values = "" if data is None else chart_script(data, axes, height)
    return _clean_svg(buffer.getvalue()) + values


def _clean_svg(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in CLEANUP:
        svg = pattern.sub(replacement, svg)
    svg = re.sub(r"<(?:path|use|g|rect|image)\b[^>]*>", _round_coordinates, svg)
    svg = OUTLINE.sub(_shorten_outline, svg)
    return svg.replace(INK, "currentColor").strip()


def _round_coordinates(element: re.Match[str]) -> str:
    """Round the coordinates of an element to a hundredth of a pixel. Text between elements is not touched."""
    return re.sub(r"(?<=[\d])(\.\d{2})\d+", r"\1", element[0])


def _shorten_outline(match: re.Match[str]) -> str:
    """Write a path of straight lines with tenths of a pixel, and one step for each run of steps in a line.

    The histograms of a report are most of its figures, and a half of their bins is empty.
    """
    parts: list[str] = []
    for piece in match[1].replace("Z", "z").split("M")[1:]:
        closed = "z" in piece
        numbers = [round(float(number), 1) for number in NUMBER.findall(piece)]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        kept = points[:1]
        for number, point in enumerate(points[1:], 2):
            before, following = kept[-1], points[number] if number < len(points) else None
            if point == before or (following and any(before[i] == point[i] == following[i] for i in (0, 1))):
                continue
            kept.append(point)
        if len(kept) > 1 or len(points) == 1:
            parts.append(_write_outline(kept) + ("z" if closed else ""))
    return f'd="{"".join(parts)}"'


def _write_outline(points: Sequence[tuple[float, float]]) -> str:
    text, (x, y) = f"M{points[0][0]:g} {points[0][1]:g}", points[0]
    for next_x, next_y in points[1:]:
        text += f"V{next_y:g}" if next_x == x else f"H{next_x:g}" if next_y == y else f"L{next_x:g} {next_y:g}"
        x, y = next_x, next_y
    return text


def series_colors(names: Iterable[str]) -> dict[str, str]:
    """Return a color for each name. The same names get the same colors."""
    return {name: SERIES[index % len(SERIES)] for index, name in enumerate(sorted(names))}
