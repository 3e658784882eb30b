"""The picture of how losses are distributed over anchors: the paper's Figure 4, and which groups carry the loss.

Legend: S losses, G groups of anchors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from retinanet.diagnostics.loss_distribution.curves import Breakdown, CumulativeCurve
from retinanet.display.figures import COLORS, FONT, as_text, new_figure, save_figure, shortened, tidy

DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "////", "....", "xxxx")
ANCHORS_COLOR = "#BBBBBB"
MOST_CLASSES = 16
"""Maximum number of classes drawn, those with most positives; shares.csv has all of them."""
HARDEST_SHOWN = 1e-5
"""Left end of the log axis, the same in every picture."""
LONGEST_NAME = 14
MANY_NAMES = 6
"""Number of groups from which their names are rotated."""


Curves = Mapping[str, CumulativeCurve]
"""The curves of the losses by their names."""


def draw_distribution(path: Path, title: str, curves: Mapping[str, Curves], breakdowns: Sequence[Breakdown]) -> None:
    """Write the picture: curves as in Figure 4, the hardest samples on a log axis, shares by level, size and class.

    curves: of "positives" and of "negatives". breakdowns: of the same losses in the same order; those of (all, label),
    (all, level), (positives, size) and (positives, class) are drawn. Raises as `drawing.save_picture`.
    """
    figure = new_figure(11, 16)
    figure.suptitle(title, fontsize=FONT + 1)
    grid = figure.add_gridspec(4, 6)
    for column, kind in enumerate(("positives", "negatives")):
        columns = slice(3 * column, 3 * column + 3)
        _draw_cumulative(figure.add_subplot(grid[0, columns]), kind, curves[kind])
        _draw_hardest(figure.add_subplot(grid[1, columns]), kind, curves[kind])
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
    handles = [Line2D([], [], label=as_text(name), **_line(index)) for index, name in enumerate(curves["positives"])]
    anchors = Patch(color=ANCHORS_COLOR, label="share of the anchors (bars)")
    figure.legend(handles=[*handles, anchors], loc="outside lower center", ncols=5, fontsize=FONT, frameon=False)
    save_figure(figure, path)


def commonest(breakdown: Breakdown, most: int) -> list[int]:
    """Indices of the `most` groups with most anchors, in falling order."""
    order: list[int] = np.argsort(-breakdown.anchors_G, kind="stable").tolist()
    return order[:most]


def _draw_cumulative(axes: Axes, kind: str, curves: Curves) -> None:
    """The paper's axes: fraction of samples by increasing loss, cumulative normalised loss."""
    for index, curve in enumerate(curves.values()):
        axes.plot(curve.fraction_M, curve.cumulative_M, **_line(index))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    tidy(axes, f"fraction of {kind}, by increasing loss", "cumulative normalised loss", f"Cumulative loss of {kind}")


def _draw_hardest(axes: Axes, kind: str, curves: Curves) -> None:
    """The same curves from the other end, where few samples carry much of the loss."""
    for index, curve in enumerate(curves.values()):
        hardest = 1.0 - curve.fraction_M
        axes.plot(hardest[hardest > 0], 1.0 - curve.cumulative_M[hardest > 0], **_line(index))
    axes.set_xscale("log")
    axes.set_xlim(HARDEST_SHOWN, 1)
    axes.set_ylim(0, 1.01)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    tidy(axes, f"hardest fraction of the {kind} (log)", "fraction of the loss", f"Loss of the hardest {kind}")


def _draw_shares(axes: Axes, breakdown: Breakdown, title: str, most: int | None = None) -> None:
    """A cluster of bars for each group: its share of the anchors in grey, then of each loss.

    most: draw at most this number of groups, those with most anchors; None: all groups, in their own order.
    """
    groups = list(range(len(breakdown.names))) if most is None else commonest(breakdown, most)
    if len(groups) < len(breakdown.names):
        title += f": the {len(groups)} with most anchors of {len(breakdown.names)}"
    shares = [breakdown.anchor_shares_G()[groups], *breakdown.shares_SG()[:, groups]]
    # Keeps bars from becoming too wide for few groups and too thin for many losses.
    width = min(0.84, max(0.1 + 0.14 * len(groups), 0.06 * len(shares))) / len(shares)
    places = np.arange(len(groups))
    for bar, share_G in enumerate(shares):
        at = places + (bar - (len(shares) - 1) / 2) * width
        if bar == 0:
            axes.bar(at, share_G, width, color=ANCHORS_COLOR)
        else:
            color, hatch = COLORS[(bar - 1) % len(COLORS)], HATCHES[(bar - 1) // len(COLORS) % len(HATCHES)]
            axes.bar(at, share_G, width, color=color, hatch=hatch, edgecolor="white", linewidth=0)
    rotated = len(groups) >= MANY_NAMES
    names = [shortened(breakdown.names[group], LONGEST_NAME) for group in groups]
    axes.set_xticks(places, names, rotation=30 if rotated else 0, ha="right" if rotated else "center")
    axes.set_xlim(-0.6, len(groups) - 0.4)
    tidy(axes, "", "fraction of the loss", title)
    axes.grid(visible=False, axis="x")


def _line(index: int) -> dict[str, Any]:
    dashes = DASHES[index // len(COLORS) % len(DASHES)]
    return {"color": COLORS[index % len(COLORS)], "linestyle": dashes, "linewidth": 2.0}
