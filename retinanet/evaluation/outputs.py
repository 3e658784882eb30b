"""What `retinanet predict` writes: pictures, and the detections as COCO results, CSV, YOLO labels or crops."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.display.drawing import BoxStyle, save_picture
from retinanet.errors import ConfigError, ResourceError, list_errors
from retinanet.files import make_folder, write_csv, write_json, write_text
from retinanet.run.pictures import draw_results
from retinanet.structures import Category

Format = Literal["coco", "csv", "yolo", "crops"]

NEW_FOLDER = Path("runs") / "predict"
"""Where results are written by default; later runs get runs/predict-2 and so on."""

_CSV_COLUMNS = ("file_name", "class", "score", "x1", "y1", "x2", "y2", "shown")


class PredictOptions(NamedTuple):
    """What is written, and where."""

    output: Path | None = None
    """None: a new folder, NEW_FOLDER with a number."""
    formats: tuple[Format, ...] = ("coco",)
    pictures: bool = True
    enlarge: bool = False
    """Draw small and crowded images larger, so that labels can be read."""
    overwrite: bool = False
    """Write into a folder that holds other files, replacing those of the same names."""


class OutputFolder:
    """The folder of a run's results, created when the first of them is written."""

    def __init__(self, options: PredictOptions) -> None:
        """Raises ConfigError for a given folder that has other files in it, unless they may be overwritten."""
        given = options.output
        if given is not None and given.is_dir() and not options.overwrite:
            first = min((path.name for path in given.iterdir()), default=None)
            if first is not None:
                raise ConfigError(
                    f"--output: {given} already has files in it (such as {first}); choose another folder, or add "
                    "--overwrite to replace the results of before"
                )
        self._given = given
        self._made: Path | None = None
        self._lock = Lock()

    @property
    def made(self) -> bool:
        """Whether anything has been written."""
        return self._made is not None

    def path(self) -> Path:
        """The folder. Raises ResourceError where it cannot be created."""
        with self._lock:
            if self._made is None:
                if self._given is not None:
                    make_folder(self._given)
                self._made = self._given or new_folder(NEW_FOLDER)
            return self._made


def new_folder(wanted: Path) -> Path:
    """Create `wanted`, or where it exists wanted-2, -3 ... Raises ResourceError where it cannot be created."""
    make_folder(wanted.parent)
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ResourceError(
                f"{folder}: cannot be created ({error.strerror}); give another one with --output."
            ) from error
        return folder
    raise AssertionError


def result_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name without suffix for each image's files: its stem, or stem_2 and so on if that name is taken."""
    taken: set[str] = set()
    repeats: Counter[str] = Counter()
    names: dict[Path, str] = {}
    for path in paths:
        name = path.stem
        while name.lower() in taken:  # to a file system that ignores case, A.jpg and a.jpg are the same file
            repeats[path.stem] += 1
            name = f"{path.stem}_{repeats[path.stem] + 1}"
        taken.add(name.lower())
        names[path] = name
    return names


def check_inputs_are_kept(names: Mapping[Path, str], output: Path | None) -> None:
    """Raise ConfigError if a picture in `output` would replace one of the input images. names: see `result_names`."""
    if output is None:
        return
    images = {path.resolve() for path in names}
    pictures = [output / f"{name}.jpg" for name in names.values()]
    replaced = [str(picture) for picture in pictures if picture.resolve() in images]
    if replaced:
        raise ConfigError(list_errors("--output: choose another folder; pictures would replace input images", replaced))


def folder_names(categories: Sequence[Category]) -> dict[int, str]:
    """Category id -> a folder's name for the class, one for each that file systems accept."""
    plain = {category.id: re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", category.name).strip(" .") for category in categories}
    counts = Counter(name.lower() for name in plain.values())
    return {
        number: name if name and counts[name.lower()] == 1 else f"{name}_{number}".lstrip("_")
        for number, name in plain.items()
    }


def write_image_results(
    folder: Path,
    name: str,
    pixels_HW3: NDArray[np.uint8],
    shown: list[dict[str, Any]],
    categories: tuple[Category, ...],
    options: PredictOptions,
) -> None:
    """Write the files of one image: its picture, YOLO labels and crops of the results `shown`. name: without suffix."""
    if options.pictures:
        style = BoxStyle(enlarge=None if options.enlarge else 1)
        save_picture(folder / f"{name}.jpg", draw_results(pixels_HW3, shown, categories, 0.0, style))
    if "yolo" in options.formats:
        size = (pixels_HW3.shape[0], pixels_HW3.shape[1])
        write_text(folder / "labels" / f"{name}.txt", "".join(yolo_lines(shown, categories, size)))
    if "crops" in options.formats:
        classes = folder_names(categories)
        for number, result in enumerate(shown, start=1):
            crop_HW3 = cropped(pixels_HW3, result["bbox"])
            save_picture(folder / "crops" / classes[result["category_id"]] / f"{name}_{number}.jpg", crop_HW3)


def yolo_lines(results: Sequence[dict[str, Any]], categories: Sequence[Category], size: tuple[int, int]) -> list[str]:
    """A line for each result: index of the class, centre and sides in parts of the image (height, width), score."""
    index = {category.id: k for k, category in enumerate(categories)}
    height, width = size
    lines = []
    for result in results:
        x, y, w, h = result["bbox"]
        place = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        numbers = " ".join(f"{value:.6f}" for value in (*place, result["score"]))
        lines.append(f"{index[result['category_id']]} {numbers}\n")
    return lines


def cropped(pixels_HW3: NDArray[np.uint8], box: Sequence[float]) -> NDArray[np.uint8]:
    """The pixels of a box [x, y, width, height], at least one."""
    height, width = pixels_HW3.shape[:2]
    left, top = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    right, bottom = max(left + 1, round(box[0] + box[2])), max(top + 1, round(box[1] + box[3]))
    return pixels_HW3[max(0, top) : bottom, max(0, left) : right]


def write_all_results(
    folder: Path, rows: list[dict[str, Any]], categories: Sequence[Category], formats: Sequence[Format]
) -> list[str]:
    """Write the files of all images together; returns the names of what `formats` consists of, for a message."""
    written = []
    if "coco" in formats:
        write_json(folder / "detections.json", rows)
        written.append("detections.json")
    if "csv" in formats:
        write_csv(folder / "detections.csv", _CSV_COLUMNS, map(csv_row, rows))
        written.append("detections.csv")
    if "yolo" in formats:
        write_text(folder / "classes.txt", "".join(f"{category.name}\n" for category in categories))
        written += ["labels/", "classes.txt"]
    if "crops" in formats:
        written.append("crops/")
    return written


def csv_row(row: dict[str, Any]) -> list[str | float | int]:
    """A result of `predict` as the cells of _CSV_COLUMNS."""
    x, y, w, h = row["bbox"]
    corners = [round(value, 3) for value in (x, y, x + w, y + h)]
    return [row["file_name"], row["category_name"], row["score"], *corners, int(row["shown"])]
