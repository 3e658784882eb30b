"""The report's plots of what is found: precision over recall, AP by class, by size and by crowding.

Each plot is one or more panels, an SVG file each. Legend: K classes, Q recalls. AP is in points from 0 to 100.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from retinanet.display.figures import (
    COLORS,
    DASHED,
    FONT,
    INK,
    MUTED,
    NAMED_LINES,
    legend_below,
    line_style,
    new_panel,
    save_figure,
    shortened,
    tidy,
)
from retinanet.display.numbers import points
from retinanet.scoring.analysis.crowding import CrowdingGroup, OverlapGroup
from retinanet.scoring.analysis.curves import PrecisionCurves
from retinanet.scoring.analysis.sizes import SizeGroup
from retinanet.scoring.evaluation import ClassScores
from retinanet.scoring.matches import RECALLS

EACH_WAY = 3
"""Classes with the highest and with the lowest value that are named where there are more than NAMED_LINES."""
ONE_COLUMN = 30
"""Maximum number of classes in one panel of bars."""
GREY, PALE = "#8fa3b5", "#b9cfdf"


class ClassLine(NamedTuple):
    """A curve of one class."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    name: str
    value: float
    """By which classes are ranked."""
    text: str
    """The value as the legend shows it."""


def draw_class_precision_recall(
    folder: Path, curves: Sequence[PrecisionCurves], rows: Sequence[ClassScores], names: Sequence[str]
) -> tuple[Path, ...]:
    """Interpolated precision over recall at IoU 0.5 and 0.75, a panel each: classes, and the mean over them."""
    paths = []
    for curve in curves:
        present = np.flatnonzero(curve.class_QK[0] > -1).tolist()
        figure, axes = new_panel(3.4 + 0.19 * (named_lines(len(present)) + 2) / 2)
        at_iou = [float(curve.class_QK[:, k].mean()) for k in present]
        lines = [
            ClassLine(x=RECALLS, y=curve.class_QK[:, k], name=names[k], value=rows[k].ap, text=points(ap))
            for k, ap in zip(present, at_iou)
        ]
        draw_class_lines(axes, lines)
        if curve.mean_Q is None:
            write_in_empty_panel(axes, "no objects to find")
        elif len(present) > 1:
            label = f"mean of {len(present)} classes {points(float(curve.mean_Q.mean()))}"
            axes.plot(RECALLS, curve.mean_Q, color=INK, linewidth=2.6, label=label, zorder=4)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        tidy(axes, "recall", "precision", f"IoU {curve.iou:g}: class and AP")
        legend_below(figure, axes, 2)
        paths.append(save_figure(figure, folder / f"precision_recall_{round(100 * curve.iou)}.svg"))
    return tuple(paths)


def named_lines(classes: int) -> int:
    """How many of the lines `draw_class_lines` draws have an entry in the legend."""
    return classes if classes <= NAMED_LINES else 2 * EACH_WAY + 1


def draw_class_lines(axes: Axes, lines: Sequence[ClassLine]) -> None:
    """Lines of classes, coloured and named up to NAMED_LINES; of more the EACH_WAY best (solid) and worst (dashed).

    The others are thin and grey.
    """
    ranked = sorted(lines, key=lambda line: -line.value)
    styles = [line_style(place) for place in range(len(ranked))]
    if len(ranked) > NAMED_LINES:
        others = [np.column_stack([line.x, line.y]) for line in ranked[EACH_WAY:-EACH_WAY]]
        axes.add_collection(LineCollection(others, colors=GREY, linewidths=0.6, alpha=0.6, label="each other class"))
        ranked = [*ranked[:EACH_WAY], *ranked[-EACH_WAY:]]
        styles = [(line_style(place)[0], "-" if place < EACH_WAY else DASHED) for place in range(2 * EACH_WAY)]
    for line, (color, dashes) in zip(ranked, styles):
        label = f"{shortened(line.name, 16)} {line.text}"
        axes.plot(line.x, line.y, color=color, linestyle=dashes, linewidth=1.6, label=label)


