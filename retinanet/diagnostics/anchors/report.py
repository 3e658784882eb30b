"""How the anchors of a config fit its data, on the terminal and as a picture, and anchors that would fit better."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from retinanet.build import build_anchor_spec, build_resize_rule
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset, first_images, load_coco
from retinanet.data.root import check_data_root
from retinanet.diagnostics.anchors.plot import check_picture, draw_recall
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
from retinanet.errors import DataError

FITS, MOSTLY = 0.98, 0.90
"""Shares of boxes with an anchor at the positive threshold from which anchors fit, or fit most boxes."""
NOTHING = "-"


def report_anchors(
    config: Config, name: str, *, split: Literal["train", "val"] = "train", output: Path | None = None
) -> None:
    """Print the fit of a config's anchors to a split of its data, and better anchors where there are any.

    name: what the picture calls the config; output: a picture to write too. Raises ConfigError for an output that is no
    picture's name (before anything is measured), DataError for data that cannot be used or have no object to measure,
    ResourceError where the picture cannot be written.
    """
    if output is not None:
        check_picture(output)
    dataset = load_split(config, split)
    placed = place_boxes(dataset.images, build_resize_rule(config))
    if not len(placed.boxes_N4):
        raise DataError(f"{dataset.annotation_file}: no image has a usable box, so there is nothing to fit anchors to.")
    spec = build_anchor_spec(config.model)
    thresholds = (config.assign.positive_iou, config.assign.negative_iou)
    now = anchor_recall(placed, spec, positive_iou=thresholds[0], negative_iou=thresholds[1])
    console = Console()
    console.print(recall_table(now))
    console.print(worst_table(now, dataset))
    say(console, "\n" + verdict(now, low_quality=config.assign.low_quality))
    say(console, where_measured(placed, config))
    better = suggest_anchors(placed, spec, now, config.seed)
    if better is None:
        say(console, "\nNo anchors of as many scales and aspect ratios were found that fit better.")
    else:
        say(console, "\n" + comparison(now, better[1]))
        say(console, f"\nAs arguments, to add to a command line:\n{as_arguments(better[0])}")
        say(console, f"\nOr as lines under `model:` in a config, in place of these keys:\n{as_yaml(better[0])}")
    if output is not None:
        title = f"{name} on {dataset.annotation_file.name}: the best anchor of each of {len(now.iou_N):,} boxes"
        draw_recall(output, title, now, better[1] if better else None)
        say(console, f"\nwritten to {output}")


def load_split(config: Config, split: Literal["train", "val"]) -> CocoDataset:
    """The data set of a split. Its image files must be there, but are not opened."""
    data, root = config.data, Path(config.data.root)
    check_data_root(root)
    if split == "train":
        dataset = load_coco(root / data.train_annotations, root / data.train_images)
    else:
        dataset = load_coco(root / data.val_annotations, root / data.val_images)
    return first_images(dataset, data.limit)


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
        return (group.name, "0", *[NOTHING] * 4)
    shares = (f"{100 * count / group.boxes:.1f} %" for count in (group.positive, group.ignored, group.missed))
    return (group.name, f"{group.boxes:,}", f"{group.mean_iou:.3f}", *shares)


def worst_table(recall: AnchorRecall, dataset: CocoDataset) -> Table:
    """The boxes that fit worst."""
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
        table.add_row(names[box.image_id], name, place, sides, f"{box.iou:.3f}", box.level)
    return table


def verdict(recall: AnchorRecall, *, low_quality: bool) -> str:
    """Whether the anchors fit, in one sentence."""
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
    rest = (
        "assign.low_quality gives each of those its best anchor all the same"
        if low_quality
        else "without assign.low_quality no anchor learns those"
    )
    opening = "The anchors fit most boxes" if share >= MOSTLY else "The anchors do not fit"
    return f"{opening}: {text}; {most}, and {rest}."


def where_measured(placed: PlacedBoxes, config: Config) -> str:
    """What the numbers hold for."""
    canvases = ", ".join(f"{height}x{width}" for height, width in placed.canvases[:7])
    more = ", ..." if len(placed.canvases) > 7 else ""
    side = f" at shorter side {config.data.shorter_side[-1]}" if len(config.data.shorter_side) > 1 else ""
    return f"Measured without augmentation{side}; canvases (height x width): {canvases}{more}."


def comparison(now: AnchorRecall, better: AnchorRecall) -> str:
    """Before and after, in one sentence."""
    positive = now.thresholds[1]
    before, after = now.overall, better.overall
    return (
        f"These anchors, as many, fit better: mean best IoU {before.mean_iou:.3f} -> {after.mean_iou:.3f}, IoU "
        f">= {positive:g} for {percent(before.positive / before.boxes)} -> {percent(after.positive / after.boxes)} "
        "of the boxes. They make another network: train it anew."
    )


def percent(share: float) -> str:
    """A share in per cent with one decimal; never 100.0 where some are missing."""
    return f"{min(100 * share, 99.9) if share < 1 else 100:.1f} %"


def say(console: Console, text: str) -> None:
    """Text as it is: no markup, no colours, lines left whole so that they can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
