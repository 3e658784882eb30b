"""Boxes on pictures: one drawer for detections, ground truth, anchors and verdicts.

Legend: H, W pixels of a picture; D boxes (detections or objects), G ground-truth boxes, P positive anchors; 4 is
(x1, y1, x2, y2) in pixels of the picture that is passed in, x2 and y2 exclusive. Pictures are (H, W, 3) uint8 RGB.
No torch here: tensors are passed in as NumPy arrays.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw, ImageOps

from retinanet.display.fonts import draw_line, text_width
from retinanet.errors import ConfigError
from retinanet.files import replacing

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

# Okabe and Ito's colour-blind-safe palette (jfly.uni-koeln.de/color) without black, and Tol's wine.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#882255")
_SHADES = (0.0, 0.41, -0.22, 0.61, -0.38, 0.29, 0.51, -0.08, 0.68, 0.09)
"""How far classes beyond the palette go from its colours towards white (above 0) or black (below 0)."""

# Brighter relatives of the palette's sky blue, vermillion and yellow, which stand out on photographs.
RIGHT_COLOR: Color = (64, 200, 255)
WRONG_COLOR: Color = (255, 106, 19)
OBJECT_COLOR: Color = (255, 221, 51)
PAPER: Color = (245, 245, 245)
INK: Color = (25, 25, 25)
_HALO: Color = (0, 0, 0)
_UNMATCHED: Color = (225, 30, 30)

READABLE_SIDE = 400
"""A picture whose longer side is shorter than this many pixels is enlarged before anything is written on it."""
_SMALLEST_FONT = 9
_CROWDED = 0.08
"""Share of a picture that labels may cover before it is enlarged or they are written smaller."""
_DASH = 5


class Boxes(NamedTuple):
    """Boxes of one picture; every sequence has one entry per box."""

    boxes_D4: ArrayLike
    """(D, 4); what lies outside the picture is cut off."""
    colors: Sequence[Color]
    labels: Sequence[str] = ()
    """Written on a tag of the box's colour; an empty one makes no tag, and () stands for empty ones."""
    scores: Sequence[float] | None = None
    """0..1; written after the label, and higher ones are drawn on top. None: earlier boxes are drawn on top."""
    dashed: Sequence[bool] = ()
    """() stands for solid outlines."""


class BoxStyle(NamedTuple):
    """How outlines are drawn."""

    width: int | None = None
    """Pixels; None grows with the picture. Boxes too small for it get thinner outlines."""
    halo: bool = False
    """A black edge on both sides of the outline, for boxes that must stand out on any picture."""
    enlarge: int | None = None
    """Size of the result as a multiple of the input's; None is 1, and more for small or crowded pictures."""


SOLID = BoxStyle()


