"""Boxes, anchors and curves as pictures.

Legend: H, W pixels of a picture; D detections, G ground-truth boxes, P positive anchors; 4 is
(x1, y1, x2, y2) in pixels of the picture given, x2 and y2 exclusive. Pictures are (H, W, 3) uint8 RGB.
No torch here: tensors come in as numpy arrays.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from retinanet.errors import ConfigError
from retinanet.files import replacing

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

READABLE_SIDE = 400
"""A picture whose longer side is shorter than this many pixels is enlarged before anything is written on it."""
_SMALLEST_FONT = 10
_CROWDED = 0.08
"""Share of a picture that names may cover before it is enlarged or they are written smaller."""
_BACKGROUND: Color = (245, 245, 245)
_INK: Color = (25, 25, 25)
_MISSED: Color = (225, 30, 30)


class Boxes(NamedTuple):
    """Boxes of one picture as they are to be drawn; every list has one entry a box."""

    boxes_D4: ArrayLike
    labels: Sequence[str]
    colors: Sequence[Color]
    scores: Sequence[float] | None = None


def class_colors(count: int) -> list[Color]:
    """Colors of the first `count` classes; the color of a class depends on its index only.

    Hues follow the golden ratio in OKLCH (Ottosson 2020); lightness (four levels) and saturation (every
    fifth is dull) come round in other steps than those (21, 34, 55) after which hues nearly come back.
    """
    golden = (math.sqrt(5) - 1) / 2
    lightness = (0.62, 0.52, 0.72, 0.82)
    saturation = (1.0, 1.0, 1.0, 0.55, 1.0)
    return [_srgb(lightness[index % 4], saturation[index % 5], (0.1 + index * golden) % 1) for index in range(count)]


def _srgb(lightness: float, saturation: float, hue: float) -> Color:
    """OKLCH as 0..255; hue in turns, saturation as a share of the largest chroma that sRGB can show."""
    chromas = np.arange(0.0, 0.3, 0.005)[:, None]
    a, b = chromas * math.cos(2 * math.pi * hue), chromas * math.sin(2 * math.pi * hue)
    mixed = (
        lightness + a * [0.3963377774, -0.1055613458, -0.0894841775] + b * [0.2158037573, -0.0638541728, -1.2914855480]
    )
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = mixed**3 @ np.array(to_linear).T
    showable = ((linear >= 0) & (linear <= 1)).all(axis=1)
    linear = linear[round(int(np.flatnonzero(showable)[-1]) * saturation)]
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clip(0) ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(channel) * 255) for channel in encoded)
    return red, green, blue


def draw_detections(
    image_HW3: Picture,
    boxes_D4: ArrayLike,
    labels: Sequence[str],
    colors: Sequence[Color],
    scores: Sequence[float] | None = None,
    *,
    enlarge: int | None = None,
) -> Picture:
    """The picture with every box outlined and named; the input is left as it is.

    boxes_D4: pixels of `image_HW3`; what lies outside is cut off.
    labels, colors, scores: one a box; scores (0..1) are written behind the label.
    enlarge: how many times the input's size the result has; None is 1, and more for small or crowded pictures.
    Raises ValueError where the lengths differ.
    """
    boxes = np.asarray(boxes_D4, dtype=np.float64).reshape(-1, 4)
    lengths = {len(boxes), len(labels), len(colors), len(boxes if scores is None else scores)}
    if len(lengths) != 1:
        raise ValueError(f"boxes, labels, colors and scores differ in length: {sorted(lengths)}")
    texts = list(labels) if scores is None else [f"{label} {score:.2f}" for label, score in zip(labels, scores)]
    factor = enlarge or _enlargement(image_HW3, texts)
    picture = _enlarged(image_HW3, factor)
    boxes = _inside(boxes * factor, picture.size)
    order = list(range(len(boxes)))
    if scores is not None:
        order.sort(key=lambda index: -scores[index])
    draw = ImageDraw.Draw(picture)
    for index in reversed(order):
        _outline(draw, boxes[index], colors[index], _line_width(picture.size))
    _name(draw, boxes[order], [texts[index] for index in order], [colors[index] for index in order])
    return np.array(picture)


def draw_ground_truth_and_predictions(
    image_HW3: Picture, ground_truth: Boxes, predictions: Boxes, *, threshold: float, caption: str = ""
) -> Picture:
    """Two titled panels side by side: the ground truth, and the predictions that score at least `threshold`.

    Boxes in pixels of `image_HW3`; `predictions` needs scores. Raises ValueError where it has none.
    """
    if predictions.scores is None:
        raise ValueError("predictions need scores")
    kept = [index for index, score in enumerate(predictions.scores) if score >= threshold]
    shown = Boxes(
        np.asarray(predictions.boxes_D4, dtype=np.float64).reshape(-1, 4)[kept],
        [predictions.labels[index] for index in kept],
        [predictions.colors[index] for index in kept],
        [predictions.scores[index] for index in kept],
    )
    enlarge = max(_enlargement(image_HW3, ground_truth.labels), _enlargement(image_HW3, shown.labels))
    left = draw_detections(image_HW3, *ground_truth, enlarge=enlarge)
    right = draw_detections(image_HW3, *shown, enlarge=enlarge)
    titles = [f"ground truth: {len(ground_truth.labels)}", f"predictions (score >= {threshold:g}): {len(kept)}"]
    return contact_sheet([_titled(left, titles[0]), _titled(right, titles[1])], columns=2, title=caption)


def draw_anchors_on(
    image_HW3: Picture, anchors_P4: ArrayLike, matched_P: Sequence[int], boxes_G4: ArrayLike
) -> Picture:
    """Positive anchors (thin) in the color of the box (thick) that each is matched to.

    matched_P: index into boxes_G4. Every box is named with its number of anchors; red has none. The result
    is at least twice the input's size, so that lines lie apart.
    """
    factor = 2 * _enlargement(image_HW3, [])
    picture = _enlarged(image_HW3, factor)
    anchors = _inside(np.asarray(anchors_P4, dtype=np.float64).reshape(-1, 4) * factor, picture.size)
    boxes = _inside(np.asarray(boxes_G4, dtype=np.float64).reshape(-1, 4) * factor, picture.size)
    counts = np.bincount(np.asarray(matched_P, dtype=np.int64), minlength=len(boxes))
    colors = [color if count else _MISSED for color, count in zip(class_colors(len(boxes)), counts)]
    draw = ImageDraw.Draw(picture)
    for anchor, match in zip(anchors, matched_P):
        _outline(draw, anchor, colors[match], 1)
    for box, color in zip(boxes, colors):
        _outline(draw, box, color, _line_width(picture.size) + 1)
    _name(draw, boxes, ["1 anchor" if count == 1 else f"{count} anchors" for count in counts], colors)
    return np.array(picture)


def contact_sheet(pictures: Sequence[Picture], columns: int, title: str = "") -> Picture:
    """Pictures of any sizes in rows of `columns`, unscaled, each at the top left of its cell."""
    if not pictures or columns < 1:
        raise ValueError("a contact sheet needs a picture and a column")
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    gap = 8
    widths = [max(row[column].shape[1] for row in rows if column < len(row)) for column in range(len(rows[0]))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    sheet = Image.new(
        "RGB", (sum(widths) + gap * (len(widths) + 1), sum(heights) + gap * (len(heights) + 1)), _BACKGROUND
    )
    for row_index, row in enumerate(rows):
        for column, picture in enumerate(row):
            corner = (gap + sum(widths[:column]) + gap * column, gap + sum(heights[:row_index]) + gap * row_index)
            sheet.paste(Image.fromarray(picture), corner)
    return _titled(np.array(sheet), title) if title else np.array(sheet)


def save_picture(path: Path, image_HW3: Picture) -> None:
    """Write a PNG or JPEG, as the suffix says, whole or not at all; missing folders are made.

    Raises ConfigError for another suffix, ResourceError where the file cannot be written.
    """
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    kind = formats.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: a picture's name must end in one of {', '.join(formats)}")
    with replacing(path) as part:
        Image.fromarray(image_HW3).save(part, kind, **({"quality": 92} if kind == "JPEG" else {}))


def place_tags(boxes_D4: NDArray[np.float64], sizes_D2: ArrayLike, canvas: tuple[int, int]) -> NDArray[np.int64]:
    """Where to put a tag of (width, height) pixels for each box: (D, 4) within the (width, height) canvas.

    Earlier boxes choose first. Of places around and along each box, it takes the one that covers least
    of earlier tags, then least of the boxes themselves; a tag larger than the canvas is cut to it.
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
    least = np.minimum(first_N4[:, None, 2:], second_M4[None, :, 2:])
    most = np.maximum(first_N4[:, None, :2], second_M4[None, :, :2])
    return (least - most).clip(0).prod(axis=2).astype(np.float64)


