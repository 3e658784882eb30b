"""The report's plots of what is found: precision over recall, AP by class, by size and by crowding.

Legend: K classes, Q recalls. AP is in points from 0 to 100.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator, PercentFormatter

from retinanet.display.figures import COLORS, FONT, INK, MUTED, legend_below, new_figure, save_figure, shortened, tidy
from retinanet.scoring.analysis.crowding import CrowdingGroup, OverlapGroup
from retinanet.scoring.analysis.curves import PrecisionCurves
from retinanet.scoring.analysis.sizes import SizeGroup
from retinanet.scoring.evaluation import ClassScores
from retinanet.scoring.matches import RECALLS

WIDTH = 9.0
NAMED_CLASSES = 6
"""Maximum number of classes with a colour and a name of their own in line plots; more are thin grey lines."""
ONE_COLUMN = 30
"""Maximum number of classes in one column of a bar plot."""


def draw_class_precision_recall(path: Path, curves: Sequence[PrecisionCurves], names: Sequence[str]) -> Path:
    """Interpolated precision over recall at IoU 0.5 and 0.75: every class, and the mean over classes."""
    figure = new_figure(WIDTH, 4.4)
    panels = figure.subplots(1, len(curves), sharey=True)
    for axes, curve in zip(panels, curves):
        present = np.flatnonzero(curve.class_QK[0] > -1)
        draw_class_lines(axes, [(RECALLS, curve.class_QK[:, k], names[k]) for k in present.tolist()])
        if curve.mean_Q is None:
            write_in_empty_panel(axes, "no objects to find")
        elif len(present) > 1:
            label = f"mean of {len(present)} classes"
            axes.plot(RECALLS, curve.mean_Q, color=INK, linewidth=2.6, label=label, zorder=4)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        tidy(axes, "recall", "precision" if axes is panels[0] else "", f"IoU {curve.iou:g}")
    legend_below(figure, panels[0], 4)
    return save_figure(figure, path)


def draw_class_lines(axes: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray, str]]) -> None:
    """Lines (x, y, name) of classes: coloured and named up to NAMED_CLASSES, else thin and grey."""
    if len(lines) <= NAMED_CLASSES:
        for color, (x, y, name) in zip(COLORS, lines):
            axes.plot(x, y, color=color, linewidth=1.5, label=shortened(name))
        return
    segments = [np.column_stack([x, y]) for x, y, _ in lines]
    axes.add_collection(LineCollection(segments, colors="#8fa3b5", linewidths=0.7, alpha=0.7, label="each class"))


def draw_class_ap(path: Path, rows: Sequence[ClassScores]) -> Path:
    """AP of each class as a bar and AP50 as a dot, best first; classes without objects are left out."""
    shown = sorted((row for row in rows if row.ap > -1), key=lambda row: -row.ap)
    columns = 1 if len(shown) <= ONE_COLUMN else 2
    length = max(-(-len(shown) // columns), 1)
    figure = new_figure(WIDTH, 1.1 + 0.21 * length)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for column, axes in enumerate(panels):
        part = shown[column * length : (column + 1) * length]
        places = np.arange(len(part))
        axes.barh(places, [100 * row.ap for row in part], height=0.62, color=COLORS[0], label="AP")
        axes.plot([100 * row.ap50 for row in part], places, "o", color=COLORS[1], markersize=4, label="AP50")
        axes.set_yticks(places, [f"{shortened(row.name, 22)}  ({row.objects:,})" for row in part])
        axes.set(xlim=(0, 102), ylim=(length - 0.4, -0.6))
        tidy(axes, "AP and AP50, points", "", "class (objects)" if column == 0 else "")
        axes.grid(axis="y", visible=False)
    if not shown:
        write_in_empty_panel(panels[0], "no objects to find")
    legend_below(figure, panels[0], 2)
    return save_figure(figure, path)


def draw_sizes_and_crowding(
    path: Path, sizes: Sequence[SizeGroup], crowding: Sequence[CrowdingGroup], overlaps: Sequence[OverlapGroup]
) -> Path:
    """AP by size and by objects in the image, and recall by overlap with a neighbour."""
    figure = new_figure(WIDTH + 1.5, 3.9)
    left, middle, right = figure.subplots(1, 3, width_ratios=(8, 4, 5.5))
    of_size = [(f"{g.name.replace(' and more', '+').replace(' to ', '–')}\n{g.objects:,}", g.ap, g.ap50) for g in sizes]
    of_crowding = [
        (f"{g.name.replace(' or more', '+').replace(' to ', '–')}\n{g.images:,}", g.ap, g.ap50) for g in crowding
    ]
    for axes, groups in ((left, of_size), (middle, of_crowding)):
        places = np.arange(len(groups))
        axes.bar(places, [100 * max(ap, 0) for _, ap, _ in groups], width=0.66, color=COLORS[0], label="AP")
        dots = [100 * ap50 if ap50 > -1 else np.nan for _, _, ap50 in groups]
        axes.plot(places, dots, "o", color=COLORS[1], markersize=5, label="AP50")
        axes.set_xticks(places, [text for text, _, _ in groups])
        axes.set_ylim(0, 100)
    tidy(left, "side of the object, pixels; objects", "AP and AP50, points", "by size")
    tidy(middle, "objects in the image; images", "", "by objects in the image")
    places = np.arange(len(overlaps))
    shares = [(g.found / g.objects, g.found_from / g.objects) if g.objects else (0, 0) for g in overlaps]
    right.bar(places, [share for share, _ in shares], width=0.66, color="#b9cfdf", label="recall at any score")
    threshold_label = "recall at the best threshold"
    right.bar(places, [share for _, share in shares], width=0.4, color=COLORS[2], label=threshold_label)
    right.set_xticks(places, [f"{g.name.replace(' to ', '–')}\n{g.objects:,}" for g in overlaps])
    right.set_ylim(0, 1)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(right, "IoU with a neighbour; objects", "objects found at IoU 0.5", "by overlap")
    for axes in (left, middle, right):
        axes.tick_params(axis="x", labelsize=FONT - 2)
        axes.grid(axis="x", visible=False)
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=FONT - 1, frameon=False)
    return save_figure(figure, path)


def write_in_empty_panel(axes: Axes, why: str) -> None:
    """Write the reason why a panel is empty into its middle."""
    axes.text(0.5, 0.5, why, ha="center", va="center", color=MUTED, fontsize=FONT, transform=axes.transAxes)
    axes.yaxis.set_major_locator(MaxNLocator(5))