def class_colors(count: int) -> list[Color]:
    """Colors of the first `count` classes; a class's color depends on its index only, and repeats after 80 classes."""
    colors: list[Color] = []
    for index in range(count):
        shade = _SHADES[index // len(PALETTE) % len(_SHADES)]
        goal = 255 if shade > 0 else 0
        base = ImageColor.getrgb(PALETTE[index % len(PALETTE)])[:3]
        red, green, blue = (round(value + (goal - value) * abs(shade)) for value in base)
        colors.append((red, green, blue))
    return colors


def draw_boxes(image_HW3: Picture, boxes: Boxes, style: BoxStyle = SOLID) -> Picture:
    """A copy of the picture with every box outlined and labelled; no label's tag covers another where there is room.

    Raises ValueError where the sequences of `boxes` differ in length.
    """
    boxes_D4 = np.asarray(boxes.boxes_D4, dtype=np.float64).reshape(-1, 4)
    count = len(boxes_D4)
    labels, dashed = boxes.labels or [""] * count, boxes.dashed or [False] * count
    scores = [0.0] * count if boxes.scores is None else boxes.scores
    if {count} != {len(boxes.colors), len(labels), len(scores), len(dashed)}:
        raise ValueError(
            f"boxes, colors, labels, scores and dashed differ in length: {count}, {len(boxes.colors)}, {len(labels)}, "
            f"{len(scores)} and {len(dashed)}"
        )
    if boxes.scores is not None:
        labels = [f"{label} {score:.2f}".strip() for label, score in zip(labels, scores)]
    factor = style.enlarge or _enlargement(image_HW3, labels)
    picture = _enlarged(image_HW3, factor)
    boxes_D4 = _inside(boxes_D4 * factor, picture.size)
    width = style.width or _line_width(picture.size)
    order = sorted(range(count), key=lambda index: -scores[index])
    draw = ImageDraw.Draw(picture)
    for index in reversed(order):
        _outline(draw, boxes_D4[index], boxes.colors[index], width, halo=style.halo, dashed=dashed[index])
    tagged = [index for index in order if labels[index]]
    _draw_tags(draw, boxes_D4[tagged], [labels[index] for index in tagged], [boxes.colors[index] for index in tagged])
    return np.array(picture)


def draw_ground_truth_and_predictions(
    image_HW3: Picture, ground_truth: Boxes, predictions: Boxes, *, threshold: float, caption: str = ""
) -> Picture:
    """Two titled panels side by side: the ground truth, and the predictions that score at least `threshold`.

    Raises ValueError where `predictions` has no scores.
    """
    if predictions.scores is None:
        raise ValueError("predictions need scores")
    kept = [index for index, score in enumerate(predictions.scores) if score >= threshold]
    shown = Boxes(
        boxes_D4=np.asarray(predictions.boxes_D4, dtype=np.float64).reshape(-1, 4)[kept],
        colors=[predictions.colors[index] for index in kept],
        labels=[predictions.labels[index] for index in kept],
        scores=[predictions.scores[index] for index in kept],
    )
    # Both panels get the scale of the more crowded one.
    style = BoxStyle(enlarge=max(_enlargement(image_HW3, boxes.labels) for boxes in (ground_truth, shown)))
    left, right = (draw_boxes(image_HW3, boxes, style) for boxes in (ground_truth, shown))
    titles = [f"ground truth: {len(ground_truth.colors)}", f"predictions (score >= {threshold:g}): {len(kept)}"]
    return contact_sheet([add_title(left, titles[0]), add_title(right, titles[1])], columns=2, title=caption)


def draw_anchors_on(
    image_HW3: Picture, anchors_P4: ArrayLike, matched_P: Sequence[int], boxes_G4: ArrayLike
) -> Picture:
    """Positive anchors (thin) in the color of the box (thick) that each is matched to.

    matched_P: index into boxes_G4. Each box is labelled with its number of anchors; a box without any is red. The
    result is at least twice the input's size, so that lines lie apart.
    """
    factor = 2 * _enlargement(image_HW3, [])
    boxes = np.asarray(boxes_G4, dtype=np.float64).reshape(-1, 4)
    counts = np.bincount(np.asarray(matched_P, dtype=np.int64), minlength=len(boxes))
    colors = [color if count else _UNMATCHED for color, count in zip(class_colors(len(boxes)), counts)]
    anchors = Boxes(anchors_P4, [colors[match] for match in matched_P])
    drawn = draw_boxes(image_HW3, anchors, BoxStyle(width=1, enlarge=factor))
    labels = ["1 anchor" if count == 1 else f"{count} anchors" for count in counts]
    thick = BoxStyle(width=_line_width((drawn.shape[1], drawn.shape[0])) + 1, enlarge=1)
    return draw_boxes(drawn, Boxes(boxes * factor, colors, labels), thick)


def contact_sheet(pictures: Sequence[Picture], columns: int, title: str = "") -> Picture:
    """Pictures of any sizes in rows of `columns`, unscaled, each at the top left of its cell."""
    if not pictures or columns < 1:
        raise ValueError("a contact sheet needs a picture and a column")
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    gap = 8
    widths = [max(row[column].shape[1] for row in rows if column < len(row)) for column in range(len(rows[0]))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + gap * (len(widths) + 1), sum(heights) + gap * (len(heights) + 1)), PAPER)
    for row_index, row in enumerate(rows):
        for column, picture in enumerate(row):
            corner = (gap + sum(widths[:column]) + gap * column, gap + sum(heights[:row_index]) + gap * row_index)
            sheet.paste(Image.fromarray(picture), corner)
    return add_title(np.array(sheet), title) if title else np.array(sheet)


