"""Plots of a comparison: all differences with intervals, the resampled differences, and the classes.

Differences are in points from 0 to 100.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from retinanet.diagnostics.compare.differences import (
    DIFFERENT,
    MAIN_METRIC,
    NOT_MEASURED,
    TOO_FEW,
    DetectorComparison,
    MetricDifference,
)
from retinanet.display.figures import COLORS, FONT, INK, MUTED, new_panel, save_figure, shortened, tidy
from retinanet.scoring.evaluation import METRIC_NAMES

MOST_CLASSES = 40
ONE_PANEL = 25
BETTER_COLOR, WORSE_COLOR = COLORS[0], COLORS[1]


def draw_differences(folder: Path, comparison: DetectorComparison) -> tuple[Path, ...]:
    """All metrics with intervals, and the resampled differences of the main metric, a panel each."""
    figure, axes = new_panel(4.2)
    draw_intervals(axes, (*comparison.overall, *comparison.sizes))
    tidy(axes, "B minus A, points, 95 % interval", "", "every metric")
    every = save_figure(figure, folder / "differences.svg")
    main = comparison.main
    samples = 100 * comparison.resampled_RM[:, METRIC_NAMES.index(MAIN_METRIC)]
    samples = samples[~np.isnan(samples)]
    figure, axes = new_panel(4.2)
    if len(samples) and not math.isnan(main.difference):
        axes.hist(samples, bins=40, color=COLORS[5], edgecolor="white", linewidth=0.4)
        axes.axvspan(100 * main.low, 100 * main.high, color=MUTED, alpha=0.15, linewidth=0)
        axes.axvline(100 * main.difference, color=INK, linewidth=2)
        axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    else:
        axes.text(0.5, 0.5, "nothing to measure", ha="center", color=MUTED, transform=axes.transAxes)
    title = f"{MAIN_METRIC} on {len(samples):,} resamples of the images"
    tidy(axes, f"B minus A, points of {MAIN_METRIC}", "resamples", title)
    return every, save_figure(figure, folder / "resamples.svg")


def draw_classes(folder: Path, classes: Sequence[MetricDifference]) -> tuple[Path, ...]:
    """AP of the classes that differ most, sorted by difference, at most ONE_PANEL in a panel."""
    judged = [found for found in classes if found.verdict != TOO_FEW]
    shown = largest_differences(judged, MOST_CLASSES)
    length = -(-len(shown) // 2) if len(shown) > ONE_PANEL else max(len(shown), 1)
    parts = [shown[first : first + length] for first in range(0, max(len(shown), 1), length)]
    ends = [100 * end for found in shown for end in (found.low, found.high, found.difference) if not math.isnan(end)]
    more = f"the {len(shown)} of {len(judged)} classes that differ most" if len(shown) < len(judged) else "by class"
    paths = []
    for number, part in enumerate(parts, 1):
        figure, axes = new_panel(1.1 + 0.24 * max(len(part), 3))
        draw_intervals(axes, part)
        if ends:
            spare = 0.04 * (max(*ends, 0) - min(*ends, 0)) or 1
            axes.set_xlim(min(*ends, 0) - spare, max(*ends, 0) + spare)
        tidy(axes, "AP of B minus A, points, 95 % interval", "", more)
        name = "classes" if len(parts) == 1 else f"classes_{number}"
        paths.append(save_figure(figure, folder / f"{name}.svg"))
    return tuple(paths)


def largest_differences(differences: Sequence[MetricDifference], most: int) -> list[MetricDifference]:
    """The `most` largest measured differences in either direction, most in B's favour first."""
    measured = [found for found in differences if found.verdict != NOT_MEASURED]
    kept = sorted(measured, key=lambda found: -abs(found.difference))[:most]
    return sorted(kept, key=lambda found: -found.difference)


def draw_intervals(axes: Axes, differences: Sequence[MetricDifference]) -> None:
    """One line per difference, from top to bottom; filled marks are distinguishable, bars have no verdict."""
    for place, found in enumerate(differences):
        if math.isnan(found.low):
            axes.text(0, place, found.verdict or NOT_MEASURED, va="center", ha="center", fontsize=FONT - 2, color=MUTED)
            continue
        color = BETTER_COLOR if found.difference > 0 else WORSE_COLOR if found.difference < 0 else MUTED
        tested = found.verdict != ""
        face = color if found.verdict == DIFFERENT else "white"
        axes.plot([100 * found.low, 100 * found.high], [place, place], color=color, linewidth=2.4 if tested else 1.2)
        axes.plot(
            100 * found.difference,
            place,
            marker="o" if tested else "|",
            color=color,
            markerfacecolor=face,
            markersize=7 if tested else 9,
        )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(differences)), [shortened(found.name, 20) for found in differences])
    axes.set_ylim(max(len(differences), 1) - 0.5, -0.5)
