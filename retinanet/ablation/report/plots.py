"""The report's plots: points of every seed, differences, learning curves, precision over recall, score histograms.

Each function draws the panels of a plot, SVG files; `numbers` writes the plotted numbers next to them. AP is in points
from 0 to 100.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

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
    new_panel,
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


def draw_points(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """AP of every seed with mean and interval, and the difference to the reference, one line per arm."""
    styles = styles_of(data)
    height = 1.7 + 0.42 * len(data.arms)
    figure, axes = new_panel(height)
    for place, arm in enumerate(data.arms):
        _draw_arm_points(axes, arm, styles[arm.info.name], place)
    tidy(axes, "AP on the test split", "", "every seed, mean, 95 % interval")
    diverged = any(cell.record.status == CellStatus.DIVERGED for arm in data.arms for cell in arm.cells)
    handles = [
        Line2D([], [], color=INK, marker="o", linestyle="", alpha=0.45, label="one seed"),
        Line2D([], [], color=INK, marker="|", markersize=13, markeredgewidth=2, linestyle="", label="mean over seeds"),
        Line2D([], [], color=INK, linewidth=3, label="interval over images"),
        *([Line2D([], [], color=INK, marker="x", linestyle="", label="diverged (counts as 0)")] if diverged else []),
    ]
    points = _save_arms(figure, axes, data, handles, folder / "points.svg")
    figure, axes = new_panel(height)
    for place, arm in enumerate(data.arms):
        _draw_arm_difference(axes, arm, data, styles[arm.info.name], place)
    axes.axvline(0, color=INK, linewidth=1)
    tidy(axes, f"AP minus that of {shortened(data.result.reference)}", "", "difference, 95 % interval")
    handles = [
        Line2D([], [], color=INK, linewidth=3, label="over images"),
        Line2D([], [], color=INK, linewidth=1, label="over images and seeds"),
    ]
    return points, _save_arms(figure, axes, data, handles, folder / "differences.svg")


def _save_arms(figure: Figure, axes: Axes, data: ReportData, handles: list[Line2D], path: Path) -> Path:
    """A panel with one line per arm, named on its left."""
    axes.set_yticks(range(len(data.arms)), [_wrapped(arm.info.name) for arm in data.arms])
    axes.set_ylim(len(data.arms) - 0.5, -0.5)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=FONT - 1, frameon=False)
    return save_figure(figure, path)


def _draw_arm_difference(axes: Axes, arm: ArmData, data: ReportData, style: ArmStyle, place: int) -> None:
    found = arm.comparison
    if found is None or math.isnan(found.difference):
        why = "reference" if arm.info.name == data.result.reference else "not compared"
        note = axes.annotate(why, (0, place), (5, 0), textcoords="offset points", va="center")
        note.update({"fontsize": FONT - 1, "color": MUTED})
        return
    wider = [100 * found.seeds_low, 100 * found.seeds_high]
    axes.plot(wider, [place, place], color=style.color, linewidth=1, solid_capstyle="butt")
    axes.plot([100 * found.low, 100 * found.high], [place, place], color=style.color, linewidth=3)
    axes.plot(100 * found.difference, place, marker=style.marker, color=style.color, markersize=7)
    clear = found.verdict in (ArmVerdict.BETTER, ArmVerdict.WORSE)
    text = axes.text(1.03, place, signed_points(found.difference), va="center", transform=axes.get_yaxis_transform())
    text.update({"color": INK if clear else MUTED, "weight": "bold" if clear else "normal", "fontsize": FONT - 1})


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


def draw_learning_curves(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """AP on val and training class loss over steps: mean and range of finished seeds, every other seed on its own."""
    figure, axes = _curve_panel(data)
    styles = styles_of(data)
    for arm in data.arms:
        curves = [(cell.record.status, evaluation_curve(cell)) for cell in arm.cells]
        _draw_band(axes, arm, curves, styles[arm.info.name])
    axes.set_ylim(bottom=0)
    validation = _save_curves(figure, axes, "AP on the validation split", "validation AP", folder / "validation_ap.svg")
    figure, axes = _curve_panel(data)
    everywhere: list[float] = []
    for arm in data.arms:
        losses = [(cell.record.status, class_loss_curve(cell)) for cell in arm.cells]
        _draw_band(axes, arm, losses, styles[arm.info.name])
        everywhere += [float(value) for _, curve in losses for value in curve.values]
    if everywhere and min(everywhere) > 0:
        axes.set_yscale("log")
        for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatted(FuncFormatter(_log_label))
    title = "training class loss"
    return validation, _save_curves(figure, axes, "class loss, each arm's own", title, folder / "class_loss.svg")


def _curve_panel(data: ReportData) -> tuple[Figure, Axes]:
    """A panel with room for a legend of all arms below."""
    return new_panel(3.3 + 0.19 * -(-len(data.arms) // 2))


def _save_curves(figure: Figure, axes: Axes, ylabel: str, title: str, path: Path) -> Path:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    tidy(axes, "step", ylabel, title)
    legend_below(figure, axes, 2)
    return save_figure(figure, path)


def _draw_band(axes: Axes, arm: ArmData, curves: list[tuple[CellStatus, StepCurve]], style: ArmStyle) -> None:
    """Mean and range of finished seeds; an unfinished seed is a thin line, with a cross at its end if it diverged."""
    done = [curve for status, curve in curves if status == CellStatus.DONE and len(curve.steps)]
    steps, values = common_steps(done)
    label = shortened(arm.info.name)
    if len(steps):
        marker = style.marker if len(steps) < 15 else ""
        lines = axes.plot(steps, values.mean(axis=0), linewidth=1.8, marker=marker, markersize=4.5, label=label)
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=style.color, alpha=0.15, linewidth=0)
    else:
        lines = axes.plot([], [], linewidth=1.8, label=f"{label} (unfinished)")
    for status, curve in curves:
        if status != CellStatus.DONE and len(curve.steps):
            lines += axes.plot(curve.steps, curve.values, linewidth=0.9)
            if status == CellStatus.DIVERGED:
                axes.plot(curve.steps[-1], curve.values[-1], marker="x", color=style.color, markersize=8)
    for line in lines:
        line.set(color=style.color, linestyle=style.dashes)


def draw_study_precision_recall(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """Interpolated precision over recall at IoU .5 and .75, the mean over classes and finished seeds."""
    styles, paths = styles_of(data), []
    for iou in PR_IOUS:
        figure, axes = _curve_panel(data)
        for arm in data.arms:
            curves = [precision_recall_curve(cell.matches, iou) for cell in arm.finished()]
            if curves:
                style, mean = styles[arm.info.name], np.mean(curves, axis=0)
                lines = axes.plot(RECALLS, mean, color=style.color, linewidth=1.7, label=shortened(arm.info.name))
                lines[0].set(linestyle=style.dashes)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        tidy(axes, "recall", "precision", f"IoU {iou:g}")
        legend_below(figure, axes, 2)
        paths.append(save_figure(figure, folder / f"precision_recall_{round(100 * iou)}.svg"))
    return tuple(paths)


def score_counts(arm: ArmData) -> tuple[np.ndarray, np.ndarray]:
    """Detections per finished seed in each of SCORE_BINS: true and false positives at IoU .5; needs a finished seed."""
    samples = [hit_and_miss_scores(cell.matches, 0.5) for cell in arm.finished()]
    hits = sum(np.histogram(sample.true_positives, SCORE_BINS)[0] for sample in samples) / len(samples)
    misses = sum(np.histogram(sample.false_positives, SCORE_BINS)[0] for sample in samples) / len(samples)
    return np.asarray(hits, float), np.asarray(misses, float)


def draw_score_histograms(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """Scores of true and false positives at IoU .5, one panel per arm, counts on one logarithmic scale."""
    styles, paths = styles_of(data), []
    counts = {arm.info.name: score_counts(arm) for arm in data.arms if arm.finished()}
    least = 0.5 / max([1, *(len(arm.finished()) for arm in data.arms)])
    most = max([10 * least, *(float(part.max()) for pair in counts.values() for part in pair)])
    for number, arm in enumerate(data.arms, 1):
        figure, panel = new_panel(2.6)
        panel.set(xlim=(0, 1), yscale="log", ylim=(least, 1.5 * most))
        panel.yaxis.set_major_formatter(
            FuncFormatter(lambda count, _place: f"{count:,.0f}" if count >= 1 else f"{count:g}")
        )
        panel.yaxis.set_minor_formatter(NullFormatter())
        tidy(panel, "score", "detections per seed", shortened(arm.info.name, 34))
        if arm.info.name not in counts:
            panel.text(0.5, 0.5, "no finished seed", ha="center", color=MUTED, transform=panel.transAxes)
        else:
            hits, misses = (np.maximum(part, least) for part in counts[arm.info.name])
            panel.stairs(misses, SCORE_BINS, baseline=least, fill=True, color=FALSE_COLOR, alpha=0.55, label="false")
            panel.stairs(
                hits, SCORE_BINS, baseline=least, color=styles[arm.info.name].color, linewidth=1.8, label="true"
            )
            legend_below(figure, panel, 2)
        paths.append(save_figure(figure, folder / f"scores_{number}.svg"))
    return tuple(paths)


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
