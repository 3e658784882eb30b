"""Which images of `data.source` a run trains and evaluates on, kept in its folder as images.json.

A source without a val split is divided anew when its files change, so that images of val may become training images.
"""

import os
from pathlib import Path
from typing import Any

from retinanet.data.coco import CocoDataset
from retinanet.errors import DataError
from retinanet.files import read_json, write_json


def image_names(one: CocoDataset, other_folder: Path) -> list[str]:
    """The images of a split as paths from the folder that both splits' image folders are in.

    Where each split has a folder, train/1.jpg and val/1.jpg are two images, although both annotation files say 1.jpg.

    other_folder: the image folder of the other split.
    """
    common = os.path.commonpath([one.image_folder.absolute(), other_folder.absolute()])
    return [Path(os.path.relpath(image.path, common)).as_posix() for image in one.images]


def write_images(path: Path, train_set: CocoDataset, val_set: CocoDataset) -> None:
    """Write images.json of a new run. Raises ResourceError."""
    write_json(path, _names_by_split(train_set, val_set))


def check_same_images(path: Path, train_set: CocoDataset, val_set: CocoDataset, source: str | None) -> None:
    """Raise DataError if a run would go on with other images than it began with; nothing without images.json.

    source: the data set's path; None for data that are given by root and paths, which are not checked.
    """
    if source is None or not path.is_file():
        return
    began: Any = read_json(path)
    names = _names_by_split(train_set, val_set)
    was, now = ({split: set(one.get(split, [])) for split in ("train", "val")} for one in (began, names))
    alone = {"train": _annotated(train_set), "val": _annotated(val_set)}
    if was in (now, alone):
        return
    new = (now["train"] | now["val"]) - (was["train"] | was["val"])
    lost = (was["train"] | was["val"]) - (now["train"] | now["val"])
    moved = (was["train"] & now["val"]) | (was["val"] & now["train"])
    counts = {"new": new, "gone": lost, "on the other side of the split": moved}
    found = ", ".join(f"{len(names):,} {what} (such as {min(names)})" for what, names in counts.items() if names)
    raise DataError(
        f"{source}: the data set is not the one that this run began with ({path.name}): images are {found}. To go on, "
        "restore it; to train on it as it is, start a new run from the weights: model.weights="
        f"{path.parent / 'checkpoints' / 'best.pt'} and another output"
    )


def trained_note(path: Path, dataset: CocoDataset, train_folder: Path, source: str | None) -> str:
    """A note where a run trained on images that its detector is evaluated on now; empty without any, or a record.

    train_folder: the image folder of the training images.
    """
    if source is None or not path.is_file():
        return ""
    content: Any = read_json(path)
    trained = set(content.get("train", []))
    shared = sorted(trained.intersection(image_names(dataset, train_folder)))
    if not shared or shared == sorted(trained):
        return ""
    return (
        f"{source} has changed since the training: {len(shared):,} of these {len(dataset.images):,} images were "
        f"training images (such as {shared[0]}), so the AP is too high"
    )


def _names_by_split(train_set: CocoDataset, val_set: CocoDataset) -> dict[str, list[str]]:
    return {
        "train": image_names(train_set, val_set.image_folder),
        "val": image_names(val_set, train_set.image_folder),
    }


def _annotated(one: CocoDataset) -> set[str]:
    """The names in the annotation file, which images.json had until 2026-11-28."""
    return {row["file_name"] for row in one.ground_truth["images"]}
