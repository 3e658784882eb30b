"""How the anchors of a config fit its data: on the terminal, as a picture, as a section of a report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retinanet.build.network import build_anchor_spec
from retinanet.build.rules import build_resize_rule, build_view_rule
from retinanet.config.schema import AssignKeys, Config
from retinanet.data.coco import CocoDataset
from retinanet.data.views import tiled
from retinanet.diagnostics.anchors.recall import (
    ALL,
    BY_LEVEL,
    BY_SIDE,
    BY_SIZE,
    AnchorRecall,
    Group,
    PlacedBoxes,
    anchor_recall,
    place_boxes,
)
from retinanet.diagnostics.anchors.suggest import as_arguments, as_yaml, suggest_anchors
from retinanet.display.console import ABSENT, print_plain
from retinanet.display.document.blocks import Block, Heading, Panels
from retinanet.display.drawing import picture_format
from retinanet.display.figures import COLORS, FONT, INK, MUTED, new_figure, new_panel, save_figure, tidy
from retinanet.errors import ConfigError, DataError, printable
from retinanet.evaluation.splits import Split, load_split
from retinanet.files import write_csv
from retinanet.interop.start import resolve_model

FITS, MOSTLY = 0.98, 0.90
"""Fractions of boxes with an anchor at the positive threshold from which anchors fit, or fit most boxes."""
SIZE_COLORS = {"small": COLORS[1], "medium": COLORS[2], "large": COLORS[0]}
POSITIVE, IGNORED, MISSED = COLORS[0], COLORS[4], COLORS[1]
HATCHES = {POSITIVE: "", IGNORED: "////", MISSED: "xxxx"}


def report_anchors(config: Config, name: str, *, split: Split = "train", output: Path | None = None) -> None:
    """Print how a config's anchors fit a split of its data, and better anchors where there are any.

    name: the config's name in the picture's title; output: the picture's file, if one is wanted. Raises ConfigError for
    an output that cannot be a picture (before anything is measured), DataError for data that cannot be used or have no
    object to measure, ResourceError where the picture cannot be written.
    """
    if output is not None:
        check_picture(output)
    config, _ = resolve_model(config)
    # Image files must exist, but only their sizes in the annotations matter.
    dataset = load_split(config.data, split, "none")
    placed, now = measure_anchors(config, dataset)
    if not len(placed.boxes_N4):
        raise DataError(f"{dataset.annotation_file}: no image has a usable box, so there is nothing to fit anchors to.")
    console = Console()
    console.print(recall_table(now))
    console.print(worst_table(now, dataset))
    print_plain(console, "\n" + describe_fit(now, config.assign))
    print_plain(console, where_measured(placed, config))
    better = suggest_anchors(placed, build_anchor_spec(config.model), now, config.seed)
    if better is None:
        print_plain(console, "\nNo better anchors were found with these numbers of scales and aspect ratios.")
    else:
        print_plain(console, "\n" + comparison(now, better[1]))
        print_plain(console, f"\nAs arguments, to add to a command line:\n{as_arguments(better[0])}")
        print_plain(console, f"\nOr as lines below `model:` in a config, replacing these keys:\n{as_yaml(better[0])}")
    if output is not None:
        title = f"{name} on {dataset.annotation_file.name}: the best anchor of each of {len(now.iou_N):,} boxes"
        draw_recall(output, title, now, better[1] if better else None)
        print_plain(console, f"\nwritten to {output}")


def measure_anchors(config: Config, dataset: CocoDataset) -> tuple[PlacedBoxes, AnchorRecall]:
    """The objects of a data set on the canvases of a config, and the recall of the config's anchors."""
    placed = place_boxes(tiled(dataset, build_view_rule(config)).images, build_resize_rule(config))
    positive, negative = config.assign.positive_iou, config.assign.negative_iou
    spec = build_anchor_spec(config.model)
    return placed, anchor_recall(placed, spec, positive_iou=positive, negative_iou=negative)


