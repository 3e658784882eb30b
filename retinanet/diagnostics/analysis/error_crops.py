"""False positives and missed objects as pictures in folders by class, to look through with any viewer."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinanet.display.drawing import OBJECT_COLOR, WRONG_COLOR, Boxes, BoxStyle, Color, draw_boxes, save_picture
from retinanet.errors import ConfigError, DataError
from retinanet.evaluation.outputs import cropped, folder_names
from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE
from retinanet.structures import Category

FALSE, MISSED = "false_positives", "misses"
"""The folders."""
MOST = 1_000
"""Maximum pictures of each kind: the false positives with the highest scores, the largest missed objects."""
CONTEXT, LEAST_CONTEXT = 0.5, 16
"""What is shown around a box on each side: a part of its longer side, and at least this many pixels."""
READABLE = 200
"""Pixels of the longer side to which smaller pictures are enlarged, in whole steps."""


class Crop(NamedTuple):
    """One picture."""

    image: int
    box: tuple[float, float, float, float]
    """x, y, width, height."""
    file: str
    """Relative to the folder of the evaluation."""
    label: str
    color: Color


def check_no_crops(folder: Path) -> None:
    """Raise ConfigError where pictures of an earlier evaluation are in `folder`, since they would be mixed."""
    older = [str(folder / name) for name in (FALSE, MISSED) if (folder / name).exists()]
    if older:
        raise ConfigError(f"--crops: {' and '.join(older)} exist; delete them or choose another folder with --output")


def write_error_crops(folder: Path, scored: Scored, score: float, images: Path) -> tuple[list[str], list[str]]:
    """Write the pictures of detections at or above `score`, and of objects that none of those finds.

    images: the folder of the image files. Returns what was written, one text for each folder, and an error for each
    image that cannot be read.
    """
    kinds = {FALSE: false_crops(scored, score), MISSED: missed_crops(scored, score)}
    chosen = sorted((crop for crops in kinds.values() for crop in crops[:MOST]), key=lambda crop: crop.image)
    errors = []
    place, pixels = -1, None
    for crop in chosen:
        if crop.image != place:
            place, pixels = crop.image, None
            try:
                pixels = read_inside(images, scored.objects.image_names_I[place])
            except DataError as error:
                errors.append(str(error))
        if pixels is not None:
            save_picture(folder / crop.file, draw_crop(pixels, crop))
    texts = [
        f"{name}/ ({len(crops):,})" if len(crops) <= MOST else f"{name}/ ({MOST:,} of {len(crops):,})"
        for name, crops in kinds.items()
    ]
    return texts, errors


def read_inside(folder: Path, name: str) -> np.ndarray:
    """(H, W, 3) uint8 of an image in the folder. Raises DataError where the file is missing, damaged or outside."""
    # Imported here: it needs torch, which the evaluation of files does not.
    from retinanet.data.images import decode_image

    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{name}: outside the image folder {folder}; file names must be relative to it")
    return decode_image(folder / name, warn=False).permute(1, 2, 0).numpy()


def false_crops(scored: Scored, score: float) -> list[Crop]:
    """Detections from `score` on that are matched to no object of their class, best score first."""
    found, names = scored.found, scored.names()
    wrong_D = np.flatnonzero((found.outcome_D == FALSE_POSITIVE) & (found.score_D >= score))
    return [
        Crop(
            image=int(found.image_D[d]),
            box=_box(found.boxes_D4[d]),
            file=f"{FALSE}/{folder}/{found.score_D[d]:.3f}_{stem}_{number}.jpg",
            label=f"{names[found.class_D[d]]} {found.score_D[d]:.2f}",
            color=WRONG_COLOR,
        )
        for number, (d, folder, stem) in enumerate(_placed(scored, wrong_D, found.class_D, found.image_D), start=1)
    ]


def missed_crops(scored: Scored, score: float) -> list[Crop]:
    """Objects, without crowd, that no detection from `score` on is matched to, the largest first."""
    found, objects, names = scored.found, scored.objects, scored.names()
    hit_D = (found.outcome_D == TRUE_POSITIVE) & (found.score_D >= score)
    missed_N = ~objects.crowd_N
    missed_N[found.object_D[hit_D]] = False
    by_size = np.flatnonzero(missed_N)[np.argsort(-objects.area_N[missed_N], kind="stable")]
    return [
        Crop(
            image=int(objects.image_N[n]),
            box=_box(objects.boxes_N4[n]),
            file=f"{MISSED}/{folder}/{stem}_{number}.jpg",
            label=names[objects.class_N[n]],
            color=OBJECT_COLOR,
        )
        for number, (n, folder, stem) in enumerate(_placed(scored, by_size, objects.class_N, objects.image_N), start=1)
    ]


def draw_crop(pixels_HW3: np.ndarray, crop: Crop) -> np.ndarray:
    """The box with what is around it; small ones are enlarged."""
    x, y, w, h = crop.box
    context = max(LEAST_CONTEXT, CONTEXT * max(w, h))
    left, top = max(0, int(x - context)), max(0, int(y - context))
    around = cropped(pixels_HW3, (left, top, x + w + context - left, y + h + context - top))
    corners = [[x - left, y - top, x + w - left, y + h - top]]
    style = BoxStyle(width=1, enlarge=math.ceil(READABLE / max(around.shape[:2])))
    dashed = [crop.color == WRONG_COLOR]
    return draw_boxes(around, Boxes(corners, [crop.color], [crop.label], dashed=dashed), style)


def _placed(
    scored: Scored, chosen: np.ndarray, classes: np.ndarray, images: np.ndarray
) -> Iterator[tuple[int, str, str]]:
    """Each chosen row with the folder of its class and the stem of its image."""
    truth = scored.objects
    categories = [Category(*pair) for pair in zip(truth.category_ids_K.tolist(), truth.category_names_K, strict=True)]
    folders = list(folder_names(categories).values())
    for row in chosen.tolist():
        yield row, folders[classes[row]], Path(truth.image_names_I[images[row]]).stem


def _box(xywh_4: np.ndarray) -> tuple[float, float, float, float]:
    x, y, w, h = xywh_4.tolist()
    return x, y, w, h
