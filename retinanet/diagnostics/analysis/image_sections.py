"""The report's sections of images: the worst of each class, the worst and the best of all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.diagnostics.analysis.report_tables import class_images_table, ranked_images_table
from retinanet.diagnostics.analysis.thumbnails import LEGEND, draw_verdicts
from retinanet.display.document.blocks import Block, Gallery, Heading, Paragraph, Picture
from retinanet.display.drawing import save_picture
from retinanet.errors import DataError
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.analysis.worst_images import ClassImage

CLASS_PICTURES = 40
"""Maximum number of pictures in the section of the classes' worst images."""
OF_A_CLASS = 3
"""Maximum number of images of each class there."""


class Places(NamedTuple):
    """Where images come from and pictures go to."""

    images: Path | None
    """Folder of the image files, if known."""
    plots: Path


def images_of_a_class(analysis: Analysis) -> int:
    """How many images of each class are shown: OF_A_CLASS, fewer of many classes, at least one."""
    return max(1, min(OF_A_CLASS, CLASS_PICTURES // max(len(analysis.scored.names()), 1)))


def class_anchor(k: int) -> str:
    """Name by which links lead to the worst images of the class at index k."""
    return f"class-{k + 1}"


def class_image_blocks(
    analysis: Analysis, worst: Sequence[Sequence[ClassImage]], places: Places, errors: list[str]
) -> list[Block]:
    """The images with most errors of each class; adds to `errors`. worst: of `worst_images_of_classes`.

    Nothing for a single class, whose worst images are those of all.
    """
    if len(worst) == 1:
        return []
    blocks: list[Block] = [Heading("The worst images of each class")]
    wrong = [k for k, images in enumerate(worst) if images]
    if not wrong:
        return [*blocks, Paragraph("No image has an error of any class.")]
    wrong.sort(key=lambda k: -sum(image.false + image.unfound for image in worst[k]))
    pictures: list[Picture] = []
    anchors = {k: class_anchor(k) for k in wrong}
    for k in wrong if places.images is not None else []:
        for rank, image in enumerate(worst[k], 1):
            if len(pictures) == CLASS_PICTURES:
                break
            path = _draw(places, f"class_{k + 1:03d}_{rank}.jpg", analysis, image.image, errors, only=k)
            if path is not None:
                pictures.append(_class_picture(path, analysis, k, image, anchors.pop(k, "")))
    shown = f" Only boxes of the class are drawn: {LEGEND}." if pictures else ""
    few = f" Pictures are of the {CLASS_PICTURES} with most errors." if len(pictures) == CLASS_PICTURES else ""
    blocks.append(
        Paragraph(
            f"By class, the images with most errors (false positives of the class and objects of it that are not "
            f"found) at score {analysis.score:.3f}; names in the table of classes lead here.{shown}{few}"
        )
    )
    if pictures:
        blocks.append(Gallery(tuple(pictures)))
    table = class_images_table(analysis, worst, wrong, anchors)
    return [*blocks, table._replace(folded=bool(pictures))]


def _class_picture(path: Path, analysis: Analysis, k: int, image: ClassImage, anchor: str) -> Picture:
    name, file = analysis.scored.names()[k], analysis.scored.objects.image_names_I[image.image]
    return Picture(
        path=path,
        alt=f"{name} in {file}",
        caption=f"{name}: {image.false} false, {image.unfound} not found in {file}",
        anchor=anchor,
    )


def ranked_image_blocks(
    title: str, images: Sequence[int], analysis: Analysis, places: Places, errors: list[str]
) -> list[Block]:
    """The worst or best images, drawn where the folder of the image files is known; adds to `errors`."""
    rows = [analysis.image_row(image) for image in images]
    blocks: list[Block] = [Heading(f"The {title} images")]
    if not rows:
        none = "No image has an error." if title == "worst" else "No image has a right detection."
        return [*blocks, Paragraph(none)]
    more = "more errors" if title == "worst" else "more right detections"
    blocks.append(
        Paragraph(
            f"Sorted by F1 of the detections at or above score {analysis.score:.3f}, {title} first; ties by {more}, "
            "then by LRP error, which also measures how tight boxes are (0 is perfect, 1 means nothing is right)."
            + (f" Boxes are {LEGEND}." if places.images is not None else "")
        )
    )
    pictures = []
    for rank, (image, row) in enumerate(zip(images, rows), 1):
        path = _draw(places, f"{title}_{rank:02d}.jpg", analysis, image, errors)
        if path is not None:
            pictures.append(Picture(path=path, alt=f"{title} image {rank}", caption=_caption(rank, row)))
    if pictures:
        blocks.append(Gallery(tuple(pictures)))
    table = ranked_images_table(f"The {len(rows)} {title} images", rows)
    return [*blocks, table._replace(folded=bool(pictures))]


def _caption(rank: int, row: dict[str, Any]) -> str:
    return (
        f"{rank}. {row['file_name']}: {row['right']} right, {row['false']} false, {row['not_found']} not found, "
        f"F1 {row['f1']:.2f}"
    )


def _draw(
    places: Places, name: str, analysis: Analysis, image: int, errors: list[str], only: int | None = None
) -> Path | None:
    """Draw an image into the file `name` of plots/; None where there are no image files or this one cannot be used.

    Of the latter, a sentence is added to `errors`, once for each image. only: as of `draw_verdicts`.
    """
    if places.images is None:
        return None
    file = analysis.scored.objects.image_names_I[image]
    if not (places.images / file).resolve().is_relative_to(places.images.resolve()):
        error = f"{file}: outside the image folder {places.images}; file names must be relative to it"
    else:
        try:
            save_picture(
                places.plots / name, draw_verdicts(places.images / file, analysis.scored, image, analysis.score, only)
            )
            return places.plots / name
        except DataError as unusable:
            error = str(unusable)
    if error not in errors:
        errors.append(error)
    return None
