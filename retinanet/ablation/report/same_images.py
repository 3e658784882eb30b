"""The same test images by every arm: ground truth first, then each arm's detections, right and wrong ones told apart.

Legend: K classes, G objects and D detections of an image; boxes are (x1, y1, x2, y2) in pixels of the stored image.
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from retinanet.ablation.report.data import ArmData, MeasuredCell, ReportData, detections_path
from retinanet.data.coco import ImageRecord, load_coco
from retinanet.data.images import decode_image
from retinanet.data.results import read_results
from retinanet.display.drawing import save_picture
from retinanet.run.pictures import spread
from retinanet.scoring.matches import IGNORED, IOUS, TRUE_POSITIVE, Matches, hit_and_miss_scores

IMAGES = 8
WIDTH = 236
"""Pixels of an image in the grid."""
GAP, LABEL_WIDTH, FOOT = 8, 190, 22
EMPTY_ROW = 110
"""Pixels of the row of an arm without a finished seed."""
RIGHT_COLOR = (64, 200, 255)
WRONG_COLOR = (255, 106, 19)
OBJECT_COLOR = (255, 221, 51)
HALO = (0, 0, 0)
INK, MUTED, PAPER = (34, 34, 34), (118, 118, 118), (255, 255, 255)
DASH = 5
MOST_DETECTIONS = 100
"""COCO's limit of an image and class, up to which `Matches` goes."""


class Found(NamedTuple):
    """Detections of one image that are drawn: those that count, so none that lies on a crowd."""

    boxes_D4: NDArray[np.float64]
    right_D: NDArray[np.bool_]
    """Whether each is a true positive at IoU .5."""
    objects: int
    """Objects of the image that count (no crowd)."""


class Row(NamedTuple):
    """One arm's row of the grid."""

    arm: str
    remark: str
    """Seed and threshold, or why there is nothing."""
    threshold: float
    found: tuple[Found, ...]
    """One an image; empty where the arm has no finished seed."""


class Grid(NamedTuple):
    """Everything in the picture, also as numbers for its CSV."""

    images: tuple[ImageRecord, ...]
    rows: tuple[Row, ...]


def best_f1_score(matches: Matches) -> float:
    """The score from which keeping detections gives the best F1 at IoU .5, over all classes; 1 without any hit.

    Arms' scores are on different scales, so one fixed threshold would flatter some of them.
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
    images = tuple(spread(dataset.images, IMAGES))
    return Grid(images, tuple(_row(arm, images, data.ground_truth) for arm in data.arms))


def _row(arm: ArmData, images: tuple[ImageRecord, ...], ground_truth: dict[str, Any]) -> Row:
    finished = arm.finished()
    if not finished:
        statuses = sorted({cell.status for cell in arm.cells})
        return Row(arm.info.name, f"no finished seed: {', '.join(statuses) or 'nothing run'}", 1.0, ())
    cell = finished[0]
    threshold = best_f1_score(cell.matches)
    results = read_results(detections_path(cell.result), ground_truth)
    found = tuple(_found(cell, image.id, results, threshold) for image in images)
    return Row(arm.info.name, f"seed {cell.result.seed}, score ≥ {threshold:.2f}", threshold, found)


def _found(cell: MeasuredCell, image_id: int, results: list[dict[str, Any]], threshold: float) -> Found:
    """Detections of an image from a score on, with the verdict that the matching gave each."""
    matches = cell.matches
    image = int(np.searchsorted(matches.image_ids_I, image_id))
    half = int(np.argmin(np.abs(IOUS - 0.5)))
    of_image = [row for row in results if row["image_id"] == image_id]
    corners, right, objects = [], [], 0
    for known in matches.classes:
        # `Matches` keeps an image's detections of a class best first, ties as in the results: the same order as here.
        rows = sorted((r for r in of_image if r["category_id"] == known.category_id), key=lambda r: -r["score"])
        outcomes = known.outcome_ATD[0, half, known.image_D == image]
        for row, outcome in zip(rows[:MOST_DETECTIONS], outcomes, strict=True):
            if row["score"] >= threshold and outcome != IGNORED:
                x, y, width, height = row["bbox"]
                corners.append((x, y, x + width, y + height))
                right.append(outcome == TRUE_POSITIVE)
        objects += int(known.objects_AN[0, known.object_image_N == image].sum())
    return Found(np.array(corners, float).reshape(-1, 4), np.array(right, bool), objects)


def draw_same_images(grid: Grid, path: Path) -> Path:
    """Write the grid as JPEG: a row an arm, a column an image, ground truth first."""
    pictures = [_thumbnail(record) for record in grid.images]
    height = max((picture.height for picture, _ in pictures), default=0)
    steps = [height + FOOT + GAP, *(height + FOOT + GAP if row.found else EMPTY_ROW for row in grid.rows)]
    sheet_size = (LABEL_WIDTH + len(pictures) * (WIDTH + GAP), sum(steps) + 26)
    sheet = Image.new("RGB", sheet_size, PAPER)
    draw = ImageDraw.Draw(sheet)
    _write_label(draw, 0, "ground truth", f"{sum(len(image.boxes_G4) for image in grid.images)} objects")
    for column, (record, (picture, scale)) in enumerate(zip(grid.images, pictures)):
        left = LABEL_WIDTH + column * (WIDTH + GAP)
        shown = _outlined(picture, record.boxes_G4.astype(float) * scale, [OBJECT_COLOR] * len(record.boxes_G4))
        sheet.paste(shown, (left, 0))
        draw.text((left, shown.height + 3), record.path.name[-26:], fill=MUTED, font=_font(12))
    for number, row in enumerate(grid.rows, 1):
        top = sum(steps[:number])
        _write_label(draw, top, row.arm, row.remark)
        for column, (found, (picture, scale)) in enumerate(zip(row.found, pictures)):
            corner = (LABEL_WIDTH + column * (WIDTH + GAP), top)
            colors = [RIGHT_COLOR if right else WRONG_COLOR for right in found.right_D]
            sheet.paste(_outlined(picture, found.boxes_D4 * scale, colors), corner)
            draw.text((corner[0], top + picture.height + 3), counts_text(found), fill=INK, font=_font(12))
    _write_key(draw, sheet_size[1] - 22)
    save_picture(path, np.array(sheet))
    return path


def counts_text(found: Found) -> str:
    """How many of the drawn detections are right and wrong, and how many objects have none."""
    right = int(found.right_D.sum())
    return f"{right} right, {len(found.right_D) - right} wrong, {max(found.objects - right, 0)} missed"


def _thumbnail(record: ImageRecord) -> tuple[Image.Image, float]:
    """The image at the grid's width (or less, for a tall one) and its scale."""
    image = Image.fromarray(decode_image(record.path).permute(1, 2, 0).numpy())
    scale = min(WIDTH / image.width, 1.25 * WIDTH / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC), scale


