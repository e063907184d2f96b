"""matplotlib figures as inline SVG that take the ink of the page around them, light or dark.

Text and axes are drawn in a colour that nothing else has, which then becomes `currentColor`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["BAD", "DROPPED", "KEPT", "LIMIT", "NEUTRAL", "SERIES", "colours", "draw"]

# Told apart with any kind of colour vision, and seen on white and on black (after Okabe and Ito, and Tol).
KEPT, DROPPED, LIMIT, BAD, NEUTRAL = "#3b8bc4", "#e08214", "#d0457b", "#d73a3a", "#8a8f98"
SERIES = ("#3b8bc4", "#e08214", "#1b9e77", "#b46fc9", "#c9a400", "#d0457b", "#56b4e9", "#8c6d46")

INK = "#010203"
LOOKS = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "svg.hashsalt": "audiopipe",
    "font.family": "sans-serif",
    "font.size": 9,
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
POINTS = 72


def draw(plot: Callable[[Axes], None], width: int = 460, height: int = 200, rows: int = 1) -> str:
    """The SVG of one plot.

    Args:
        plot: draws into the axes that it is given.
        width, height: in pixels at full size; on a narrow screen the picture shrinks.
    """
    with mpl.rc_context(LOOKS):
        picture = Figure(figsize=(width / POINTS, height / POINTS), layout="constrained")
        picture.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
        plot(picture.add_subplot())
        return _svg(picture)


def _svg(picture: Figure) -> str:
    sink = io.StringIO()
    FigureCanvasSVG(picture).print_svg(sink, metadata={"Date": None, "Creator": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<g id="patch_1">.*?</g>', "", text, count=1, flags=re.S)  # the white behind the figure
    text = re.sub(r'<g id="[a-z0-9]+_\d+">', "<g>", text, flags=re.I)
    text = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", text)
    text = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", text)
    text = re.sub(r"(font:[^;\"]*?\d+px) [^;\"]*", r"\1 system-ui, 'DejaVu Sans', sans-serif", text)
    return text.replace(INK, "currentColor").strip()


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, the same for the same names."""
    return {name: SERIES[number % len(SERIES)] for number, name in enumerate(sorted(names))}
