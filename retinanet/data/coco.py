"""A COCO-format data set, validated as a whole and held as arrays, one record per image.

Legend: I images, N annotations, G objects and C crowd regions of an image, 4 box coordinates.
Boxes are (x1, y1, x2, y2) float32 in pixels of the image after its EXIF rotation, x2 and y2 exclusive.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotation_arrays import AnnotationArrays
from retinanet.data.content import read_annotations
from retinanet.data.content_with_files import FileOptions, content_with_files
from retinanet.data.copies import find_copies
from retinanet.data.file_names import path_in
from retinanet.data.ground_truth import complete
from retinanet.data.image_files import CheckImages
from retinanet.data.notes import counted
from retinanet.data.pixel_depth import DepthRange
from retinanet.display.numbers import amount
from retinanet.files import data_title
from retinanet.structures import Category

_ROUNDING = 0.011  # pixels that x + width may exceed the image by when both were rounded to two decimals


class Tile(NamedTuple):
    """Where a tile lies in its image."""

    top: int
    left: int
    image_size: tuple[int, int]
    """(height, width) of the whole image."""


class ImageRecord(NamedTuple):
    """One image, or one tile of an image, and its ground truth."""

    id: int
    path: Path
    height: int
    width: int
    boxes_G4: NDArray[np.float32]
    """(G, 4) xyxy within the image."""
    classes_G: NDArray[np.int64]
    """(G,) class index: position in `CocoDataset.categories`."""
    crowd_C4: NDArray[np.float32]
    """(C, 4) xyxy of the regions marked iscrowd; they are in no other field."""
    tile: Tile | None = None
    """Where this is only a part of the file's image: all fields but id and path are then of the tile."""


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """A validated data set."""

    annotation_file: Path
    image_folder: Path
    categories: tuple[Category, ...]
    """Sorted by id, or as `categories.aligned` orders them; the position is the class index."""
    images: tuple[ImageRecord, ...]
    """In the order of their ids, those without objects too."""
    dropped: dict[str, int]
    """Annotations left out: "zero_area" (width or height not above 0), "outside" (wholly outside the image)."""
    clipped: int
    """Number of boxes that reached over the image's border and were cut there."""
    notes: tuple[str, ...]
    """What a user should know but need not fix, one sentence each."""
    ground_truth: dict[str, Any]
    """The COCO dict for pycocotools; see `data.ground_truth`. Dropped and clipped boxes are in it as read."""
    depth_range: DepthRange | None = None
    """How pixels of more than 8 bits become bytes; see `decode_image`."""


def load_coco(
    annotation_file: Path,
    image_folder: Path,
    check_images: CheckImages = "none",
    workers: int = 8,
    *,
    root: Path | None = None,
    depth_range: DepthRange | None = None,
) -> CocoDataset:
    """Read and validate an annotation file (.json or .json.gz) and the files of its images.

    Every image must be a file within `image_folder` after symbolic links are resolved, or, where its name says so,
    within `root`, the data set's folder. `check_images`: "header" also compares each file's size after EXIF rotation
    and checks that the file is complete, "decode" also decodes every pixel; `workers` threads do it. What can be read
    in one way only is read so (see `normalise_content`, `locate`, `read_boxes`) and noted. Raises DataError with every
    error of the content and of the files.
    """
    options = FileOptions(check=check_images, workers=workers, root=root, depth_range=depth_range)
    return parse_coco(read_annotations(annotation_file), annotation_file, image_folder, options)


def parse_coco(
    data: object, annotation_file: Path, image_folder: Path, options: FileOptions | None = None
) -> CocoDataset:
    """As `load_coco`, given the content of the annotation file, which becomes the data set's `ground_truth`."""
    options = options or FileOptions()
    content = content_with_files(data, annotation_file, image_folder, options)
    data = content.data
    notes = complete(data)
    categories = tuple(sorted(Category(row["id"], row["name"]) for row in data["categories"]))
    rows = sorted(data["images"], key=lambda row: row["id"])
    arrays = _ImageArrays(rows, content.arrays, categories)
    images = tuple(
        ImageRecord(
            id=row["id"],
            path=path_in(image_folder, row["file_name"]),
            height=row["height"],
            width=row["width"],
            boxes_G4=boxes,
            classes_G=classes,
            crowd_C4=crowd,
        )
        for row, (boxes, classes, crowd) in zip(rows, arrays.by_image())
    )
    return CocoDataset(
        annotation_file=annotation_file,
        image_folder=image_folder,
        categories=categories,
        images=images,
        dropped={"zero_area": int(arrays.zero_area_N.sum()), "outside": int(arrays.outside_N.sum())},
        clipped=int(arrays.clipped_N.sum()),
        notes=(*content.notes, *notes, *arrays.notes(data["annotations"], rows)),
        ground_truth=data,
        depth_range=options.depth_range,
    )


