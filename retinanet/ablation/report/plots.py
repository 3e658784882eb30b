"""The report's plots: points of every seed, differences, learning curves, precision over recall, score histograms.

Each function draws one PNG; `numbers` writes the plotted numbers next to it. AP is in points from 0 to 100.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from retinanet.ablation.cells import CellStatus
from retinanet.ablation.report.data import (
    ArmData,
    ReportData,
    StepCurve,
    class_loss_curve,
    common_steps,
    evaluation_curve,
)
from retinanet.ablation.report.statistics import ArmVerdict
from retinanet.display.figures import (
    COLORS,
    FONT,
    INK,
    MUTED,
    as_text,
    legend_below,
    new_figure,
    save_figure,
    shortened,
    tidy,
)
from retinanet.display.numbers import signed_points
from retinanet.scoring.matches import RECALLS, hit_and_miss_scores, precision_recall_curve

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*")
FALSE_COLOR = "#9A9A9A"
PR_IOUS = (0.5, 0.75)
SCORE_BINS = np.linspace(0.0, 1.0, 41)


class ArmStyle(NamedTuple):
    """Style of one arm, the same in all pictures."""

    color: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str


def styles_of(data: ReportData) -> dict[str, ArmStyle]:
    """Arm name -> style, for every arm of the study."""
    return arm_styles([arm.info.name for arm in data.arms])


def draw_points(data: ReportData, path: Path) -> Path:
    """AP of every seed with mean and interval, and the difference to the reference, one line per arm."""
    styles = styles_of(data)
    figure = new_figure(9.0, 1.5 + 0.42 * len(data.arms))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(5, 4))
    for place, arm in enumerate(data.arms):
        style = styles[arm.info.name]
        _draw_arm_points(left, arm, style, place)
        if arm.comparison is not None and not math.isnan(arm.comparison.difference):
            found = arm.comparison
            wider = [100 * found.seeds_low, 100 * found.seeds_high]
            right.plot(wider, [place, place], color=style.color, linewidth=1, solid_capstyle="butt")
            right.plot([100 * found.low, 100 * found.high], [place, place], color=style.color, linewidth=3)
            right.plot(100 * found.difference, place, marker=style.marker, color=style.color, markersize=7)
            clear = found.verdict in (ArmVerdict.BETTER, ArmVerdict.WORSE)
            style_of_text = {
                "color": INK if clear else MUTED,
                "weight": "bold" if clear else "normal",
                "fontsize": FONT - 1,
            }
            where = right.get_yaxis_transform()
            text = right.text(1.03, place, signed_points(found.difference), va="center", transform=where)
            text.update(style_of_text)
        else:
            reference = arm.info.name == data.result.reference
            right.text(
                0, place, "  reference" if reference else "  not compared", va="center", fontsize=FONT - 1, color=MUTED
            )
    left.set_yticks(range(len(data.arms)), [_wrapped(arm.info.name) for arm in data.arms])
    left.set_ylim(len(data.arms) - 0.5, -0.5)
    right.axvline(0, color=INK, linewidth=1)
    tidy(left, "AP on the test split", "", "every seed, mean, 95 % interval")
    tidy(
        right,
        f"AP minus that of {shortened(data.result.reference)}",
        "",
        "difference, 95 % interval",
    )
    handles = [
        Line2D([], [], color=INK, marker="o", linestyle="", alpha=0.45, label="one seed"),
        Line2D([], [], color=INK, marker="|", markersize=13, markeredgewidth=2, linestyle="", label="mean over seeds"),
        Line2D([], [], color=INK, linewidth=3, label="interval over test images"),
        Line2D([], [], color=INK, linewidth=1, label="over images and seeds"),
        Line2D([], [], color=INK, marker="x", linestyle="", label="diverged (counts as 0)"),
    ]
    shown = (
        handles
        if any(cell.record.status == CellStatus.DIVERGED for arm in data.arms for cell in arm.cells)
        else handles[:4]
    )
    figure.legend(handles=shown, loc="outside lower center", ncols=5, fontsize=FONT - 1, frameon=False)
    return save_figure(figure, path)


def _log_label(value: float, _place: int) -> str:
    """Plain numbers at 1, 2 and 5 of each decade, no labels in between."""
    digit = round(value / 10 ** math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:g}" if digit in (1, 2, 5) else ""


def _draw_arm_points(axes: Axes, arm: ArmData, style: ArmStyle, place: int) -> None:
    if not arm.measured:
        axes.text(0.02, place, "no result", va="center", color=MUTED, transform=axes.get_yaxis_transform())
        return
    low, high = arm.interval()
    axes.plot([100 * low, 100 * high], [place + 0.16] * 2, color=style.color, linewidth=3)
    axes.plot(100 * arm.mean(), place + 0.16, marker="|", markersize=13, markeredgewidth=2, color=style.color)
    for cell in arm.measured:
        diverged = cell.record.status == CellStatus.DIVERGED
        value = 100 * max(float(cell.points_M[0]), 0.0)
        marker = "x" if diverged else style.marker
        axes.plot(value, place - 0.14, marker=marker, color=style.color, alpha=1 if diverged else 0.5, markersize=6)


def draw_learning_curves(data: ReportData, path: Path) -> Path:
    """AP on val and training class loss over steps: mean and range of finished seeds, every other seed on its own."""
    styles = styles_of(data)
    figure = new_figure(9.0, 4.3 + 0.22 * (len(data.arms) // 4))
    left, right = figure.subplots(1, 2)
    everywhere: list[float] = []
    for arm in data.arms:
        style = styles[arm.info.name]
        _draw_band(left, arm, [(cell.record.status, evaluation_curve(cell)) for cell in arm.cells], style)
        losses = [(cell.record.status, class_loss_curve(cell)) for cell in arm.cells]
        _draw_band(right, arm, losses, style)
        everywhere += [float(value) for _, curve in losses for value in curve.values]
    if everywhere and min(everywhere) > 0:
        right.set_yscale("log")
        for formatted in (right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
            formatted(FuncFormatter(_log_label))
    left.set_ylim(bottom=0)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(left, "step", "AP on the validation split", "validation AP")
    tidy(right, "step", "class loss, each arm's own", "training class loss")
    legend_below(figure, left, 4)
    return save_figure(figure, path)


def _draw_band(axes: Axes, arm: ArmData, curves: list[tuple[CellStatus, StepCurve]], style: ArmStyle) -> None:
    """Mean and range of finished seeds; an unfinished seed is a thin line, with a cross at its end if it diverged."""
    done = [curve for status, curve in curves if status == CellStatus.DONE and len(curve.steps)]
    steps, values = common_steps(done)
    label = as_text(arm.info.name)
    if len(steps):
        marker = style.marker if len(steps) < 15 else ""
        lines = axes.plot(steps, values.mean(axis=0), linewidth=1.8, marker=marker, markersize=4.5, label=label)
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=style.color, alpha=0.15, linewidth=0)
    else:
        lines = axes.plot([], [], linewidth=1.8, label=f"{label} (no finished seed)")
    for status, curve in curves:
        if status != CellStatus.DONE and len(curve.steps):
            lines += axes.plot(curve.steps, curve.values, linewidth=0.9)
            if status == CellStatus.DIVERGED:
                axes.plot(curve.steps[-1], curve.values[-1], marker="x", color=style.color, markersize=8)
    for line in lines:
        line.set(color=style.color, linestyle=style.dashes)


def draw_study_precision_recall(data: ReportData, path: Path) -> Path:
    """Interpolated precision over recall at IoU .5 and .75, the mean over classes and finished seeds."""
    styles = styles_of(data)
    figure = new_figure(9.0, 4.3 + 0.22 * (len(data.arms) // 4))
    both = figure.subplots(1, 2, sharey=True)
    for axes, iou in zip(both, PR_IOUS):
        for arm in data.arms:
            curves = [precision_recall_curve(cell.matches, iou) for cell in arm.finished()]
            if curves:
                style = styles[arm.info.name]
                mean = np.mean(curves, axis=0)
                axes.plot(
                    RECALLS,
                    mean,
                    color=style.color,
                    linestyle=style.dashes,
                    linewidth=1.7,
                    label=as_text(arm.info.name),
                )
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        tidy(axes, "recall", "precision" if iou == PR_IOUS[0] else "", f"IoU {iou:g}")
    legend_below(figure, both[0], 4)
    return save_figure(figure, path)


def score_counts(arm: ArmData) -> tuple[np.ndarray, np.ndarray]:
    """Detections per finished seed in each of SCORE_BINS: true and false positives at IoU .5; needs a finished seed."""
    samples = [hit_and_miss_scores(cell.matches, 0.5) for cell in arm.finished()]
    hits = sum(np.histogram(sample.true_positives, SCORE_BINS)[0] for sample in samples) / len(samples)
    misses = sum(np.histogram(sample.false_positives, SCORE_BINS)[0] for sample in samples) / len(samples)
    return np.asarray(hits, float), np.asarray(misses, float)


def draw_score_histograms(data: ReportData, path: Path) -> Path:
    """Scores of true and false positives at IoU .5, one panel per arm, counts on one logarithmic scale."""
    styles = styles_of(data)
    columns = min(3, len(data.arms))
    rows = -(-len(data.arms) // columns)
    figure = new_figure(9.0, 0.9 + 2.2 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    least = 0.5 / max([1, *(len(arm.finished()) for arm in data.arms)])
    most = 10 * least
    for index, (panel, arm) in enumerate(zip(panels, data.arms)):
        panel.set(xlim=(0, 1), yscale="log")
        tidy(panel, "score" if index + columns >= len(data.arms) else "", "", shortened(arm.info.name, 34))
        panel.tick_params(labelbottom=True)
        if not arm.finished():
            panel.text(0.5, 0.5, "no finished seed", ha="center", color=MUTED, transform=panel.transAxes)
            continue
        hits, misses = (np.maximum(counts, least) for counts in score_counts(arm))
        most = max(most, float(hits.max()), float(misses.max()))
        panel.stairs(misses, SCORE_BINS, baseline=least, fill=True, color=FALSE_COLOR, alpha=0.55)
        panel.stairs(hits, SCORE_BINS, baseline=least, color=styles[arm.info.name].color, linewidth=1.8)
    panels[0].set_ylim(least, 1.5 * most)
    for panel in panels[len(data.arms) :]:
        panel.set_visible(False)
    figure.supylabel("detections per seed", fontsize=FONT)
    handles = [
        Line2D([], [], color=INK, linewidth=1.8, label="true positives (line, the arm's colour)"),
        Line2D([], [], color=FALSE_COLOR, linewidth=6, alpha=0.55, label="false positives (grey)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=FONT - 1, frameon=False)
    return save_figure(figure, path)


def _wrapped(name: str) -> str:
    """A name on at most two lines."""
    cut = name.rfind(" ", 0, 23)
    if len(name) <= 22 or cut < 1:
        return shortened(name)
    return f"{as_text(name[:cut])}\n{shortened(name[cut + 1 :], 24)}"


def arm_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """A style for each arm, by its place in the study: seven colours, then the same with other dashes; own markers."""
    return {
        name: ArmStyle(
            color=COLORS[index % len(COLORS)],
            dashes=DASHES[index // len(COLORS) % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
        )
        for index, name in enumerate(names)
    }
