"""The same test images by every arm: ground truth first, then each arm's detections, right and wrong.

Legend: K classes, G objects and D detections of an image; boxes are (x1, y1, x2, y2) in pixels of the stored image.
"""

from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from retinanet.ablation.report.data import ArmData, MeasuredCell, ReportData, detections_path
from retinanet.data.coco import ImageRecord, load_coco
from retinanet.data.images import decode_image
from retinanet.data.results import read_results
from retinanet.display.drawing import (
    INK,
    OBJECT_COLOR,
    PAPER,
    RIGHT_COLOR,
    WRONG_COLOR,
    Boxes,
    BoxStyle,
    Picture,
    add_title,
    contact_sheet,
    draw_boxes,
    fitted_size,
    save_picture,
)
from retinanet.display.fonts import text_font
from retinanet.run.pictures import evenly_spaced
from retinanet.scoring.evaluation import above_score
from retinanet.scoring.matches import IGNORED, IOUS, TRUE_POSITIVE, Matches, hit_and_miss_scores

IMAGES = 8
WIDTH = 236
"""Pixels of an image in the grid."""
LABEL_WIDTH, LABEL_HEIGHT = 180, 110
MUTED = (118, 118, 118)
STYLE = BoxStyle(width=2, halo=True, enlarge=1)
MOST_DETECTIONS = 100
"""COCO's limit of an image and class, up to which `Matches` goes."""


class ImageDetections(NamedTuple):
    """Detections of one image that are drawn: those that are evaluated, so none that matches a crowd."""

    boxes_D4: NDArray[np.float64]
    right_D: NDArray[np.bool_]
    """Whether each is a true positive at IoU .5."""
    objects: int
    """Number of objects of the image that are evaluated (no crowds)."""


class Row(NamedTuple):
    """The row of one arm."""

    arm: str
    remark: str
    """Seed and threshold, or the reason why there are no detections."""
    threshold: float
    found: tuple[ImageDetections, ...]
    """One per image; empty if the arm has no finished seed."""


class Grid(NamedTuple):
    """The contents of the picture and of its CSV file."""

    images: tuple[ImageRecord, ...]
    rows: tuple[Row, ...]


def best_f1_score(matches: Matches) -> float:
    """The score threshold with the best F1 at IoU .5 over all classes; 1 if there is no true positive.

    Arms' scores are on different scales, so a fixed threshold would favour some of them.
    """
    samples = hit_and_miss_scores(matches, 0.5)
    objects = sum(int(found.objects_AN[0].sum()) for found in matches.classes)
    if len(samples.true_positives) == 0:
        return 1.0
    scores = np.unique(np.concatenate(samples))
    hits = len(samples.true_positives) - np.searchsorted(np.sort(samples.true_positives), scores)
    misses = len(samples.false_positives) - np.searchsorted(np.sort(samples.false_positives), scores)
    return float(scores[np.argmax(2 * hits / (hits + misses + objects))])


def build_grid(data: ReportData) -> Grid:
    """The images, evenly spread over those with objects, and each arm's detections by its first finished seed."""
    dataset = load_coco(data.result.test_annotations, data.result.test_images)
    images = tuple(evenly_spaced(dataset.images, IMAGES))
    return Grid(images, tuple(_row(arm, images, data) for arm in data.arms))


def _row(arm: ArmData, images: tuple[ImageRecord, ...], data: ReportData) -> Row:
    finished = arm.finished()
    if not finished:
        statuses = sorted({cell.record.status for cell in arm.cells})
        remark = f"no finished seed: {', '.join(statuses) or 'nothing run'}"
        return Row(arm=arm.info.name, remark=remark, threshold=1.0, found=())
    cell = finished[0]
    threshold = best_f1_score(cell.matches)
    results = read_results(detections_path(cell), data.ground_truth)
    if data.threshold is not None:
        results = above_score(results, data.threshold)
    found = tuple(_found(cell, image.id, results, threshold) for image in images)
    remark = f"seed {cell.record.seed}, score ≥ {threshold:.2f}"
    return Row(arm=arm.info.name, remark=remark, threshold=threshold, found=found)


