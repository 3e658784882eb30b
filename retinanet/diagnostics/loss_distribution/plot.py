"""The picture of how losses are spread over anchors: the paper's Figure 4, and who carries the loss.

Legend: S losses, G groups of anchors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from retinanet.diagnostics.loss_distribution.curves import Breakdown, Curve
from retinanet.display.drawing import save_picture

# Okabe and Ito's palette (jfly.uni-koeln.de/color), without the yellow that white paper swallows.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "xxxx")
ANCHORS_COLOR = "#BBBBBB"
FONT = 11.0
"""Points; the figure is 11 inches wide."""
MOST_CLASSES = 16
"""Classes drawn, those of most positives; shares.csv has them all."""
HARDEST_SHOWN = 1e-5
"""Where the log axis begins, the same in every picture."""
LONGEST_NAME = 14
MANY_NAMES = 6
"""Groups from which names stand aslant."""


class LossCurves(NamedTuple):
    """One loss's two curves."""

    name: str
    positives: Curve
    negatives: Curve


def draw_distribution(path: Path, title: str, losses: Sequence[LossCurves], breakdowns: Sequence[Breakdown]) -> None:
    """Write the picture: curves as in Figure 4, the hardest samples on a log axis, shares by level, size and class.

    breakdowns: of the same losses in the same order. Those named (all, label), (all, level), (positives, size) and
    (positives, class) are drawn. Raises as `visualize.save_picture`.
    """
    figure = Figure(figsize=(11, 16), dpi=110, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=FONT + 1)
    grid = figure.add_gridspec(4, 6)
    for column, kind in enumerate(("positives", "negatives")):
        chosen = [(loss.name, loss.positives if kind == "positives" else loss.negatives) for loss in losses]
        _draw_cumulative(figure.add_subplot(grid[0, 3 * column : 3 * column + 3]), kind, chosen)
        _draw_hardest(figure.add_subplot(grid[1, 3 * column : 3 * column + 3]), kind, chosen)
    named = {(breakdown.of, breakdown.by): breakdown for breakdown in breakdowns}
    shares = (
        (grid[2, :2], ("all", "label"), "The whole class loss"),
        (grid[2, 2:4], ("all", "level"), "The whole class loss by level"),
        (grid[2, 4:], ("positives", "size"), "Positives' loss by object size"),
    )
    for place, key, heading in shares:
        _draw_shares(figure.add_subplot(place), named[key], heading)
    classes = figure.add_subplot(grid[3, :])
    _draw_shares(classes, named["positives", "class"], "Positives' loss by class", MOST_CLASSES)
    handles = [Line2D([], [], label=loss.name, **_line(index)) for index, loss in enumerate(losses)]
    anchors = Patch(color=ANCHORS_COLOR, label="share of the anchors (bars)")
    figure.legend(handles=[*handles, anchors], loc="outside lower center", ncols=5, fontsize=FONT, frameon=False)
    canvas.draw()
    save_picture(path, np.array(canvas.buffer_rgba())[..., :3])


def commonest(breakdown: Breakdown, most: int) -> list[int]:
    """Indices of the `most` groups of most anchors, in falling order."""
    order: list[int] = np.argsort(-breakdown.anchors_G, kind="stable").tolist()
    return order[:most]


def _draw_cumulative(axes: Axes, kind: str, curves: Sequence[tuple[str, Curve]]) -> None:
    """The paper's axes: fraction of samples by increasing loss, cumulative normalised loss."""
    for index, (_, curve) in enumerate(curves):
        axes.plot(curve.fraction_M, curve.cumulative_M, **_line(index))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    _tidy(axes, f"Cumulative loss of {kind}", f"fraction of {kind}, by increasing loss", "cumulative normalised loss")


def _draw_hardest(axes: Axes, kind: str, curves: Sequence[tuple[str, Curve]]) -> None:
    """The same curves from their other end, where few samples carry much."""
    for index, (_, curve) in enumerate(curves):
        hardest = 1.0 - curve.fraction_M
        axes.plot(hardest[hardest > 0], 1.0 - curve.cumulative_M[hardest > 0], **_line(index))
    axes.set_xscale("log")
    axes.set_xlim(HARDEST_SHOWN, 1)
    axes.set_ylim(0, 1.01)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    _tidy(axes, f"Loss of the hardest {kind}", f"hardest part of the {kind} (log)", "share of the loss that it carries")


def _draw_shares(axes: Axes, breakdown: Breakdown, title: str, most: int | None = None) -> None:
    """A cluster of bars for each group: its share of the anchors in grey, then of each loss.

    most: draw only so many groups, those of most anchors; None: all, in their own order.
    """
    groups = list(range(len(breakdown.names))) if most is None else commonest(breakdown, most)
    if len(groups) < len(breakdown.names):
        title += f": the {len(groups)} of most anchors among {len(breakdown.names)}"
    shares = [breakdown.anchor_shares_G()[groups], *breakdown.shares_SG()[:, groups]]
    # Few groups do not become slabs, and many losses do not become hairs.
    width = min(0.84, max(0.1 + 0.14 * len(groups), 0.06 * len(shares))) / len(shares)
    places = np.arange(len(groups))
    for bar, share_G in enumerate(shares):
        at = places + (bar - (len(shares) - 1) / 2) * width
        if bar == 0:
            axes.bar(at, share_G, width, color=ANCHORS_COLOR)
        else:
            color, hatch = COLORS[(bar - 1) % len(COLORS)], HATCHES[(bar - 1) // len(COLORS) % len(HATCHES)]
            axes.bar(at, share_G, width, color=color, hatch=hatch, edgecolor="white", linewidth=0)
    aslant = len(groups) >= MANY_NAMES
    names = [breakdown.names[group] for group in groups]
    names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    axes.set_xticks(places, names, rotation=30 if aslant else 0, ha="right" if aslant else "center")
    axes.set_xlim(-0.6, len(groups) - 0.4)
    _tidy(axes, title, "", "share of the loss")
    axes.grid(visible=False, axis="x")


def _line(index: int) -> dict[str, Any]:
    dashes = DASHES[index // len(COLORS) % len(DASHES)]
    return {"color": COLORS[index % len(COLORS)], "linestyle": dashes, "linewidth": 2.0}


def _tidy(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, fontsize=FONT + 1, loc="left")
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
