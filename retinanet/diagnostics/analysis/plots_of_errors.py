"""The report's plots of errors: types of error, confusion, calibration, and the choice of a threshold.

Legend: K classes, B bins. AP50 is in points from 0 to 100.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, PercentFormatter

from retinanet.diagnostics.analysis.plots import (
    GREY,
    ClassLine,
    draw_class_lines,
    named_lines,
    write_in_empty_panel,
)
from retinanet.display.figures import (
    COLORS,
    FONT,
    INK,
    MUTED,
    NAMED_LINES,
    ON_COLOR,
    PANEL,
    legend_below,
    new_panel,
    save_figure,
    shortened,
    tidy,
)
from retinanet.display.numbers import points
from retinanet.scoring.analysis.calibration import Reliability
from retinanet.scoring.analysis.confusion import Confusion, confused_classes
from retinanet.scoring.analysis.error_types import ErrorCost, ErrorReport
from retinanet.scoring.analysis.thresholds import Thresholds

ALL_CLASSES = 12
"""Maximum number of classes of a confusion matrix that is drawn whole; of more, those that are confused most."""


def draw_errors(folder: Path, report: ErrorReport) -> tuple[Path, ...]:
    """AP50 lost to each type of error and the count of each, and the same of all false positives and negatives."""
    paths = []
    for name, title, costs, color in (
        ("errors", "types of error: points (count)", report.main, COLORS[0]),
        ("error_totals", "totals: points (count)", report.special, COLORS[4]),
    ):
        figure, axes = new_panel(0.9 + 0.36 * len(costs))
        _draw_costs(axes, costs, color)
        tidy(axes, "AP50 gained without it, points", "", title)
        axes.grid(axis="y", visible=False)
        paths.append(save_figure(figure, folder / f"{name}.svg"))
    return tuple(paths)


def _draw_costs(axes: Axes, costs: Sequence[ErrorCost], color: str) -> None:
    values = [100 * cost.ap50 for cost in costs]
    places = np.arange(len(costs))
    axes.barh(places, values, height=0.6, color=color)
    axes.set_yticks(places, [cost.kind for cost in costs])
    axes.set_ylim(len(costs) - 0.4, -0.6)
    axes.set_xlim(0, 1.55 * max(1.0, *values))
    for place, (cost, value) in enumerate(zip(costs, values)):
        axes.annotate(
            f"{points(cost.ap50)} ({cost.errors:,})", (value, place), (4, 0), textcoords="offset points", va="center",
            fontsize=FONT - 1, color=INK,
        )  # fmt: skip


def draw_confusion(folder: Path, confusion: Confusion, names: Sequence[str]) -> tuple[Path, ...]:
    """Counts by true and detected class, by name: all up to ALL_CLASSES, else those that are confused most.

    Without a panel where there are more and none is confused.
    """
    counts = confusion.counts
    labels = [*(shortened(name, 16) for name in names), "background"]
    if len(names) > ALL_CLASSES:
        part = confused_classes(confusion, ALL_CLASSES)
        if not part.classes:
            return ()
        counts = part.counts
        labels = [*(labels[k] for k in part.classes), "other classes", "background"]
    of_row = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, of_row, out=np.zeros(counts.shape), where=of_row > 0)
    size = len(labels)
    figure, axes = new_panel(1.5 + 0.3 * size, max(PANEL, 1.6 + 0.36 * size))
    for row, column in np.argwhere(counts > 0).tolist():
        # The square root shows small shares; transparency suits light and dark pages.
        strength = float(np.sqrt(shares[row, column]))
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=COLORS[0], alpha=strength, linewidth=0)
        axes.add_patch(cell)
        ink = ON_COLOR if strength > 0.6 else INK
        axes.text(
            column, row, _short_count(counts[row, column]), ha="center", va="center", fontsize=FONT - 1, color=ink
        )
    axes.set_xticks(range(size), labels, fontsize=FONT - 1)
    for text in axes.get_xticklabels() if size > 3 else []:
        text.update({"rotation": 90, "ha": "right", "va": "center", "rotation_mode": "anchor"})
    axes.set_yticks(range(size), labels, fontsize=FONT - 1)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    tidy(axes, "detected as", "true class")
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    return (save_figure(figure, folder / "confusion.svg"),)


def _short_count(count: int) -> str:
    """A count of at most four characters."""
    return f"{count:,}" if count < 1000 else f"{count / 1000:.1f}k" if count < 10_000 else f"{count / 1000:.0f}k"


def draw_calibration(folder: Path, found: Reliability) -> tuple[Path, ...]:
    """Precision over score, and the number of detections by score."""
    figure, left = new_panel(3.6)
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    width = found.edges[1] - found.edges[0]
    left.bar(middles, np.nan_to_num(found.right_B), width=0.94 * width, color=COLORS[0], label="precision")
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="score = precision")
    left.plot(found.score_B, found.right_B, "o", color=COLORS[1], markersize=3.5, label="at the mean score")
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    ece = "" if np.isnan(found.ece) else f", ECE {found.ece:.3f}"
    tidy(left, "score", "precision at IoU 0.5", f"reliability{ece}")
    legend_below(figure, left, 2)
    reliability = save_figure(figure, folder / "calibration.svg")
    figure, right = new_panel(3.6)
    right.bar(middles, found.count_B, width=0.94 * width, color=GREY)
    if found.count_B.any():
        right.set_yscale("log")
        right.yaxis.set_major_locator(LogLocator(numticks=7))
        right.yaxis.set_major_formatter(FuncFormatter(lambda count, _place: f"{count:,.0f}"))
        right.set_ylim(bottom=0.7)
    else:
        write_in_empty_panel(right, "no detections")
    right.set_xlim(0, 1)
    tidy(right, "score", "", "number of detections (logarithmic)")
    return reliability, save_figure(figure, folder / "score_counts.svg")


def draw_thresholds(folder: Path, thresholds: Thresholds, names: Sequence[str]) -> tuple[Path, ...]:
    """Precision, recall and F1 of all classes together over the threshold, and F1 of each class."""
    curve, best = thresholds.curve, thresholds.overall
    figure, axes = new_panel(3.9)
    for values, label, color in (
        (curve.precision_G, "precision", COLORS[0]),
        (curve.recall_G, "recall", COLORS[2]),
        (curve.f1_G, "F1", COLORS[1]),
    ):
        axes.plot(curve.score_G, values, color=color, linewidth=2.2 if label == "F1" else 1.6, label=label)
    if best.score is None or best.f1 is None:
        write_in_empty_panel(axes, "no true positive at any threshold")
    else:
        axes.plot(best.score, best.f1, "o", color=COLORS[1], markersize=7)
        text = f"F1 {best.f1:.2f} at {best.score:.2f}"
        end = "right" if best.score > curve.score_G[0] + 0.6 * (curve.score_G[-1] - curve.score_G[0]) else "left"
        offset = (-6 if end == "right" else 6, 8)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        annotation = axes.annotate(text, (best.score, best.f1), offset, textcoords="offset points")
        annotation.update({"ha": end, "fontsize": FONT - 1, "bbox": box})
    together = _save_thresholds(figure, axes, thresholds, "all classes together", 3, folder / "thresholds.svg")
    shown = [k for k, point in enumerate(thresholds.by_class) if point.score is not None]
    figure, axes = new_panel(3.4 + 0.19 * (named_lines(len(shown)) + 2) / 2)
    lines, best_scores, best_f1 = [], [], []
    for k in shown:
        score, f1 = thresholds.by_class[k].score or 0.0, thresholds.by_class[k].f1 or 0.0
        y = thresholds.class_curves[k].f1_G
        lines.append(ClassLine(x=curve.score_G, y=y, name=names[k], value=f1, text=f"{f1:.2f}"))
        best_scores.append(score)
        best_f1.append(f1)
    draw_class_lines(axes, lines)
    size = 4 if len(shown) <= NAMED_LINES else 2.5
    axes.plot(best_scores, best_f1, "o", color=MUTED, markersize=size, label="best of each")
    return together, _save_thresholds(
        figure, axes, thresholds, "best F1 of each class", 2, folder / "class_thresholds.svg"
    )


def _save_thresholds(figure: Figure, axes: Axes, thresholds: Thresholds, title: str, columns: int, path: Path) -> Path:
    """The panel with the overall best threshold as a dashed line."""
    scores = thresholds.curve.score_G
    if thresholds.overall.score is not None:
        axes.axvline(thresholds.overall.score, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(scores[0], scores[-1]), ylim=(0, 1.02))
    tidy(axes, "score threshold", "", title)
    legend_below(figure, axes, columns)
    return save_figure(figure, path)
