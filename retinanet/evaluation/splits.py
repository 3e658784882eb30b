"""The split of a data set that a config names."""

from pathlib import Path
from typing import Literal

from retinanet.build.rules import build_depth_range
from retinanet.config.data_keys import DataKeys
from retinanet.data.coco import CocoDataset, first_images, load_coco
from retinanet.data.image_files import CheckImages
from retinanet.data.root import check_data_root
from retinanet.errors import DataError
from retinanet.evaluation.sources import data_on_test, resolve_data

Split = Literal["train", "val", "test"]


def load_split(data: DataKeys, split: Split, check_images: CheckImages) -> CocoDataset:
    """A split of the data set that a config's section `data` names, validated, with at most `data.limit` images.

    check_images: as of `load_coco`; a config's own choice is `data.check_images`. Raises DataError, with the config key
    to set, where the folder or the annotation file is missing, and where there is no test split; otherwise as
    `load_coco`.
    """
    data = data_on_test(data) if split == "test" else resolve_data(data)
    root = Path(data.root)
    annotations, images = (
        (data.train_annotations, data.train_images) if split == "train" else (data.val_annotations, data.val_images)
    )
    check_data_root(root)
    if not (root / annotations).is_file():
        raise DataError(
            f"data.{split}_annotations: no file {root / annotations}; give the folder of the data set with "
            f"data.root=PATH and, if needed, the file within it with data.{split}_annotations=FILE."
        )
    depth_range = build_depth_range(data)
    dataset = load_coco(root / annotations, root / images, check_images, root=root, depth_range=depth_range)
    return first_images(dataset, data.limit)
