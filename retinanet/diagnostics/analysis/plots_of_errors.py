"""The report's plots of what goes wrong: errors by type, confusion, calibration, and the choice of a threshold.

Legend: K classes, B bins. AP50 is in points from 0 to 100.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from retinanet.diagnostics.analysis.calibration import Reliability
from retinanet.diagnostics.analysis.confusion import Confusion
from retinanet.diagnostics.analysis.error_types import Cost, ErrorReport
from retinanet.diagnostics.analysis.plots import NAMED_CLASSES, WIDTH, draw_class_lines, say_nothing
from retinanet.diagnostics.analysis.thresholds import Thresholds
from retinanet.display.figures import COLORS, FONT, INK, MUTED, legend_below, new_figure, save_figure, shortened, tidy

WRITTEN_CELLS = 12
"""Classes up to which a confusion matrix has its counts written in."""
NAMED_CELLS = 30
"""Classes up to which it has the classes' names beside it."""


def draw_errors(path: Path, report: ErrorReport) -> Path:
    """AP50 that each kind of error costs, with how many there are."""
    figure = new_figure(WIDTH, 3.2)
    left, right = figure.subplots(1, 2, width_ratios=(6, 3))
    _draw_costs(left, report.main, COLORS[0])
    _draw_costs(right, report.special, COLORS[4])
    tidy(left, "AP50 gained without it, points", "", "kinds of error")
    tidy(right, "AP50 gained, points", "", "all errors of one side")
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    return save_figure(figure, path)


def _draw_costs(axes: Axes, costs: Sequence[Cost], color: str) -> None:
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
    """Counts over the objects of each true class; names while they can be read, counts while there is room."""
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
    axes.set_ylabel(f"the object is{where}", fontsize=FONT)
    return save_figure(figure, path)


def draw_calibration(path: Path, found: Reliability) -> Path:
    """Share of right detections over their score, and how many detections there are."""
    figure = new_figure(WIDTH, 3.9)
    left, right = figure.subplots(1, 2)
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    width = found.edges[1] - found.edges[0]
    left.bar(middles, np.nan_to_num(found.right_B), width=0.94 * width, color=COLORS[0], label="right detections")
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="score = share of right")
    left.plot(found.score_B, found.right_B, "o", color=COLORS[1], markersize=3.5, label="at the mean score")
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(left, "score", "right at IoU 0.5", "reliability" + ("" if np.isnan(found.ece) else f", ECE {found.ece:.3f}"))
    right.bar(middles, found.count_B, width=0.94 * width, color="#8fa3b5")
    if found.count_B.any():
        right.set_yscale("log")
        right.set_ylim(bottom=0.7)
    else:
        say_nothing(right, "no detections")
    right.set_xlim(0, 1)
    tidy(right, "score", "detections (logarithmic)", "how many detections")
    legend_below(figure, left, 3)
    return save_figure(figure, path)


def draw_thresholds(path: Path, thresholds: Thresholds, names: Sequence[str]) -> Path:
    """Precision, recall and F1 over the threshold: of all classes together, and F1 of each."""
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
        say_nothing(left, "no detection is right at any threshold")
    else:
        for axes in (left, right):
            axes.axvline(best.score, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        left.plot(best.score, best.f1, "o", color=COLORS[1], markersize=7)
        text = f"F1 {best.f1:.2f} from {best.score:.2f} on"
        end = "right" if best.score > curve.score_G[0] + 0.6 * (curve.score_G[-1] - curve.score_G[0]) else "left"
        offset = (-6 if end == "right" else 6, 8)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        look = {"ha": end, "fontsize": FONT - 1, "bbox": box}
        left.annotate(text, (best.score, best.f1), offset, textcoords="offset points").update(look)
    shown = [k for k, operation in enumerate(thresholds.by_class) if operation.score is not None]
    draw_class_lines(right, [(curve.score_G, thresholds.class_curves[k].f1_G, names[k]) for k in shown])
    points = [thresholds.by_class[k] for k in shown]
    color = MUTED if len(shown) <= NAMED_CLASSES else COLORS[1]
    right.plot([p.score for p in points], [p.f1 for p in points], "o", color=color, markersize=4, label="best of each")
    for axes in (left, right):
        axes.set(xlim=(curve.score_G[0], curve.score_G[-1]), ylim=(0, 1.02))
    tidy(left, "detections count from this score on", "", "all classes together")
    tidy(right, "detections count from this score on", "F1", "F1 of each class")
    left.legend(loc="best", fontsize=FONT - 1, frameon=False)
    right.legend(loc="upper right", fontsize=FONT - 2, frameon=True, framealpha=0.85, edgecolor="none")
    return save_figure(figure, path)
