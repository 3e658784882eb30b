"""The style of all plots, and figures that are created and saved without global state."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from retinanet.display.drawing import PALETTE, save_picture
from retinanet.display.fonts import families_for
from retinanet.files import replacing

COLORS = (*PALETTE[:6], "#000000")
"""The palette without its yellow, which is hard to see on white paper."""
INK = "#222222"
MUTED = "#767676"
FONT = 10.0
"""Points; a figure is about 9 inches wide and is shown at that width."""
DPI = 130
PANEL = 4.0
"""Inches: width of a panel of a report. A laptop shows three side by side, a telephone one, almost as wide."""
ON_COLOR = "#fefefe"
"""Text on a coloured area: white on screens of either mode, while #ffffff stands for the paper."""
NAMED_LINES = 10
"""Maximum number of lines of a panel with a colour and a name each."""
LINE_COLORS = (*PALETTE[:6], PALETTE[7])
DASHED = (0, (4, 1.6))


def as_text(name: str) -> str:
    """A user's text as Matplotlib shows it literally: no mathematics between dollars, no hidden legend entry."""
    return ("\u200a" if name.startswith("_") else "") + name.replace("$", r"\$")


def shortened(name: str, most: int = 28) -> str:
    """`as_text` of at most `most` characters; a longer name ends in an ellipsis."""
    return as_text(name if len(name) <= most else name[: most - 1] + "…")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches on an Agg canvas, laid out so that nothing overlaps."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_panel(height: float, width: float = PANEL) -> tuple[Figure, Axes]:
    """An empty figure with one axes, a panel of a report; inches."""
    figure = new_figure(width, height)
    return figure, figure.subplots()


def line_style(place: int) -> tuple[str, str | tuple[int, tuple[float, ...]]]:
    """Colour and dashes of the line at this place, different for all below NAMED_LINES."""
    return LINE_COLORS[place % len(LINE_COLORS)], "-" if place < len(LINE_COLORS) else DASHED


def tidy(axes: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Label an axes and remove what carries no information."""
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    if title:
        axes.set_title(title, fontsize=FONT + 1, loc="left", color=INK)
    axes.tick_params(labelsize=FONT - 1, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_below(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend for the whole figure, below it, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(columns, len(labels)),
            fontsize=FONT - 1,
            frameon=False,
        )


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure as an SVG, PNG or JPEG, as the suffix says; returns the path. Raises as `drawing.save_picture`.

    Texts get the fonts that have their characters; those of an SVG stay text.
    """
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # their texts are there only when they have been asked for
    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            text.set_fontfamily(families_for(text.get_text()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # `families_for` warns once
        if path.suffix == ".svg":
            # A salt and no date: the same figure gives the same bytes.
            with rc_context({"svg.fonttype": "none", "svg.hashsalt": "retinanet"}), replacing(path) as part:
                FigureCanvasSVG(figure).print_svg(part, metadata={"Date": None})
            return path
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    save_picture(path, np.array(canvas.buffer_rgba())[..., :3])
    return path