def recall_table(recall: AnchorRecall) -> Table:
    """Best IoU by size and level."""
    negative, positive = recall.thresholds
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, title="Best anchor of each box", title_justify="left")
    table.add_column("", no_wrap=True)
    headings = ("boxes", "mean IoU", f"IoU >= {positive:g}", f"{negative:g} to {positive:g}", f"< {negative:g}")
    for heading in headings:
        table.add_column(heading, justify="right")
    titles = {
        ALL: "",
        BY_SIZE: "by size in the image (COCO)",
        BY_SIDE: "by side on the canvas (px)",
        BY_LEVEL: "by level of the best anchor",
    }
    for by, title in titles.items():
        if title:
            table.add_row(f"[bold]{title}")
        for group in recall.of(by):
            table.add_row(*_cells(group))
    return table


def _cells(group: Group) -> Sequence[str]:
    if not group.boxes:
        return (group.name, "0", *[ABSENT] * 4)
    shares = (f"{100 * count / group.boxes:.1f} %" for count in (group.positive, group.ignored, group.missed))
    return (group.name, f"{group.boxes:,}", f"{group.mean_iou:.3f}", *shares)


def worst_table(recall: AnchorRecall, dataset: CocoDataset) -> Table:
    """The boxes that the anchors fit worst."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, title="\nWorst boxes", title_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class")
    for heading in ("canvas x, y", "width x height", "best IoU", "level"):
        table.add_column(heading, justify="right")
    names = {record.id: record.path.name for record in dataset.images}
    for box in recall.worst:
        x1, y1, x2, y2 = box.box
        place, sides = f"{x1:.0f}, {y1:.0f}", f"{x2 - x1:.1f} x {y2 - y1:.1f}"
        name = dataset.categories[box.class_index].name
        file, label = (Text(printable(text)) for text in (names[box.image_id], name))
        table.add_row(file, label, place, sides, f"{box.iou:.3f}", box.level)
    return table


def describe_fit(recall: AnchorRecall, rule: AssignKeys) -> str:
    """Whether the anchors fit, in one sentence; there must be a box."""
    overall, positive = recall.overall, recall.thresholds[1]
    share = overall.positive / overall.boxes
    text = (
        f"{percent(share)} of {overall.boxes:,} boxes have an anchor of IoU {positive:g} or more (mean best IoU "
        f"{overall.mean_iou:.3f})"
    )
    if share >= FITS:
        return f"The anchors fit: {text}."
    below = max(recall.of(BY_SIDE), key=lambda group: group.boxes - group.positive)
    part = percent((below.boxes - below.positive) / (overall.boxes - overall.positive))
    most = f"{part} of the others have a side of {below.name} pixels on the canvas"
    if rule.kind == "atss":
        rest = "assign.kind: atss gives each box a threshold of its own"
    elif rule.low_quality:
        rest = "assign.low_quality still assigns each of those its best anchor"
    else:
        rest = "without assign.low_quality no anchor is trained on those"
    opening = "The anchors fit most boxes" if share >= MOSTLY else "The anchors do not fit"
    return f"{opening}: {text}; {most}, and {rest}."


def where_measured(placed: PlacedBoxes, config: Config) -> str:
    """Canvases and shorter side for which the numbers hold."""
    canvases = ", ".join(f"{height}x{width}" for height, width in placed.canvases[:7])
    more = ", ..." if len(placed.canvases) > 7 else ""
    side = f" at shorter side {config.data.shorter_side[-1]}" if len(config.data.shorter_side) > 1 else ""
    return f"Measured without augmentation{side}; canvases (height x width): {canvases}{more}."


def comparison(now: AnchorRecall, better: AnchorRecall) -> str:
    """Recall before and after, in one sentence."""
    positive = now.thresholds[1]
    before, after = now.overall, better.overall
    return (
        f"As many anchors would fit better: mean best IoU {before.mean_iou:.3f} -> {after.mean_iou:.3f}, IoU >= "
        f"{positive:g} for {percent(before.positive / before.boxes)} -> {percent(after.positive / after.boxes)} "
        "of the boxes. They change the network, which has to be trained again."
    )


def percent(share: float) -> str:
    """A fraction in per cent with one decimal; 100.0 only for all."""
    return f"{min(100 * share, 99.9) if share < 1 else 100:.1f} %"


def check_picture(path: Path) -> None:
    """Raise ConfigError for a path that no picture can have: a folder, or a suffix of another kind of file."""
    if path.is_dir():
        raise ConfigError(f"--output: {path} is a folder; give the picture's own name, such as {path / 'anchors.png'}")
    picture_format(path)


def draw_recall(path: Path, title: str, recall: AnchorRecall, other: AnchorRecall | None = None) -> Path:
    """Write the picture of `recall`, with the curves of `other` anchors on the same boxes dashed; returns the path.

    Raises as `drawing.save_picture`.
    """
    figure = new_figure(11.0, 4.6)
    figure.suptitle(title, fontsize=FONT + 1, color=INK)
    curves, sides, levels = figure.subplots(1, 3, width_ratios=(5, 5, 3.4))
    _draw_curves(curves, recall, other)
    _draw_shares(sides, recall.of(BY_SIDE), BY_SIDE + ", pixels")
    _draw_shares(levels, recall.of(BY_LEVEL), BY_LEVEL)
    _legend(figure, recall)
    return save_figure(figure, path)


def draw_recall_panels(folder: Path, recall: AnchorRecall) -> tuple[Path, ...]:
    """The parts of `draw_recall` as panels of a report, without other anchors; returns their paths."""
    figure, axes = new_panel(3.6)
    _draw_curves(axes, recall, None)
    paths = [save_figure(figure, folder / "anchors.svg")]
    for by, name, below in ((BY_SIDE, "anchors_side", BY_SIDE + ", pixels"), (BY_LEVEL, "anchors_level", BY_LEVEL)):
        figure, axes = new_panel(3.6)
        _draw_shares(axes, recall.of(by), below)
        _legend(figure, recall)
        paths.append(save_figure(figure, folder / f"{name}.svg"))
    return tuple(paths)


def _legend(figure: Figure, recall: AnchorRecall) -> None:
    """What the colours of `_draw_shares` mean."""
    negative, positive = recall.thresholds
    texts = ((POSITIVE, f"IoU ≥ {positive:g}"), (IGNORED, f"{negative:g} to {positive:g}"), (MISSED, f"< {negative:g}"))
    handles = [Patch(facecolor=color, hatch=HATCHES[color], edgecolor="white", label=text) for color, text in texts]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=FONT - 1, frameon=False)


def _draw_curves(axes: Axes, recall: AnchorRecall, other: AnchorRecall | None) -> None:
    """Fraction of boxes whose best IoU reaches each level, for each of COCO's sizes."""
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
    """Levels of IoU, and the fraction of the boxes of a size that reach each level."""
    levels = np.linspace(0.0, 1.0, 201)
    iou_M = np.sort(recall.iou_N[recall.size_N == size])
    return levels, 1 - np.searchsorted(iou_M, levels) / len(iou_M)


