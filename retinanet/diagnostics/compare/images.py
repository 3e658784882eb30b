"""The images on which two detectors differ most, and pictures of them.

Each detector is used at the score threshold with its best F1 over the whole data set, since two detectors' scores are
on different scales.

Legend: N annotations, 4 box coordinates.
"""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.diagnostics.analysis import thumbnails
from retinanet.display.drawing import add_title, contact_sheet, save_picture
from retinanet.errors import DataError, list_errors
from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.analysis.thresholds import find_thresholds
from retinanet.scoring.analysis.worst_images import ImageErrors, measure_images


class ThresholdedDetector(NamedTuple):
    """A detector at one score threshold."""

    name: str
    scored: Scored
    errors: ImageErrors

    def counts(self, image: int) -> tuple[int, int, int]:
        """Right and false detections and missed objects of the image at this index."""
        found = self.errors
        return int(found.hits_I[image]), int(found.false_I[image]), int(found.unfound_I[image])


class ImageDifference(NamedTuple):
    """Two detectors on one image, each at its own score threshold."""

    image: int
    """Index among the ground truth's images by ascending id."""
    image_id: int
    name: str
    first: tuple[int, int, int]
    """Counts of right and false detections and missed objects; so is `second`."""
    second: tuple[int, int, int]
    gain: int
    """Errors (false and missed) of the first minus those of the second: above 0 the second is better."""


def at_best_threshold(name: str, scored: Scored) -> ThresholdedDetector:
    """The detector at the threshold with its best F1."""
    return ThresholdedDetector(name, scored, measure_images(scored, find_thresholds(scored).score()))


def image_differences(first: ThresholdedDetector, second: ThresholdedDetector) -> list[ImageDifference]:
    """All images, sorted from those with fewer errors of the second detector to those with more."""
    rows = []
    for image, (image_id, name) in enumerate(
        zip(first.scored.objects.image_ids_I.tolist(), first.scored.objects.image_names_I, strict=True)
    ):
        counts, other = first.counts(image), second.counts(image)
        gain = sum(counts[1:]) - sum(other[1:])
        rows.append(ImageDifference(image=image, image_id=image_id, name=name, first=counts, second=other, gain=gain))
    return sorted(rows, key=lambda row: (-row.gain, row.image_id))


def most_different(rows: list[ImageDifference], each_way: int) -> list[ImageDifference]:
    """At most `each_way` images where the second has fewest errors compared with the first, then where it has most."""
    ahead = [row for row in rows[:each_way] if row.gain > 0]
    return ahead + [row for row in reversed(rows[-each_way:]) if row.gain < 0]


def find_files(rows: list[ImageDifference], ground_truth: dict[str, Any], folder: Path) -> list[Path]:
    """The file of each row's image. Raises DataError with all that have no name or are not in `folder`."""
    names = {row["id"]: row.get("file_name") for row in ground_truth["images"]}
    if not folder.is_dir():
        raise DataError(f"--images: no folder {folder}; give the folder that the file names are relative to")
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
        raise DataError(list_errors("--images: these images cannot be drawn", errors))
    return paths


def draw_side_by_side(
    path: Path, image_file: Path, row: ImageDifference, detectors: tuple[ThresholdedDetector, ThresholdedDetector]
) -> Path:
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