def fit(picture_HW3: Picture, width: int, height: int) -> Picture:
    """The picture, shrunk to at most these pixels; a smaller one stays as it is."""
    if picture_HW3.shape[1] <= width and picture_HW3.shape[0] <= height:
        return picture_HW3
    return np.array(ImageOps.contain(Image.fromarray(picture_HW3), (width, height)))


def add_title(image_HW3: Picture, title: str) -> Picture:
    """The picture below a band with a title, which is written smaller where it is too long."""
    width = image_HW3.shape[1]
    size = max(14, min(round(width / 40), 32))
    band = Image.new("RGB", (width, 2 * size), PAPER)
    draw_line(ImageDraw.Draw(band), (4, size), title, fitted_size(title, size, width - 4), INK)
    return np.concatenate([np.array(band), image_HW3])


def fitted_size(text: str, size: int, width: int) -> int:
    """The largest font size, at most `size` pixels, in which the lines of `text` are at most `width` pixels wide."""
    while size > _SMALLEST_FONT and max(text_width(line, size) for line in text.split("\n")) > width:
        size -= 1
    return size


def picture_format(path: Path) -> str:
    """Pillow's name of the format that a picture's suffix stands for; ConfigError for any other suffix."""
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if path.suffix.lower() not in formats:
        raise ConfigError(f"{path}: a picture's name must end in one of {', '.join(formats)}")
    return formats[path.suffix.lower()]


def save_picture(path: Path, image_HW3: Picture) -> None:
    """Write a PNG or JPEG, as the suffix says, whole or not at all; missing folders are created.

    Raises ConfigError as `picture_format`, ResourceError where the file cannot be written.
    """
    kind = picture_format(path)
    with replacing(path) as part:
        Image.fromarray(image_HW3).save(part, kind, **({"quality": 92} if kind == "JPEG" else {}))


def place_tags(boxes_D4: NDArray[np.float64], sizes_D2: ArrayLike, canvas: tuple[int, int]) -> NDArray[np.int64]:
    """Where to put a tag of (width, height) pixels for each box: (D, 4) within the (width, height) canvas.

    Earlier boxes choose first. Of the places around and along its box, a tag takes the one that covers least of the
    earlier tags, then least of the boxes themselves. A tag larger than the canvas is cut to it.
    """
    boxes = np.asarray(boxes_D4, dtype=np.float64).reshape(-1, 4)
    width, height = canvas
    tags = np.zeros((len(boxes), 4), dtype=np.int64)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(1).prod(axis=1)
    for index, (box, size) in enumerate(zip(boxes, np.asarray(sizes_D2).reshape(-1, 2))):
        tag_width, tag_height = min(int(size[0]), width), min(int(size[1]), height)
        corners = _places(box, tag_width, tag_height)
        corners[:, 0] = corners[:, 0].clip(0, width - tag_width)
        corners[:, 1] = corners[:, 1].clip(0, height - tag_height)
        candidates = np.concatenate([corners, corners + np.array([tag_width, tag_height])], axis=1)
        on_tags = _overlap(candidates, tags[:index]).sum(axis=1) / (tag_width * tag_height)
        on_boxes = (_overlap(candidates, boxes) / areas).sum(axis=1)
        tags[index] = candidates[np.argmin(100 * on_tags + on_boxes + 0.01 * np.arange(len(candidates)))]
    return tags