def _found(cell: MeasuredCell, image_id: int, results: list[dict[str, Any]], threshold: float) -> ImageDetections:
    """Detections of an image with at least a score, each with the result of its matching."""
    matches = cell.matches
    image = int(np.searchsorted(matches.image_ids_I, image_id))
    half = int(np.argmin(np.abs(IOUS - 0.5)))
    of_image = [row for row in results if row["image_id"] == image_id]
    corners, right, objects = [], [], 0
    for known in matches.classes:
        # `Matches` sorts an image's detections of a class by falling score, ties as in the results, as done here.
        rows = sorted((r for r in of_image if r["category_id"] == known.category_id), key=lambda r: -r["score"])
        outcomes = known.outcome_ATD[0, half, known.image_D == image]
        for row, outcome in zip(rows[:MOST_DETECTIONS], outcomes, strict=True):
            if row["score"] >= threshold and outcome != IGNORED:
                x, y, width, height = row["bbox"]
                corners.append((x, y, x + width, y + height))
                right.append(outcome == TRUE_POSITIVE)
        objects += int(known.objects_AN[0, known.object_image_N == image].sum())
    return ImageDetections(
        boxes_D4=np.array(corners, float).reshape(-1, 4), right_D=np.array(right, bool), objects=objects
    )


def draw_same_images(grid: Grid, path: Path) -> Path:
    """Write the grid as JPEG: one row per arm, one column per image, ground truth first; returns the path."""
    pictures = [_thumbnail(record) for record in grid.images]
    cells = [_row_label("ground truth", f"{sum(len(image.boxes_G4) for image in grid.images)} objects")]
    for record, (picture, scale) in zip(grid.images, pictures):
        objects = Boxes(record.boxes_G4.astype(float) * scale, [OBJECT_COLOR] * len(record.boxes_G4))
        cells.append(add_title(draw_boxes(picture, objects, STYLE), record.path.name[-26:]))
    for row in grid.rows:
        cells.append(_row_label(row.arm, row.remark))
        for found, (picture, scale) in zip(row.found, pictures):
            cells.append(add_title(_draw_found(picture, found, scale), counts_text(found)))
        cells += [np.full((1, 1, 3), PAPER, np.uint8)] * (0 if row.found else len(pictures))
    save_picture(path, contact_sheet([contact_sheet(cells, 1 + len(pictures)), _key()], 1))
    return path


def _draw_found(picture: Picture, found: ImageDetections, scale: float) -> Picture:
    """Right detections on top; wrong ones dashed, so that no verdict rests on colour alone."""
    order = np.argsort(~found.right_D, kind="stable")
    right = found.right_D[order].tolist()
    boxes = Boxes(
        boxes_D4=found.boxes_D4[order] * scale,
        colors=[RIGHT_COLOR if is_right else WRONG_COLOR for is_right in right],
        dashed=[not is_right for is_right in right],
    )
    return draw_boxes(picture, boxes, STYLE)


def counts_text(found: ImageDetections) -> str:
    """Numbers of right and wrong detections that are drawn, and of objects without one."""
    right = int(found.right_D.sum())
    return f"{right} right, {len(found.right_D) - right} wrong, {max(found.objects - right, 0)} missed"


def _thumbnail(record: ImageRecord) -> tuple[Picture, float]:
    """The image at the grid's width (or less, for a tall one) and its scale."""
    image = Image.fromarray(decode_image(record.path).permute(1, 2, 0).numpy())
    scale = min(WIDTH / image.width, 1.25 * WIDTH / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.array(image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)), scale


def _row_label(name: str, remark: str) -> Picture:
    """The cell at the left of a row: an arm's name in at most three lines, and a remark."""
    cell = Image.new("RGB", (LABEL_WIDTH, LABEL_HEIGHT), PAPER)
    draw = ImageDraw.Draw(cell)
    lines, small = "\n".join(wrap(name, 18)[:3]), "\n".join(wrap(remark, 22))
    draw.multiline_text((0, 4), lines, fill=INK, font=text_font(fitted_size(lines, 16, LABEL_WIDTH)))
    top = 4 + 21 * (1 + lines.count("\n"))
    draw.multiline_text((0, top), small, fill=MUTED, font=text_font(fitted_size(small, 13, LABEL_WIDTH)))
    return np.array(cell)


def _key() -> Picture:
    """What the outlines mean."""
    texts = ("object", "right: class and IoU ≥ 0.5", "wrong (dashed): a false positive")
    font = text_font(14)
    lefts = np.cumsum([0, *(60 + round(font.getlength(text)) for text in texts)])
    key = Image.new("RGB", (int(lefts[-1]), 20), PAPER)
    draw = ImageDraw.Draw(key)
    for left, text in zip(lefts.tolist(), texts):
        draw.text((left + 36, 10), text, fill=INK, font=font, anchor="lm")
    samples = [(left + 2, 3, left + 28, 18) for left in lefts[:-1].tolist()]
    boxes = Boxes(samples, [OBJECT_COLOR, RIGHT_COLOR, WRONG_COLOR], dashed=[False, False, True])
    return draw_boxes(np.array(key), boxes, STYLE)
