"""The picture of how anchors fit: best IoU over all boxes, and what becomes of boxes by size and by level."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from retinanet.build import build_anchor_spec, build_resize_rule
from retinanet.config.schema import AssignKeys, Config
from retinanet.data.coco import CocoDataset
from retinanet.diagnostics.anchors.recall import BY_LEVEL, BY_SIDE, AnchorRecall, Group, anchor_recall, place_boxes
from retinanet.display.document.blocks import Block, Heading, Picture
from retinanet.display.figures import COLORS, FONT, INK, MUTED, new_figure, save_figure, tidy
from retinanet.errors import ConfigError
from retinanet.files import write_csv

SIZE_COLORS = {"small": COLORS[1], "medium": COLORS[2], "large": COLORS[0]}
POSITIVE, IGNORED, MISSED = COLORS[0], COLORS[4], COLORS[1]
SUFFIXES = (".png", ".jpg", ".jpeg")
HATCHES = {POSITIVE: "", IGNORED: "////", MISSED: "xxxx"}


def check_picture(path: Path) -> None:
    """ConfigError unless a picture can have this path: a folder or a suffix of no picture cannot."""
    if path.is_dir():
        raise ConfigError(f"--output: {path} is a folder; give the picture's own name, such as {path / 'anchors.png'}")
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output: {path}: a picture's name must end in one of {', '.join(SUFFIXES)}")


def draw_recall(path: Path, title: str, recall: AnchorRecall, other: AnchorRecall | None = None) -> Path:
    """Write the picture of `recall`, with the curves of `other` anchors on the same boxes dashed; returns the path.

    Raises as `visualize.save_picture`.
    """
    figure = new_figure(11.0, 4.6)
    figure.suptitle(title, fontsize=FONT + 1, color=INK)
    curves, sides, levels = figure.subplots(1, 3, width_ratios=(5, 5, 3.4))
    _draw_curves(curves, recall, other)
    _draw_shares(sides, recall.of(BY_SIDE), BY_SIDE + ", pixels")
    _draw_shares(levels, recall.of(BY_LEVEL), BY_LEVEL)
    negative, positive = recall.thresholds
    texts = ((POSITIVE, f"IoU ≥ {positive:g}"), (IGNORED, f"{negative:g} to {positive:g}"), (MISSED, f"< {negative:g}"))
    handles = [Patch(facecolor=color, hatch=HATCHES[color], edgecolor="white", label=text) for color, text in texts]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=FONT - 1, frameon=False)
    return save_figure(figure, path)


def _draw_curves(axes: Axes, recall: AnchorRecall, other: AnchorRecall | None) -> None:
    """Share of boxes whose best IoU is at least so high, for each of COCO's sizes."""
    for threshold in recall.thresholds:
        axes.axvline(threshold, color=MUTED, linewidth=0.8, linestyle=":")
    for number, (name, color) in enumerate(SIZE_COLORS.items()):
        count = int(np.count_nonzero(recall.size_N == number))
        if count:
            axes.plot(*_reached(recall, number), color=color, linewidth=1.8, label=f"{name} ({count:,} boxes)")
        if count and other is not None:
            axes.plot(*_reached(other, number), color=color, linewidth=1.4, linestyle=(0, (4, 2)))
    if other is not None:
        axes.plot([], [], color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label="suggested anchors")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(axes, "best IoU with any anchor", "boxes with at least this IoU")
    axes.legend(loc="lower left", fontsize=FONT - 1, frameon=False)


def _reached(recall: AnchorRecall, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Levels of IoU and the share of boxes of a size that reach each."""
    levels = np.linspace(0.0, 1.0, 201)
    iou_M = np.sort(recall.iou_N[recall.size_N == size])
    return levels, 1 - np.searchsorted(iou_M, levels) / len(iou_M)


def _draw_shares(axes: Axes, groups: Sequence[Group], xlabel: str) -> None:
    """Boxes of each group: positive, ignored and missed shares, their number above."""
    for place, group in enumerate(groups):
        bottom = 0.0
        for count, color in ((group.positive, POSITIVE), (group.ignored, IGNORED), (group.missed, MISSED)):
            share = count / max(group.boxes, 1)
            axes.bar(place, share, 0.78, bottom, color=color, hatch=HATCHES[color], edgecolor="white", linewidth=0)
            bottom += share
        axes.text(place, 1.015, f"{group.boxes:,}", ha="center", fontsize=FONT - 2, color=MUTED)
    many = len(groups) > 5
    axes.set_xticks(range(len(groups)), [group.name for group in groups], rotation=35 if many else 0)
    if many:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 1.07)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy(axes, xlabel, "")
    axes.grid(visible=False, axis="x")


def anchor_section(config: Config, dataset: CocoDataset, plots: Path) -> list[Block]:
    """How well the config's anchors cover the objects; anchors.png and anchors.csv go into `plots`."""
    placed = place_boxes(dataset.images, build_resize_rule(config))
    if not len(placed.boxes_N4):
        return []
    positive, negative = config.assign.positive_iou, config.assign.negative_iou
    spec = build_anchor_spec(config.model)
    found = anchor_recall(placed, spec, positive_iou=positive, negative_iou=negative)
    whole = found.overall
    below = f"{whole.boxes - whole.positive:,} of {whole.boxes:,} are, {whole.missed:,} of them below {negative:g}"
    write_csv(plots / "anchors.csv", Group._fields, found.groups)
    return [
        Heading("Anchors"),
        Picture(
            draw_recall(plots / "anchors.png", f"the best anchor of each of {whole.boxes:,} boxes", found),
            "Best IoU that any anchor has with each object, by size and by level",
            f"Left: the share of objects whose best anchor has at least that IoU. An object below {positive:g} is "
            f"learned by {learned_by(config.assign)}: {below}. Middle and right: the same by size on the canvas and "
            "by pyramid level. `retinanet anchors` with the same config suggests anchors that fit better.",
        ),
    ]


def learned_by(rule: AssignKeys) -> str:
    """Which anchors learn an object whose best IoU is below the positive threshold."""
    if not rule.low_quality:
        return "no anchor (assign.low_quality is off), and training cannot mend that"
    least = f" and at an IoU of at least {rule.low_quality_min_iou:g}" if rule.low_quality_min_iou else ""
    return f"its best anchors alone{least} (assign.low_quality is on)"