def draw_class_ap(
    folder: Path, rows: Sequence[ClassScores], intervals: Mapping[int, tuple[float, float]]
) -> tuple[Path, ...]:
    """AP of each class as a bar and AP50 as a dot, best first; classes without objects are left out.

    intervals: of AP by id of class, 0..1, drawn as lines.
    """
    shown = sorted((row for row in rows if row.ap > -1), key=lambda row: -row.ap)
    length = max(-(-len(shown) // -(-len(shown) // ONE_COLUMN)) if shown else 1, 1)
    paths = []
    for number, first in enumerate(range(0, max(len(shown), 1), length), 1):
        part = shown[first : first + length]
        figure, axes = new_panel(1.3 + 0.21 * max(len(part), 3))
        places = np.arange(len(part))
        axes.barh(places, [100 * row.ap for row in part], height=0.62, color=COLORS[0], label="AP")
        known = [(place, *intervals[row.id]) for place, row in enumerate(part) if row.id in intervals]
        if known:
            heights, low, high = zip(*known)
            ends = 100 * np.array([low, high])
            axes.hlines(heights, *ends, color=INK, linewidth=1.6, label="95 % interval of AP")
        axes.plot([100 * row.ap50 for row in part], places, "o", color=COLORS[1], markersize=4, label="AP50")
        axes.set_yticks(places, [f"{shortened(row.name, 18)} ({row.objects:,})" for row in part])
        axes.set(xlim=(0, 102), ylim=(max(len(part), 1) - 0.4, -0.6))
        tidy(axes, "points", "", "class (objects)")
        axes.grid(axis="y", visible=False)
        if not part:
            write_in_empty_panel(axes, "no objects to find")
        legend_below(figure, axes, 3)
        name = "class_ap" if len(shown) <= length else f"class_ap_{number}"
        paths.append(save_figure(figure, folder / f"{name}.svg"))
    return tuple(paths)


def draw_sizes_and_crowding(
    folder: Path, sizes: Sequence[SizeGroup], crowding: Sequence[CrowdingGroup], overlaps: Sequence[OverlapGroup]
) -> tuple[Path, ...]:
    """AP by size, AP by objects in the image, and recall by overlap with a neighbour, a panel each."""
    # Below each bar only where its range ends: seven whole ranges have no room.
    of_size = [
        (f"{g.name.replace(' and more', '+').replace('0 to ', '<').split(' to ')[-1]}\n{g.objects:,}", g.ap, g.ap50)
        for g in sizes
    ]
    of_crowding = [
        (f"{g.name.replace(' or more', '+').replace(' to ', '–')}\n{g.images:,}", g.ap, g.ap50) for g in crowding
    ]
    paths = []
    for name, title, below, groups in (
        ("size", "AP by size", "side of the object up to, pixels; objects", of_size),
        ("crowding", "AP by objects in the image", "objects in the image; images", of_crowding),
    ):
        figure, axes = new_panel(3.5)
        places = np.arange(len(groups))
        axes.bar(places, [100 * max(ap, 0) for _, ap, _ in groups], width=0.66, color=COLORS[0], label="AP")
        dots = [100 * ap50 if ap50 > -1 else np.nan for _, _, ap50 in groups]
        axes.plot(places, dots, "o", color=COLORS[1], markersize=5, label="AP50")
        axes.set_xticks(places, [text for text, _, _ in groups])
        axes.set_ylim(0, 104)
        tidy(axes, below, "points", title)
        paths.append(_save_bars(figure, axes, folder / f"{name}.svg"))
    figure, axes = new_panel(3.5)
    places = np.arange(len(overlaps))
    shares = [(g.found / g.objects, g.found_from / g.objects) if g.objects else (0, 0) for g in overlaps]
    axes.bar(places, [share for share, _ in shares], width=0.66, color=PALE, label="at any score")
    axes.bar(places, [share for _, share in shares], width=0.4, color=COLORS[2], label="at the best threshold")
    axes.set_xticks(places, [f"{g.name.replace(' to ', '–')}\n{g.objects:,}" for g in overlaps])
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(axes, "IoU with a neighbour; objects", "", "objects found, by overlap")
    return (*paths, _save_bars(figure, axes, folder / "overlap.svg"))


def _save_bars(figure: Figure, axes: Axes, path: Path) -> Path:
    axes.tick_params(axis="x", labelsize=FONT - 1.5)
    axes.grid(axis="x", visible=False)
    legend_below(figure, axes, 2)
    return save_figure(figure, path)


def write_in_empty_panel(axes: Axes, why: str) -> None:
    """Write the reason why a panel is empty into its middle."""
    axes.text(0.5, 0.5, why, ha="center", va="center", color=MUTED, fontsize=FONT, transform=axes.transAxes)
    axes.yaxis.set_major_locator(MaxNLocator(5))
