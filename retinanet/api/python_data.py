"""A data set of the user's own Python object, written once as COCO files, which everything else reads.

Legend: G objects of an image.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinanet.config.suggestions import suggest_name
from retinanet.data.images import image_header
from retinanet.data.loose_images import ImageLike, read_image
from retinanet.display.progress import image_progress
from retinanet.errors import DataError, list_errors
from retinanet.files import cache_folder, make_folder, replacing, write_json
from retinanet.prepare.split import hold_out

RECORD_KEYS = ("image", "boxes", "labels", "crowd")


class DetectionData(Protocol):
    """A data set of one's own, for `retinanet.train` and `retinanet.evaluate`."""

    @property
    def categories(self) -> Sequence[str] | Mapping[int, str]:
        """Names of the classes, in the order of the labels; or id -> name, where labels are ids."""

    def __len__(self) -> int:
        """The number of images."""

    def record(self, i: int, /) -> Mapping[str, Any]:
        """Image i, from 0, and its objects.

        image: a path, or pixels as `retinanet.load(...)` takes them, which are kept as PNG files in the cache.
        boxes: (G, 4) numbers, x1, y1, x2, y2 in pixels of the image as it is shown. labels: (G,) numbers of classes,
        or their names. crowd, which may be missing: (G,) bool, regions of many objects, which are not learned.
        """


class WrittenData(NamedTuple):
    """Where a data set has been written: values of config `data`."""

    root: Path
    """A folder that holds all images."""
    train: Path
    val: Path

    def keys(self) -> dict[str, str]:
        """As config keys."""
        return {
            "data.root": str(self.root),
            "data.train_annotations": str(self.train),
            "data.train_images": ".",
            "data.val_annotations": str(self.val),
            "data.val_images": ".",
        }


def write_data(train: DetectionData, val: DetectionData | None, held_out: float) -> WrittenData:
    """Write a data set of Python objects into the cache, under a name made from its content.

    val: None holds out a part `held_out` of the images. Raises DataError that lists what is wrong with the records,
    ResourceError if the cache cannot be written.
    """
    for one in (train, val):
        _check_object(one)
    home = cache_folder("data") / "python"
    contents = [_content(data, home / "pixels") for data in ((train,) if val is None else (train, val))]
    files = [row["file_name"] for content in contents for row in content["images"]]
    if not files:
        raise DataError("the data set has no images: its __len__ is 0")
    root = Path(os.path.commonpath([str(Path(file).parent) for file in files]))
    contents = [_relative(content, root) for content in contents]
    if val is None:
        contents = list(hold_out(contents[0], root, held_out, seed=0))
    paths = [home / f"{_digest(content)}.json" for content in contents]
    make_folder(home)
    for path, content in zip(paths, contents, strict=True):
        if not path.is_file():
            write_json(path, content)
    return WrittenData(root=root, train=paths[0], val=paths[1])


def _check_object(data: object) -> None:
    """Raise DataError, with the remedy, for an object that is no data set; None is the split that is held out."""
    lacking = [name for name in ("categories", "__len__", "record") if not hasattr(data, name)]
    if data is None or not lacking:
        return
    kind = type(data).__name__
    if isinstance(data, str | Path):
        remedy = f"give one path, of a folder with both splits, not {data} in a tuple"
    elif hasattr(data, "__getitem__") and "categories" in lacking and not isinstance(data, dict):
        remedy = (
            "wrap it in an object whose categories are the names of its classes and whose record(i) returns "
            '{"image": ..., "boxes": ..., "labels": ...}'
        )
    else:
        remedy = "give a path, or an object with categories, __len__ and record(i)"
    raise DataError(f"data: a {kind} has no {' and no '.join(lacking)}; {remedy}")


