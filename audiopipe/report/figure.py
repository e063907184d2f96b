"""matplotlib figures as inline SVG that take the ink of the page around them, light or dark.

Text and axes are drawn in a colour that nothing else has, which then becomes `currentColor`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from audiopipe.extras import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BAD", "DROPPED", "KEPT", "LIMIT", "NEUTRAL", "SERIES", "colours", "draw"]

# Told apart with any kind of colour vision, and seen on white and on black (after Okabe and Ito, and Tol). The last
# four are for many languages, where hue alone does not do: they differ in lightness too.
KEPT, DROPPED, LIMIT, BAD, NEUTRAL = "#3b8bc4", "#e08214", "#d0457b", "#d73a3a", "#8a8f98"
SERIES = (
    *("#3b8bc4", "#e08214", "#1b9e77", "#b46fc9", "#c9a400", "#d0457b", "#56b4e9", "#8c6d46"),
    *("#f2a0a8", "#7d8794", "#8fc97c", "#6f63c9"),
)

INK = "#010203"
LOOKS: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
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
POINTS = 72
TIDY = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>", ""),
        (r'<style type="text/css">.*?</style>', ""),  # it would apply to the whole page
        (r'<g id="patch_1">.*?</g>', ""),  # the white behind the figure
        (r'<g id="[A-Za-z0-9._]+_\d+">', "<g>"),  # names that the next figure has too
        (r'(?<=<svg )(?:width|height)="[^"]*" |(?<= )(?:width|height)="[\d.]+pt" ', ""),
        (r"font-family: [^;\"]*", "font-family: inherit"),
        (r"rotate\(-0 [^)]*\)", "rotate(0)"),
        (r"\s*\n\s*", " "),
        (r"> <", "><"),
    )
)


def draw(plot: Callable[[Axes], None], width: int = 460, height: int = 200) -> str:
    """The SVG of one plot.

    Args:
        plot: draws into the axes that it is given.
        width, height: in pixels at full size; on a narrow screen the picture shrinks.
    """
    # Imported here, so that tables can be printed where the extra is not installed.
    with require_extra("notebooks", "drawing a figure"):
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    sink = io.StringIO()
    with mpl.rc_context(LOOKS):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
        picture = Figure(figsize=(width / POINTS, height / POINTS), layout=layout)
        plot(picture.add_subplot())
        FigureCanvasSVG(picture).print_svg(sink, metadata={"Date": None, "Creator": None})
    return _clean_svg(sink.getvalue())


def _clean_svg(text: str) -> str:
    text = text[text.index("<svg") :]
    for pattern, replacement in TIDY:
        text = pattern.sub(replacement, text)
    text = re.sub(r"<(?:path|use|g|rect|image)\b[^>]*>", _rounded, text)
    return text.replace(INK, "currentColor").strip()


def _rounded(element: re.Match[str]) -> str:
    """Coordinates to a hundredth of a pixel; never the text between elements."""
    return re.sub(r"(?<=[\d])(\.\d{2})\d+", r"\1", element[0])


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, the same for the same names."""
    return {name: SERIES[number % len(SERIES)] for number, name in enumerate(sorted(names))}