def _name(draw: ImageDraw.ImageDraw, boxes: NDArray[np.float64], texts: list[str], colors: list[Color]) -> None:
    """Write a filled tag for each box, the first box's on top, with a line to the box where it lies apart."""
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
        draw.text((x1 + 2, (y1 + y2) // 2), text, fill=ink, font=_font(size), anchor="lm")


def _outline(draw: ImageDraw.ImageDraw, box: NDArray[np.float64], color: Color, width: int) -> None:
    x1, y1, x2, y2 = (round(float(edge)) for edge in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=max(1, min(width, (min(x2 - x1, y2 - y1) + 1) // 6)))


def _inside(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes cut to a picture of (width, height); each keeps at least one pixel."""
    width, height = size
    low = boxes[:, :2].clip(0, [width - 1, height - 1])
    return np.concatenate([low, np.maximum(boxes[:, 2:].clip(0, [width, height]), low + 1)], axis=1)


def _enlargement(image_HW3: Picture, texts: Sequence[str]) -> int:
    """How many times larger these names need the picture: what is small, and once more what is crowded."""
    height, width = image_HW3.shape[:2]
    factor = math.ceil(READABLE_SIDE / max(height, width))
    written = sum(math.prod(_tag_size(text, _SMALLEST_FONT + 2)) for text in texts)
    crowded = written > _CROWDED * height * width * factor**2
    return factor * 2 if crowded and max(height, width) * factor <= 1000 else factor


def _enlarged(image_HW3: Picture, factor: int) -> Image.Image:
    picture = Image.fromarray(image_HW3)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def _titled(image_HW3: Picture, title: str) -> Picture:
    """The picture below a band with a title."""
    width = image_HW3.shape[1]
    size = max(14, min(round(width / 40), 20))
    while size > _SMALLEST_FONT and _tag_size(title, size)[0] > width:
        size -= 1
    band = Image.new("RGB", (width, 2 * size), _BACKGROUND)
    ImageDraw.Draw(band).text((4, size), title, fill=_INK, font=_font(size), anchor="lm")
    return np.concatenate([np.array(band), image_HW3])


def _line_width(size: tuple[int, int]) -> int:
    return max(2, round(2 * (max(size) / 640) ** 0.75))


def _tag_size(text: str, font_size: int) -> tuple[int, int]:
    return math.ceil(_font(font_size).getlength(text)) + 4, round(font_size * 1.3)


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)