def _content(data: DetectionData, pixels: Path) -> dict[str, Any]:
    """The COCO dict of an object, with absolute file names."""
    classes = _Classes(data.categories)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    errors: list[str] = []
    count = len(data)
    with image_progress("reading data", count) as on_image:
        for i in range(count):
            try:
                row, objects = _read_record(data.record(i), i, classes, pixels)
            except DataError as error:
                errors.append(str(error))
            else:
                images.append(row)
                annotations += [{"id": len(annotations) + n, **one} for n, one in enumerate(objects, start=1)]
            on_image(1)
    if errors:
        raise DataError(list_errors(f"records of {type(data).__name__} that cannot be used", errors))
    categories = [{"id": number, "name": name} for number, name in sorted(classes.names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


class _Classes:
    """Classes by id, and the ids of labels."""

    def __init__(self, categories: Sequence[str] | Mapping[int, str]) -> None:
        if isinstance(categories, str) or not categories:
            raise DataError(f"categories: give a list of names, or a mapping of ids to names, not {categories!r}")
        given: dict[Any, Any] = dict(categories if isinstance(categories, Mapping) else enumerate(categories))
        if all(isinstance(key, str) and isinstance(value, int) for key, value in given.items()):
            given = {number: name for name, number in given.items()}  # names with their ids
        if not all(isinstance(number, int | np.integer) or str(number).isdecimal() for number in given):
            raise DataError(f"categories: give a list of names, or a mapping of ids to names, not {categories!r}")
        self.first = 0 if isinstance(categories, Mapping) else 1
        self.names = {int(number) + self.first: str(name) for number, name in given.items()}
        self.by_name = {name: number for number, name in self.names.items()}

    def id_of(self, label: object, where: str) -> int:
        """The id of a label, which is a number as the object counts, or a name."""
        if isinstance(label, str):
            if label not in self.by_name:
                raise DataError(f"{where}: there is no class {label!r}; {suggest_name(label, list(self.by_name))}")
            return self.by_name[label]
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise DataError(f"{where}: the label {label!r} is neither a whole number nor a name")
        number = int(label) + self.first
        if number not in self.names:
            known = ", ".join(str(one - self.first) for one in list(self.names)[:8])
            counts = "; if yours count from 1, give categories as {1: name, 2: name, ...}" if number > 1 else ""
            more = " ..." * (len(self.names) > 8)
            raise DataError(f"{where}: there is no class {label}; the labels are {known}{more}{counts}")
        return number


def _read_record(
    record: Mapping[str, Any], i: int, classes: _Classes, pixels: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The COCO rows of one image and its objects, these without ids. Raises DataError."""
    where = f"record({i})"
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: is a {type(record).__name__}; give a dict with image, boxes and labels")
    for key in record:
        if key not in RECORD_KEYS:
            raise DataError(f"{where}: unknown key {key}; {suggest_name(str(key), list(RECORD_KEYS))}")
    if missing := [key for key in ("image", "boxes", "labels") if key not in record]:
        raise DataError(f"{where}: has no {' and no '.join(missing)}")
    boxes_G4 = _boxes(record["boxes"], where)
    labels, crowd = list(_listed(record["labels"])), list(_listed(record.get("crowd", [False] * len(boxes_G4))))
    if not len(boxes_G4) == len(labels) == len(crowd):
        more = f" and {len(crowd)} of crowd" if "crowd" in record else ""
        raise DataError(f"{where}: has {len(boxes_G4)} boxes, but {len(labels)} labels{more}")
    path, height, width = _stored(record["image"], where, pixels)
    objects = [
        {
            "image_id": i + 1,
            "category_id": classes.id_of(label, where),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(bool(region)),
        }
        for (x1, y1, x2, y2), label, region in zip(boxes_G4.tolist(), labels, crowd, strict=True)
    ]
    return {"id": i + 1, "file_name": str(path), "height": height, "width": width}, objects


def _listed(values: Any) -> Any:
    """Tensors and arrays as lists."""
    to_list = getattr(values, "tolist", None)
    return values if to_list is None else to_list()


def _boxes(given: Any, where: str) -> NDArray[np.float64]:
    try:
        boxes = np.asarray(_listed(given), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: boxes are not (G, 4) numbers: {error}") from error
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{where}: boxes have the shape {boxes.shape}, not (G, 4): x1, y1, x2, y2 of each object")
    if not np.isfinite(boxes).all():
        raise DataError(f"{where}: a box is not finite: {boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()}")
    wrong = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if wrong.any():
        raise DataError(
            f"{where}: the box {boxes[wrong][0].tolist()} ends before it begins; boxes are x1, y1, x2, y2, not x, y, "
            "width, height"
        )
    return boxes


def _stored(image: ImageLike, where: str, pixels: Path) -> tuple[Path, int, int]:
    """The file of an image, its height and width; pixels are written to a file that is named by their hash."""
    if isinstance(image, str | Path):
        path = Path(image).expanduser().absolute()
        height, width = image_header(path)
        return path, height, width
    array = read_image(image, where).permute(1, 2, 0).contiguous().numpy()
    path = pixels / f"{hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()[:32]}.png"
    if not path.is_file():
        make_folder(pixels)
        with replacing(path) as part:
            Image.fromarray(array).save(part, "png", compress_level=1)
    return path, array.shape[0], array.shape[1]


def _relative(content: dict[str, Any], root: Path) -> dict[str, Any]:
    images = [
        {**row, "file_name": Path(os.path.relpath(row["file_name"], root)).as_posix()} for row in content["images"]
    ]
    return {**content, "images": images}


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
