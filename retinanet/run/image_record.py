"""Which images of `data.source` a run trains and evaluates on, kept in its folder as images.json.

A source without a val split is divided anew when its files change, so that images of val may become training images.
"""

from pathlib import Path
from typing import Any

from retinanet.data.coco import CocoDataset
from retinanet.errors import DataError
from retinanet.files import read_json, write_json


def image_names(train_set: CocoDataset, val_set: CocoDataset) -> dict[str, list[str]]:
    """The names of both splits' images, as their annotation files have them."""
    sets = {"train": train_set, "val": val_set}
    return {split: [row["file_name"] for row in one.ground_truth["images"]] for split, one in sets.items()}


def write_images(path: Path, train_set: CocoDataset, val_set: CocoDataset) -> None:
    """Write images.json of a new run. Raises ResourceError."""
    write_json(path, image_names(train_set, val_set))


def check_same_images(path: Path, train_set: CocoDataset, val_set: CocoDataset, source: str | None) -> None:
    """Raise DataError if a run would go on with other images than it began with; nothing without images.json.

    source: the data set's path; None for data that are given by root and paths, which are not checked.
    """
    if source is None or not path.is_file():
        return
    began: Any = read_json(path)
    names = image_names(train_set, val_set)
    was, now = ({split: set(one.get(split, [])) for split in ("train", "val")} for one in (began, names))
    if was == now:
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


def trained_note(path: Path, dataset: CocoDataset, source: str | None) -> str:
    """A note where a run trained on images that its detector is evaluated on now; empty without any, or a record."""
    if source is None or not path.is_file():
        return ""
    content: Any = read_json(path)
    trained = set(content.get("train", []))
    shared = sorted(row["file_name"] for row in dataset.ground_truth["images"] if row["file_name"] in trained)
    if not shared or shared == sorted(trained):
        return ""
    return (
        f"{source} has changed since the training: {len(shared):,} of these {len(dataset.images):,} images were "
        f"training images (such as {shared[0]}), so the AP is too high"
    )