def _places(box: NDArray[np.float64], width: int, height: int) -> NDArray[np.int64]:
    """(N, 2) top-left corners for a tag of this size, the usual ones first."""
    x1, y1, x2, y2 = (round(float(edge)) for edge in box)
    places = [(x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x1, y2), (x2 - width, y1), (x1, y2 - height)]
    places += [(x2 - width, y2), (x2 - width, y2 - height), (x2, y1), (x1 - width, y1), (x2, y2 - height)]
    places += [(x1 - width, y2 - height), ((x1 + x2 - width) // 2, y1 - height), ((x1 + x2 - width) // 2, y2)]
    for step in range(1, 5):
        places += [(x1, y1 + step * height), (x1 + step * width // 2, y1), (x1 + step * width // 2, y1 - height)]
        places += [(x1, y1 - (step + 1) * height), (x2, y1 + step * height), (x1, y2 + step * height)]
    return np.array(places, dtype=np.int64)


def _overlap(first_N4: NDArray[np.int64], second_M4: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, M) areas of intersection."""
    upper = np.minimum(first_N4[:, None, 2:], second_M4[None, :, 2:])
    lower = np.maximum(first_N4[:, None, :2], second_M4[None, :, :2])
    areas_NM: NDArray[np.float64] = (upper - lower).clip(0).prod(axis=2).astype(np.float64)
    return areas_NM


def _draw_tags(draw: ImageDraw.ImageDraw, boxes: NDArray[np.float64], texts: list[str], colors: list[Color]) -> None:
    """Write a filled tag for each box, the first box's on top, with a line to the box where the two do not touch."""
    canvas = draw.im.size
    size = max(_SMALLEST_FONT + 2, round(12 * (max(canvas) / 640) ** 0.75))
    sizes = [_tag_size(text, size) for text in texts]
    while size > _SMALLEST_FONT and sum(math.prod(tag) for tag in sizes) > _CROWDED * math.prod(canvas):
        size -= 1
        sizes = [_tag_size(text, size) for text in texts]
    tags = place_tags(boxes, sizes, canvas)
    for (x1, y1, x2, y2), color, box in zip(tags, colors, boxes):
        on_tag = np.clip(box[:2], (x1, y1), (x2, y2))
        draw.line((*on_tag, *np.clip(on_tag, box[:2], box[2:] - 1)), fill=color)
    for (x1, y1, x2, y2), text, color in reversed(list(zip(tags.tolist(), texts, colors))):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
        luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        while len(text) > 1 and _tag_size(text, size)[0] > x2 - x1:
            text = text[:-1]
        ink = (0, 0, 0) if luminance > 130 else (255, 255, 255)
        draw_line(draw, (x1 + 2, (y1 + y2) // 2), text, size, ink)


def _outline(
    draw: ImageDraw.ImageDraw, box: NDArray[np.float64], color: Color, width: int, *, halo: bool, dashed: bool
) -> None:
    x1, y1, x2, y2 = (round(float(edge)) for edge in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    width = max(1, min(width, (min(x2 - x1, y2 - y1) + 1) // 6))
    if halo:
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_HALO, width=width + 2)
    if not dashed:
        draw.rectangle((x1, y1, x2, y2), outline=color, width=width)
        return
    for x in range(x1, x2 + 1, 2 * _DASH):
        for y in (y1, y2 - width + 1):
            draw.rectangle((x, y, min(x + _DASH, x2), y + width - 1), fill=color)
    for y in range(y1, y2 + 1, 2 * _DASH):
        for x in (x1, x2 - width + 1):
            draw.rectangle((x, y, x + width - 1, min(y + _DASH, y2)), fill=color)


def _inside(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes cut to a picture of (width, height); each keeps at least one pixel."""
    width, height = size
    low = boxes[:, :2].clip(0, [width - 1, height - 1])
    return np.concatenate([low, np.maximum(boxes[:, 2:].clip(0, [width, height]), low + 1)], axis=1)


def _enlargement(image_HW3: Picture, texts: Sequence[str]) -> int:
    """The factor by which the picture must grow for these labels: for its size, and once more where it is crowded."""
    height, width = image_HW3.shape[:2]
    factor: int = math.ceil(READABLE_SIDE / max(height, width))
    written = sum(math.prod(_tag_size(text, _SMALLEST_FONT + 2)) for text in texts)
    crowded = written > _CROWDED * height * width * factor**2
    return factor * 2 if crowded and max(height, width) * factor <= 1000 else factor


def _enlarged(image_HW3: Picture, factor: int) -> Image.Image:
    picture = Image.fromarray(image_HW3)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def _line_width(size: tuple[int, int]) -> int:
    width: int = round(2 * (max(size) / 640) ** 0.75)
    return max(2, width)


def _tag_size(text: str, font_size: int) -> tuple[int, int]:
    return math.ceil(text_width(text, font_size)) + 4, round(font_size * 1.3)
