"""Small pictures of images with right and false detections and objects that were not found."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from retinanet.display.drawing import (
    OBJECT_COLOR,
    RIGHT_COLOR,
    WRONG_COLOR,
    Boxes,
    BoxStyle,
    Color,
    Picture,
    draw_boxes,
)
from retinanet.errors import DataError
from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE

SIDE = 480
"""Longer side in pixels."""
MATCHED_COLOR: Color = (255, 255, 255)
STYLE = BoxStyle(enlarge=1)
LEGEND = "light blue: right, dashed orange: false, yellow: not found, thin white: the object of a right detection"


def draw_verdicts(file: Path, scored: Scored, place: int, score: float, only: int | None = None) -> Picture:
    """(H, W, 3) uint8: the image at index `place` with its objects and the detections that score at least `score`.

    only: index of the one class whose objects and detections are drawn; None: all.
    Raises DataError where the file is missing or not a complete image.
    """
    objects, found, names = scored.objects, scored.found, scored.names()
    picture, factor = _load(file)
    of_class_D, of_class_N = (
        np.full(len(k), True) if only is None else k == only for k in (found.class_D, objects.class_N)
    )
    here_D = np.flatnonzero((found.image_D == place) & (found.score_D >= score) & of_class_D)
    hits, false = (here_D[found.outcome_D[here_D] == outcome] for outcome in (TRUE_POSITIVE, FALSE_POSITIVE))
    missed = np.setdiff1d(_objects_of(scored, place), found.object_D[hits])
    missed = missed[of_class_N[missed]]
    matched = Boxes(_corners(objects.boxes_N4[found.object_D[hits]] * factor), [MATCHED_COLOR] * len(hits))
    picture = draw_boxes(picture, matched, BoxStyle(width=1, enlarge=1))
    boxes_N4 = np.concatenate([objects.boxes_N4[missed], found.boxes_D4[hits], found.boxes_D4[false]]) * factor
    verdicts = Boxes(
        boxes_D4=_corners(boxes_N4),
        colors=[OBJECT_COLOR] * len(missed) + [RIGHT_COLOR] * len(hits) + [WRONG_COLOR] * len(false),
        labels=[names[k] for k in objects.class_N[missed]]
        + [f"{names[found.class_D[d]]} {found.score_D[d]:.2f}" for d in (*hits, *false)],
        dashed=[False] * (len(missed) + len(hits)) + [True] * len(false),
    )
    return draw_boxes(picture, verdicts, STYLE)


def draw_objects(file: Path, scored: Scored, place: int) -> Picture:
    """The image at index `place` with its objects, without crowd, in the size of `draw_verdicts`; raises as that."""
    picture, factor = _load(file)
    chosen, names = _objects_of(scored, place), scored.names()
    boxes_N4 = _corners(scored.objects.boxes_N4[chosen] * factor)
    labels = [names[k] for k in scored.objects.class_N[chosen].tolist()]
    return draw_boxes(picture, Boxes(boxes_N4, [OBJECT_COLOR] * len(chosen), labels), STYLE)


def _objects_of(scored: Scored, place: int) -> NDArray[np.int64]:
    """Indices of the objects of one image, crowd regions left out."""
    return np.flatnonzero((scored.objects.image_N == place) & ~scored.objects.crowd_N)


def _corners(boxes_N4: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x, y, width, height) as (x1, y1, x2, y2)."""
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]], axis=1)


def _load(file: Path) -> tuple[Picture, float]:
    """The image upright and with its longer side SIDE, and the factor by which it was resized."""
    upright, width = _load_jpeg(file) if file.suffix.lower() in (".jpg", ".jpeg") else _load_any(file)
    scale = SIDE / max(upright.size)
    small = upright.resize([max(1, round(side * scale)) for side in upright.size], Image.Resampling.BILINEAR)
    return np.array(small), small.width / width


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
