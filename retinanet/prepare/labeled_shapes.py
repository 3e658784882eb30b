"""Shapes of images that are named, as labelling programs store them, become the boxes of a data set."""

import math
from collections.abc import Mapping
from pathlib import Path

from retinanet.data.file_names import FolderIndex
from retinanet.data.images import image_header
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import (
    LabeledBox,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    check_order,
    in_order,
    refuse_errors,
)

Corners = tuple[float, float, float, float]
Shapes = Mapping[str, list[tuple[str, Corners]]]
"""Image as it is written -> class and corners (x1, y1, x2, y2) of the box around each of its shapes."""
StatedSizes = Mapping[str, tuple[object, object]]
"""Image as it is written -> width and height that its label file states."""
ROUNDING_PIXELS = 1.0
"""A box may leave its image by so much without a note."""


def find_image(index: FolderIndex, folder: Path, written: str, notes: KindNotes) -> str:
    """The image of the folder that a path, perhaps of another machine, means. Raises DataError for none, or several."""
    if written in index.images:
        return written
    found = index.find(written)
    if found is None:
        raise DataError(f"no image {written} in {folder}")
    if len(found.paths) > 1:
        raise DataError(f"{written}: {len(found.paths)} images fit, such as {found.paths[0]} and {found.paths[1]}")
    if found.paths[0] not in index.images:
        raise DataError(f"{written}: {found.paths[0]} is not an image")
    notes.add(f"image names {found.kind}: the files that they mean are used", f"{written} is {found.paths[0]}")
    return found.paths[0]


def labeled_set(
    form: str,
    folder: Path,
    splits: Mapping[str, Shapes],
    errors: list[str],
    notes: KindNotes,
    *,
    in_fractions: bool | None = None,
    stated: StatedSizes | None = None,
) -> LabeledSet:
    """The images that each split's shapes name, with their boxes.

    in_fractions: whether corners are fractions of the image's size; None decides by all of them. stated: the sizes of
    the images that were labelled, with which those of the files must agree. Images that are not
    named are left out and counted. Raises DataError with `errors` and those that are found.
    """
    index = FolderIndex(str(folder))
    if not index.images:
        raise DataError(f"{folder}: there are labels ({form}) but no image; copy the images into the folder")
    every = [corners for shapes in splits.values() for boxes in shapes.values() for _, corners in boxes]
    if in_fractions is None:
        in_fractions = any(map(any, every)) and all(0 <= number <= 1 for corners in every for number in corners)
        if in_fractions:
            notes.say("no corner is above 1: all are read as fractions of the image's size")
    read = {
        split: _labeled_images(folder, index, shapes, in_fractions, stated or {}, errors, notes)
        for split, shapes in splits.items()
    }
    check_order(len(every), notes, errors)
    refuse_errors(folder, form, errors)
    named = {image.file_name for images in read.values() for image in images}
    for name in sorted(index.images - named):
        notes.add("images are named by no label, and left out", name)
    return LabeledSet(
        form=form,
        splits={split: LabeledSplit(folder, images) for split, images in read.items()},
        classes=sorted({box.name for images in read.values() for image in images for box in image.boxes}),
        notes=notes.texts(),
    )


def _labeled_images(
    folder: Path,
    index: FolderIndex,
    shapes: Shapes,
    in_fractions: bool,
    stated: StatedSizes,
    errors: list[str],
    notes: KindNotes,
) -> list[LabeledImage]:
    """The images of one split; every error is added to `errors`."""
    images: dict[str, LabeledImage] = {}
    for written, boxes in shapes.items():
        try:
            name = find_image(index, folder, written, notes)
            height, width = image_header(folder / name)
            _check_stated(stated.get(written), (width, height), in_fractions)
            sides = (width, height) if in_fractions else (1, 1)
            labeled = [
                LabeledBox(label, box_within(corners, sides, (height, width), notes), False) for label, corners in boxes
            ]
        except DataError as error:
            errors.append(str(error) if written in str(error) else f"{written}: {error}")
            continue
        earlier = images[name].boxes if name in images else []
        images[name] = LabeledImage(name, (height, width), earlier + labeled)
    return list(images.values())


def _check_stated(stated: tuple[object, object] | None, size: tuple[int, int], in_fractions: bool) -> None:
    """DataError where an image was labelled at another size than its file's; sizes are (width, height).

    Fractions hold at any size of the same shape. Sizes that are no numbers above 0 say nothing.
    """
    try:
        width, height = (float(str(side)) for side in stated or ())
    except ValueError:
        return
    same_shape = abs(width * size[1] - height * size[0]) <= 0.02 * width * size[1]
    if min(width, height) <= 0 or (width, height) == size or (in_fractions and same_shape):
        return
    remedy = "use the image that was labelled" + (", or scale its labels" if same_shape else "")
    turned = " (its EXIF rotation may have been removed or added)" if (height, width) == size else ""
    raise DataError(
        f"it was labelled at {width:g} x {height:g} (width x height), the file has {size[0]} x {size[1]}{turned}; "
        f"{remedy}"
    )


def box_within(
    corners: Corners, unit: tuple[int, int], size: tuple[int, int], notes: KindNotes
) -> tuple[float, float, float, float]:
    """(x, y, w, h) in pixels of corners, cut at the image's border. Raises DataError for a box outside the image.

    unit: pixels that 1 is in x and in y. size: (height, width) of the image.
    """
    height, width = size
    x1, y1, x2, y2 = (number * unit[place % 2] for place, number in enumerate(corners))
    if not all(map(math.isfinite, corners)):
        raise DataError(f"box {corners} is not finite")
    if max(x1, x2) <= 0 or max(y1, y2) <= 0 or min(x1, x2) >= width or min(y1, y2) >= height:
        raise DataError(f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) is outside the image of {width} x {height}")
    x1, y1, x2, y2 = in_order((x1, y1, x2, y2), notes)
    if min(x1, y1, width - x2, height - y2) < -ROUNDING_PIXELS:
        notes.add("boxes are cut at the border of the image", f"({x1:g}, {y1:g}, {x2:g}, {y2:g})")
    x1, x2, y1, y2 = max(x1, 0.0), min(x2, width), max(y1, 0.0), min(y2, height)
    return round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)


def around(xs: object, ys: object) -> Corners:
    """Corners of the box around points."""
    if not isinstance(xs, list) or not isinstance(ys, list):
        raise DataError("its points are not lists of x and of y")
    xs, ys = list(map(float, xs)), list(map(float, ys))
    if not xs or len(xs) != len(ys):
        raise DataError(f"{len(xs)} x and {len(ys)} y of a shape's points")
    return min(xs), min(ys), max(xs), max(ys)


def unreadable_cause(error: Exception) -> str:
    """Why a part of a label file cannot be read, in words about the file and not about Python."""
    if isinstance(error, DataError):
        return str(error)
    return f"it has no {error}" if isinstance(error, KeyError) else f"a value is not a number ({error})"