def shared_images_note(train: CocoDataset, val: CocoDataset) -> str:
    """A note where images to evaluate on are also trained on; empty where none is."""
    remedy = "the AP says nothing about other images; hold some out for evaluation"
    if train.annotation_file.resolve() == val.annotation_file.resolve():
        return f"the images to evaluate on are the training images ({train.annotation_file} is both): {remedy}"
    trained = set(_real_paths(train))
    shared = [path for path in _real_paths(val) if path in trained]
    copies = [] if shared else find_copies([one.path for one in train.images], [one.path for one in val.images])
    if copies:
        return (
            f"{len(copies):,} of the {len(val.images):,} images to evaluate on are copies of training images, such as "
            f"{copies[0][1].name} of {copies[0][0].name}: {remedy}"
        )
    if not shared:
        return ""
    return (
        f"{len(shared):,} of the {len(val.images):,} images to evaluate on are also training images, such as "
        f"{shared[0].name}: {remedy}"
    )


def _real_paths(dataset: CocoDataset) -> list[Path]:
    """The files of the images, their folders with symbolic links resolved."""
    real = {folder: folder.resolve() for folder in {record.path.parent for record in dataset.images}}
    return [real[record.path.parent] / record.path.name for record in dataset.images]


def noted(dataset: CocoDataset, *notes: str) -> CocoDataset:
    """The data set with further notes; empty ones are left out."""
    return replace(dataset, notes=(*dataset.notes, *(note for note in notes if note)))


def first_images(dataset: CocoDataset, count: int | None) -> CocoDataset:
    """The data set restricted to its first `count` images, with all categories; None changes nothing."""
    if count is None or count >= len(dataset.images):
        return dataset
    note = f"only the first {count} of {len(dataset.images):,} images are used"
    return _restricted(dataset, dataset.images[:count], note)


def with_objects(dataset: CocoDataset) -> CocoDataset:
    """The data set restricted to images with a box that is no crowd region, with all categories."""
    images = tuple(image for image in dataset.images if len(image.boxes_G4))
    if len(images) == len(dataset.images):
        return dataset
    return _restricted(dataset, images, f"{len(dataset.images) - len(images):,} images without objects are left out")


def only_images(dataset: CocoDataset, images: Sequence[ImageRecord]) -> CocoDataset:
    """The data set restricted to some of its images, in the order given, with all categories."""
    return _restricted(dataset, tuple(images), f"only {len(images)} of {len(dataset.images):,} images are used")


def _restricted(dataset: CocoDataset, images: tuple[ImageRecord, ...], note: str) -> CocoDataset:
    kept = {image.id for image in images}
    truth = {
        **dataset.ground_truth,
        "images": [row for row in dataset.ground_truth["images"] if row["id"] in kept],
        "annotations": [row for row in dataset.ground_truth["annotations"] if row["image_id"] in kept],
    }
    return replace(dataset, images=images, ground_truth=truth, notes=(*dataset.notes, note))


def summary(dataset: CocoDataset) -> str:
    """A few lines: images, boxes, most frequent classes, crowd, empty images, what was dropped or clipped."""
    counts = Counter[int]()
    for image in dataset.images:
        counts.update(image.classes_G.tolist())
    most = ", ".join(f"{dataset.categories[k].name} {n:,}" for k, n in counts.most_common(8))
    rest = len(dataset.categories) - 8
    unused = len(dataset.categories) - len(counts)
    crowd = sum(len(image.crowd_C4) for image in dataset.images)
    empty = sum(not len(image.boxes_G4) for image in dataset.images)
    dropped = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in dataset.dropped.items())
    return "\n".join(
        [
            f"{data_title(dataset.annotation_file)}: {amount(len(dataset.images), 'image')} "
            f"({empty:,} without objects), {amount(counts.total(), 'object')}, {amount(crowd, 'crowd region')}",
            f"  {amount(len(dataset.categories), 'class')} ({unused} without objects): {most}"
            + (f", and {rest} more" if rest > 0 else ""),
            f"  dropped: {dropped}; clipped to the image: {dataset.clipped}",
            *(f"  note: {note}" for note in dataset.notes),
        ]
    )