def _outlined(picture: Image.Image, boxes_D4: NDArray[np.float64], colors: list[tuple[int, int, int]]) -> Image.Image:
    """A copy with every box outlined on a dark halo; wrong ones dashed, so that no verdict rests on colour alone."""
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    for box, color in sorted(zip(boxes_D4, colors), key=lambda entry: entry[1] == RIGHT_COLOR):
        x1, y1 = (round(float(edge)) for edge in np.clip(box[:2], 0, [copy.width - 2, copy.height - 2]))
        x2, y2 = (round(float(edge)) for edge in np.clip(box[2:], 1, [copy.width, copy.height]) - 1)
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=HALO, width=4)
        if color == WRONG_COLOR:
            _dashed(draw, (x1, y1, x2, y2), color)
        else:
            draw.rectangle((x1, y1, x2, y2), outline=color, width=2)
    return copy


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], color: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = box
    for x in range(x1, x2 + 1, 2 * DASH):
        for y in (y1, y2 - 1):
            draw.rectangle((x, y, min(x + DASH, x2), y + 1), fill=color)
    for y in range(y1, y2 + 1, 2 * DASH):
        for x in (x1, x2 - 1):
            draw.rectangle((x, y, x + 1, min(y + DASH, y2)), fill=color)


def _write_label(draw: ImageDraw.ImageDraw, top: int, name: str, remark: str) -> None:
    """An arm's name, wrapped, and a remark in the column at the left."""
    y = top + 4
    for line in _wrapped(name, 16)[:3]:
        draw.text((6, y), line, fill=INK, font=_font(16))
        y += 21
    for line in _wrapped(remark, 13):
        draw.text((6, y + 3), line, fill=MUTED, font=_font(13))
        y += 17


def _wrapped(text: str, font_size: int) -> list[str]:
    """Lines that fit into the column at the left, broken at spaces; a longer word is cut."""
    font = _font(font_size)
    most = LABEL_WIDTH - 14
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= most:
            lines[-1] = joined
            continue
        while font.getlength(word) > most:
            word = word[:-2] + "…"
        lines.append(word)
    return lines


def _write_key(draw: ImageDraw.ImageDraw, top: int) -> None:
    """What the outlines mean."""
    x = LABEL_WIDTH
    for color, text in (
        (OBJECT_COLOR, "object"),
        (RIGHT_COLOR, "right: class and IoU ≥ 0.5"),
        (WRONG_COLOR, "wrong (dashed): a false positive"),
    ):
        draw.rectangle((x, top, x + 26, top + 15), fill=HALO)
        inner = (x + 2, top + 2, x + 24, top + 13)
        if color == WRONG_COLOR:
            _dashed(draw, inner, color)
        else:
            draw.rectangle(inner, outline=color, width=2)
        draw.text((x + 34, top), text, fill=INK, font=_font(14))
        x += 60 + round(_font(14).getlength(text))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, as in the plots; Pillow's has no Greek letters."""
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