def _draw_shares(axes: Axes, groups: Sequence[Group], xlabel: str) -> None:
    """Fractions of positive, ignored and missed boxes in each group, with the number of boxes above."""
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
    """How well the config's anchors cover the objects, as a report's section; writes anchors*.svg and anchors.csv."""
    placed, found = measure_anchors(config, dataset)
    if not len(placed.boxes_N4):
        return []
    negative, positive = found.thresholds
    whole = found.overall
    below = f"{whole.boxes - whole.positive:,} of {whole.boxes:,} are, {whole.missed:,} of them below {negative:g}"
    write_csv(plots / "anchors.csv", Group._fields, found.groups)
    return [
        Heading("Anchors"),
        Panels(
            draw_recall_panels(plots, found),
            "Best IoU that any anchor has with each object, by size and by level",
            f"Left: the share of objects whose best anchor has at least that IoU. An object below {positive:g} is "
            f"learned by {learned_by(config.assign)}: {below}. Middle and right: the same by size on the canvas and "
            "by pyramid level. `retinanet anchors` with the same config suggests anchors that fit better.",
        ),
    ]


def learned_by(rule: AssignKeys) -> str:
    """Which anchors are trained on an object whose best IoU is below the positive threshold."""
    if rule.kind == "atss":
        return "the anchors that ATSS selects by a threshold of the object's own (assign.kind is atss)"
    if not rule.low_quality:
        return "no anchor (assign.low_quality is off), which training cannot fix"
    least = f" and at an IoU of at least {rule.low_quality_min_iou:g}" if rule.low_quality_min_iou else ""
    return f"its best anchors alone{least} (assign.low_quality is on)"
