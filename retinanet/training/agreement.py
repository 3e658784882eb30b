"""Whether all ranks train the same: config, data and the checkpoint that they continue from."""

import hashlib

import torch

from retinanet import distributed
from retinanet.config.flat import flat
from retinanet.config.load import config_to_dict
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.distributed import Ranks
from retinanet.errors import ConfigError, list_errors

OWN = ("data.root", "data.source", "data.workers", "data.cache_mib", "data.check_images", "log.", "output", "threads")
"""Config keys that may differ between ranks: where a machine has its files, and what only rank 0 does."""


def check_agreement(
    config: Config, train_set: CocoDataset, val_set: CocoDataset, step: int, ranks: Ranks, device: torch.device
) -> None:
    """Raise ConfigError on every rank if one differs from rank 0 in config, data or the step that it continues from."""
    texts = {
        **{key: repr(value) for key, value in flat(config_to_dict(config)).items() if not key.startswith(OWN)},
        "training data": describe_content(train_set),
        "validation data": describe_content(val_set),
        "step to continue from": str(step),
    }
    differences = distributed.find_differences(texts, ranks, device)
    if differences:
        errors = [f"rank {rank}: {name} is {own}, on rank 0 {first}" for rank, name, first, own in differences]
        remedy = "Start every rank with the same command and the same files."
        raise ConfigError(f"{list_errors('the ranks would not train the same', errors)}\n{remedy}")


def describe_content(dataset: CocoDataset) -> str:
    """Images, objects and a digest of ids, sizes, classes and boxes."""
    total = hashlib.sha256(repr(dataset.categories).encode())
    for record in dataset.images:
        total.update(repr((record.id, record.height, record.width)).encode())
        for array in (record.boxes_G4, record.classes_G, record.crowd_C4):
            total.update(array.tobytes())
    objects = sum(len(record.boxes_G4) for record in dataset.images)
    return f"{len(dataset.images):,} images with {objects:,} objects ({total.hexdigest()[:8]})"
