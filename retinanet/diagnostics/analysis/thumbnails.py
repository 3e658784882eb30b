"""Small pictures of images with right and false detections and objects that were not found."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from retinanet.display.drawing import Picture, draw_detections
from retinanet.errors import DataError
from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE

SIDE = 480
"""Longer side in pixels."""
RIGHT, FALSE, NOT_FOUND, TRUTH = (20, 140, 60), (205, 30, 40), (240, 150, 0), (255, 255, 255)
LEGEND = "green: right, red: false, orange: not found, thin white: the object of a right detection"


def draw_scored_image(file: Path, scored: Scored, place: int, score: float) -> Picture:
    """(H, W, 3) uint8: the image at index `place` with its objects and the detections that score at least `score`.

    Raises DataError where the file is missing or not a complete image.
    """
    objects, found, names = scored.objects, scored.found, scored.names()
    picture, factor = _load(file)
    here_D = np.flatnonzero((found.image_D == place) & (found.score_D >= score))
    hits, false = (here_D[found.outcome_D[here_D] == outcome] for outcome in (TRUE_POSITIVE, FALSE_POSITIVE))
    mine = np.flatnonzero((objects.image_N == place) & ~objects.crowd_N)
    unfound = np.setdiff1d(mine, found.object_D[hits])
    draw = ImageDraw.Draw(picture)
    for x, y, width, height in (objects.boxes_N4[found.object_D[hits]] * factor).tolist():
        draw.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=TRUTH)
    boxes = np.concatenate([objects.boxes_N4[unfound], found.boxes_D4[hits], found.boxes_D4[false]]) * factor
    boxes[:, 2:] += boxes[:, :2]
    labels = [names[k] for k in objects.class_N[unfound]]
    labels += [f"{names[found.class_D[d]]} {found.score_D[d]:.2f}" for d in (*hits, *false)]
    colors = [NOT_FOUND] * len(unfound) + [RIGHT] * len(hits) + [FALSE] * len(false)
    return draw_detections(np.array(picture), boxes, labels, colors, enlarge=1)


def _load(file: Path) -> tuple[Image.Image, float]:
    """The image upright and with its longer side SIDE, and the factor by which it was resized."""
    upright, width = _load_jpeg(file) if file.suffix.lower() in (".jpg", ".jpeg") else _load_any(file)
    scale = SIDE / max(upright.size)
    small = upright.resize([max(1, round(side * scale)) for side in upright.size], Image.Resampling.BILINEAR)
    return small, small.width / width


def _load_jpeg(file: Path) -> tuple[Image.Image, int]:
    """The image decoded at a fraction of its size, which is faster, and its width at full size."""
    try:
        with Image.open(file) as opened:
            turned = opened.getexif().get(0x0112, 1) >= 5
            width = opened.height if turned else opened.width
            opened.draft("RGB", (2 * SIDE, 2 * SIDE))
            return ImageOps.exif_transpose(opened).convert("RGB"), width
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise DataError(f"{file}: not a complete image ({error})") from error
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error


def _load_any(file: Path) -> tuple[Image.Image, int]:
    """As `_load_jpeg` for every format, at full size."""
    # Imported here: it needs torch, which JPEG images do not.
    from retinanet.data.images import decode_image

    pixels = decode_image(file)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy()), int(pixels.shape[2])
