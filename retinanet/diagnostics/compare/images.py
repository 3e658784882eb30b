"""On which images two detectors differ most, and pictures of them.

A detector is used from the score at which its F1 over the whole data set is best, since two detectors' scores are on
different scales.

Legend: N annotations, 4 box coordinates.
"""

from pathlib import Path
from typing import NamedTuple

from retinanet.diagnostics.analysis import thumbnails
from retinanet.diagnostics.analysis.analyse import NO_THRESHOLD
from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.thresholds import find_thresholds
from retinanet.diagnostics.analysis.worst_images import ImageErrors, measure_images
from retinanet.display.drawing import add_title, contact_sheet, save_picture
from retinanet.errors import DataError, list_errors


class Used(NamedTuple):
    """A detector from one score on."""

    name: str
    scored: Scored
    errors: ImageErrors

    def counts(self, image: int) -> tuple[int, int, int]:
        """Right and false detections and missed objects of the image at this place."""
        found = self.errors
        return int(found.hits_I[image]), int(found.false_I[image]), int(found.unfound_I[image])


class ImageDifference(NamedTuple):
    """Two detectors on one image, each from its own score on."""

    image: int
    """Place among the ground truth's images by rising id."""
    image_id: int
    name: str
    first: tuple[int, int, int]
    """Right, false, missed."""
    second: tuple[int, int, int]
    gain: int
    """False and missed ones of the first less those of the second: above 0 the second is better."""


def use_best_score(name: str, scored: Scored) -> Used:
    """The detector from the score of its best F1 on."""
    score = find_thresholds(scored).overall.score
    return Used(name, scored, measure_images(scored, NO_THRESHOLD if score is None else score))


def image_differences(first: Used, second: Used) -> list[ImageDifference]:
    """Every image, those first where the second detector makes most errors less, last where it makes most more."""
    rows = []
    for image, (image_id, name) in enumerate(
        zip(first.scored.objects.image_ids_I.tolist(), first.scored.image_names, strict=True)
    ):
        ours, theirs = first.counts(image), second.counts(image)
        rows.append(ImageDifference(image, image_id, name, ours, theirs, sum(ours[1:]) - sum(theirs[1:])))
    return sorted(rows, key=lambda row: (-row.gain, row.image_id))


def most_different(rows: list[ImageDifference], each_way: int) -> list[ImageDifference]:
    """The images on which the second is ahead by most, then those on which it is behind by most."""
    ahead = [row for row in rows[:each_way] if row.gain > 0]
    return ahead + [row for row in reversed(rows[-each_way:]) if row.gain < 0]


def find_files(rows: list[ImageDifference], ground_truth: dict, folder: Path) -> list[Path]:
    """The file of each row's image. DataError naming all that have no name or are not within `folder`."""
    names = {row["id"]: row.get("file_name") for row in ground_truth["images"]}
    if not folder.is_dir():
        raise DataError(f"--images: no folder {folder}; give the folder that the ground truth's file names start from")
    errors, paths = [], []
    for row in rows:
        name = names[row.image_id]
        path = folder / str(name)
        if not isinstance(name, str):
            errors.append(f"image {row.image_id} has no file_name in the ground truth")
        elif not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            errors.append(f"image {row.image_id}: no file {name} in {folder}")
        paths.append(path)
    if errors:
        raise DataError(list_errors("--images: these images cannot be shown", errors))
    return paths


def draw_side_by_side(path: Path, image_file: Path, row: ImageDifference, detectors: tuple[Used, Used]) -> Path:
    """Ground truth and both detectors' detections side by side, written to `path`; returns the path.

    Raises DataError for an image that cannot be read; otherwise as `drawing.save_picture`.
    """
    truth = thumbnails.draw_objects(image_file, detectors[0].scored, row.image)
    panels = [add_title(truth, f"ground truth: {sum(row.first[::2])} objects")]
    for detector in detectors:
        drawn = thumbnails.draw_verdicts(image_file, detector.scored, row.image, detector.errors.score)
        right, false, missed = detector.counts(row.image)
        panels.append(add_title(drawn, f"{detector.name}: {right} right, {false} false, {missed} missed"))
    save_picture(path, contact_sheet(panels, 3))
    return path