class _ImageArrays:
    """All annotations as arrays, in file order: kept, dropped or clipped."""

    def __init__(
        self, rows: list[dict[str, Any]], annotations: AnnotationArrays, categories: tuple[Category, ...]
    ) -> None:
        """`rows` are the images sorted by id; everything has passed `validate_ground_truth`."""
        self.ids_I = np.array([row["id"] for row in rows], dtype=np.int64)
        sizes_I2 = np.array([(row["width"], row["height"]) for row in rows], dtype=np.float64)
        xywh_N4, self.crowd_N = annotations.boxes_N4, annotations.crowd_N
        self.image_N = np.searchsorted(self.ids_I, annotations.image_ids_N)
        self.class_N = np.searchsorted(np.array([c.id for c in categories]), annotations.category_ids_N)

        limit_N2 = sizes_I2[self.image_N].reshape(-1, 2)
        with np.errstate(over="ignore"):
            corners_N22 = np.stack([xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]], axis=1)
        inside_N22 = np.clip(corners_N22, 0.0, limit_N2[:, None])
        self.boxes_N4 = inside_N22.reshape(-1, 4).astype(np.float32)
        self.zero_area_N = (xywh_N4[:, 2:] <= 0).any(axis=1)
        self.outside_N = ~self.zero_area_N & (inside_N22[:, 0] >= inside_N22[:, 1]).any(axis=1)
        # Boxes too thin for float32 have no area either.
        thin_N = (self.boxes_N4[:, :2] >= self.boxes_N4[:, 2:]).any(axis=1)
        self.zero_area_N |= thin_N & ~self.outside_N
        self.kept_N = ~(self.zero_area_N | self.outside_N)
        over_N = (np.abs(corners_N22 - inside_N22) > _ROUNDING).any(axis=(1, 2))
        self.clipped_N = self.kept_N & over_N

    def by_image(self) -> list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]]:
        """I entries (boxes_G4, classes_G, crowd_C4), each in file order."""
        objects, object_ends = self._sorted_by_image(self.kept_N & ~self.crowd_N)
        crowds, crowd_ends = self._sorted_by_image(self.kept_N & self.crowd_N)
        boxes, classes, regions = self.boxes_N4[objects], self.class_N[objects], self.boxes_N4[crowds]
        return [
            (boxes[a:b], classes[a:b], regions[c:d])
            for a, b, c, d in zip(object_ends[:-1], object_ends[1:], crowd_ends[:-1], crowd_ends[1:])
        ]

    def _sorted_by_image(self, chosen_N: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[int]]:
        """Indices of the chosen annotations, image by image, and each image's first one (I + 1 offsets)."""
        chosen = np.flatnonzero(chosen_N)
        chosen = chosen[np.argsort(self.image_N[chosen], kind="stable")]
        return chosen, np.searchsorted(self.image_N[chosen], np.arange(len(self.ids_I) + 1)).tolist()

    def notes(self, annotations: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[str]:
        """Sentences on what was dropped or clipped, naming the first few; rows: the images by id."""
        kinds = (
            (self.zero_area_N, "boxes have no area (width or height not above 0), and are dropped"),
            (self.outside_N, "boxes are wholly outside their image, and are dropped"),
            (self.clipped_N, "boxes are partly outside their image, and are clipped for training"),
        )
        notes = (
            []
            if annotations
            else ["there are no annotations: nothing can be learned from this data set, nor measured on it"]
        )
        for chosen_N, what in kinds:
            where = np.flatnonzero(chosen_N)
            if len(where):
                named = [
                    f"{annotations[i]['id']} of image {annotations[i]['image_id']} "
                    f"({rows[self.image_N[i]]['file_name']})"
                    for i in where[:3].tolist()
                ]
                more = ", ..." if len(where) > 3 else ""
                notes.append(f"{counted(len(where), what)}: annotation {', '.join(named)}{more}")
        return notes
