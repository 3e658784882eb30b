"""The anchors' own recall as a section of an evaluation's report."""

from pathlib import Path

from retinanet.anchor_fit.placed import place_boxes
from retinanet.anchor_fit.plot import draw_recall
from retinanet.anchor_fit.recall import Group, anchor_recall
from retinanet.build import build_sizing
from retinanet.config import Assign, Config
from retinanet.data.coco import CocoDataset
from retinanet.document.blocks import Block, Heading, Picture
from retinanet.model.retinanet import build_anchor_spec
from retinanet.run_folder import write_csv


def anchor_section(config: Config, dataset: CocoDataset, plots: Path) -> list[Block]:
    """How well the config's anchors cover the objects; anchors.png and anchors.csv go into `plots`."""
    placed = place_boxes(dataset.images, build_sizing(config))
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
            "by pyramid level. `tools/anchors.py` with the same config suggests anchors that fit better.",
        ),
    ]


def learned_by(rule: Assign) -> str:
    """Which anchors learn an object whose best IoU is below the positive threshold."""
    if not rule.low_quality:
        return "no anchor (assign.low_quality is off), and training cannot mend that"
    least = f" and at an IoU of at least {rule.low_quality_min_iou:g}" if rule.low_quality_min_iou else ""
    return f"its best anchors alone{least} (assign.low_quality is on)"
