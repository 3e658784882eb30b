"""The report's plots of errors: types of error, confusion, calibration, and the choice of a threshold.

Legend: K classes, B bins. AP50 is in points from 0 to 100.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from retinanet.diagnostics.analysis.plots import NAMED_CLASSES, WIDTH, draw_class_lines, write_in_empty_panel
from retinanet.display.figures import COLORS, FONT, INK, MUTED, legend_below, new_figure, save_figure, shortened, tidy
from retinanet.scoring.analysis.calibration import Reliability
from retinanet.scoring.analysis.confusion import Confusion
from retinanet.scoring.analysis.error_types import ErrorCost, ErrorReport
from retinanet.scoring.analysis.thresholds import Thresholds

WRITTEN_CELLS = 12
"""Maximum number of classes of a confusion matrix with its counts written into the cells."""
NAMED_CELLS = 30
"""Maximum number of classes of a confusion matrix with class names along its axes."""


def draw_errors(path: Path, report: ErrorReport) -> Path:
    """AP50 lost to each type of error, and the count of each."""
    figure = new_figure(WIDTH, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(6, 3))
    _draw_costs(left, report.main, COLORS[0])
    _draw_costs(right, report.special, COLORS[4])
    tidy(left, "AP50 gained without it, points", "", "types of error")
    tidy(right, "AP50 gained, points", "", "totals")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    return save_figure(figure, path)


def _draw_costs(axes: Axes, costs: Sequence[ErrorCost], color: str) -> None:
    values = [100 * cost.ap50 for cost in costs]
    places = np.arange(len(costs))
    axes.barh(places, values, height=0.6, color=color)
    axes.set_yticks(places, [cost.kind for cost in costs])
    axes.set_ylim(len(costs) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * max(1.0, *values))
    for place, (cost, value) in enumerate(zip(costs, values)):
        axes.annotate(
            f"{value:.1f}  ({cost.errors:,})", (value, place), (4, 0), textcoords="offset points", va="center",
            fontsize=FONT - 1, color=INK,
        )  # fmt: skip


def draw_confusion(path: Path, confusion: Confusion, names: Sequence[str]) -> Path:
    """Counts by true and detected class; names up to NAMED_CELLS classes, counts up to WRITTEN_CELLS."""
    counts = confusion.counts
    of_row = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, of_row, out=np.zeros(counts.shape), where=of_row > 0)
    classes = len(names)
    side = 3.4 + 0.42 * classes if classes <= WRITTEN_CELLS else 8.4
    figure = new_figure(min(side + 1.2, WIDTH), side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.ax.tick_params(labelsize=FONT - 1)
    labels = [*(shortened(name, 18) for name in names), "background"]
    if classes <= NAMED_CELLS:
        axes.set_xticks(range(classes + 1), labels, rotation=90 if classes > 4 else 0, fontsize=FONT - 1)
        axes.set_yticks(range(classes + 1), labels, fontsize=FONT - 1)
    else:
        ticks = [*range(0, classes, 10), classes]
        texts = [*(str(k + 1) for k in ticks[:-1]), "background"]
        axes.set_xticks(ticks, texts, fontsize=FONT - 1, rotation=90)
        axes.set_yticks(ticks, texts, fontsize=FONT - 1)
    if classes <= WRITTEN_CELLS:
        for row, column in np.argwhere(counts > 0).tolist():
            ink = "white" if shares[row, column] > 0.4 else INK
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=FONT - 1, color=ink)
    where = "" if classes <= NAMED_CELLS else " (number in the table of classes)"
    axes.set_xlabel(f"detected as{where}", fontsize=FONT)
    axes.set_ylabel(f"true class{where}", fontsize=FONT)
    return save_figure(figure, path)


def draw_calibration(path: Path, found: Reliability) -> Path:
    """Precision over score, and the number of detections by score."""
    figure = new_figure(WIDTH, 3.9)
    left, right = figure.subplots(1, 2)
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    width = found.edges[1] - found.edges[0]
    left.bar(middles, np.nan_to_num(found.right_B), width=0.94 * width, color=COLORS[0], label="precision")
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="score = precision")
    left.plot(found.score_B, found.right_B, "o", color=COLORS[1], markersize=3.5, label="at the mean score")
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    ece = "" if np.isnan(found.ece) else f", ECE {found.ece:.3f}"
    tidy(left, "score", "precision at IoU 0.5", f"reliability{ece}")
    right.bar(middles, found.count_B, width=0.94 * width, color="#8fa3b5")
    if found.count_B.any():
        right.set_yscale("log")
        right.set_ylim(bottom=0.7)
    else:
        write_in_empty_panel(right, "no detections")
    right.set_xlim(0, 1)
    tidy(right, "score", "detections (logarithmic)", "number of detections")
    legend_below(figure, left, 3)
    return save_figure(figure, path)


def draw_thresholds(path: Path, thresholds: Thresholds, names: Sequence[str]) -> Path:
    """Precision, recall and F1 of all classes together over the threshold, and F1 of each class."""
    figure = new_figure(WIDTH, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    curve, best = thresholds.curve, thresholds.overall
    for values, label, color in (
        (curve.precision_G, "precision", COLORS[0]),
        (curve.recall_G, "recall", COLORS[2]),
        (curve.f1_G, "F1", COLORS[1]),
    ):
        left.plot(curve.score_G, values, color=color, linewidth=2.2 if label == "F1" else 1.6, label=label)
    if best.score is None or best.f1 is None:
        write_in_empty_panel(left, "no true positive at any threshold")
    else:
        for axes in (left, right):
            axes.axvline(best.score, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        left.plot(best.score, best.f1, "o", color=COLORS[1], markersize=7)
        text = f"F1 {best.f1:.2f} at {best.score:.2f}"
        end = "right" if best.score > curve.score_G[0] + 0.6 * (curve.score_G[-1] - curve.score_G[0]) else "left"
        offset = (-6 if end == "right" else 6, 8)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        annotation = left.annotate(text, (best.score, best.f1), offset, textcoords="offset points")
        annotation.update({"ha": end, "fontsize": FONT - 1, "bbox": box})
    shown = [k for k, point in enumerate(thresholds.by_class) if point.score is not None]
    draw_class_lines(right, [(curve.score_G, thresholds.class_curves[k].f1_G, names[k]) for k in shown])
    best_points = [thresholds.by_class[k] for k in shown]
    color = MUTED if len(shown) <= NAMED_CLASSES else COLORS[1]
    best_scores, best_f1 = [point.score for point in best_points], [point.f1 for point in best_points]
    right.plot(best_scores, best_f1, "o", color=color, markersize=4, label="best of each")
    for axes in (left, right):
        axes.set(xlim=(curve.score_G[0], curve.score_G[-1]), ylim=(0, 1.02))
    tidy(left, "score threshold", "", "all classes together")
    tidy(right, "score threshold", "F1", "F1 of each class")
    left.legend(loc="best", fontsize=FONT - 1, frameon=False)
    right.legend(loc="upper right", fontsize=FONT - 2, frameon=True, framealpha=0.85, edgecolor="none")
    return save_figure(figure, path)
