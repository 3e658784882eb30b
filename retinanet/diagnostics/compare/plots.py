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
from retinanet.display.figures import COLORS, FONT, INK, MUTED, new_figure, save_figure, shortened, tidy
from retinanet.scoring.evaluation import METRIC_NAMES

MOST_CLASSES = 40
BETTER_COLOR, WORSE_COLOR = COLORS[0], COLORS[1]


def draw_differences(path: Path, comparison: DetectorComparison) -> Path:
    """All metrics with intervals, and the resampled differences of the main metric; returns the path."""
    figure = new_figure(10.0, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    draw_intervals(left, (*comparison.overall, *comparison.sizes))
    tidy(left, "B minus A, points, 95 % interval", "")
    main = comparison.main
    samples = 100 * comparison.resampled_RM[:, METRIC_NAMES.index(MAIN_METRIC)]
    samples = samples[~np.isnan(samples)]
    if len(samples) and not math.isnan(main.difference):
        right.hist(samples, bins=40, color=COLORS[5], edgecolor="white", linewidth=0.4)
        right.axvspan(100 * main.low, 100 * main.high, color=MUTED, alpha=0.15, linewidth=0)
        right.axvline(100 * main.difference, color=INK, linewidth=2)
        right.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    else:
        right.text(0.5, 0.5, "nothing to measure", ha="center", color=MUTED, transform=right.transAxes)
    title = f"{MAIN_METRIC} on {len(samples):,} resamples of the images"
    tidy(right, f"B minus A, points of {MAIN_METRIC}", "resamples", title)
    return save_figure(figure, path)


def draw_classes(path: Path, classes: Sequence[MetricDifference]) -> Path:
    """AP of the classes that differ most, sorted by difference; returns the path."""
    judged = [found for found in classes if found.verdict != TOO_FEW]
    shown = largest_differences(judged, MOST_CLASSES)
    figure = new_figure(8.0, 1.3 + 0.26 * max(len(shown), 1))
    axes = figure.subplots()
    draw_intervals(axes, shown)
    more = f"the {len(shown)} of {len(judged)} classes that differ most" if len(shown) < len(judged) else ""
    tidy(axes, "AP of B minus A, points, 95 % interval; filled: distinguishable after Holm's correction", "", more)
    return save_figure(figure, path)


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
    axes.set_yticks(range(len(differences)), [shortened(found.name, 26) for found in differences])
    axes.set_ylim(max(len(differences), 1) - 0.5, -0.5)
