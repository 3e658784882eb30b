"""The cache of a frozen backbone's features: which file belongs to a split and a network, and how it is computed."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from torch import Tensor, nn

from retinanet.data.coco import CocoDataset
from retinanet.data.feature_cache import FeatureCache, FeatureForm, is_intact, write_features
from retinanet.data.loader import Images, eval_keys
from retinanet.data.transforms import (
    Augment,
    Mirroring,
    PixelRule,
    ResizeRule,
    normalise,
    possible_mirrorings,
    to_device,
)
from retinanet.display.progress import image_progress
from retinanet.errors import ResourceError
from retinanet.files import cache_folder
from retinanet.model.backbone import Backbone
from retinanet.structures import Batch

VERSION = 1
"""Raised when the same settings give other features, so that files of before are not used."""


class FeatureRule(NamedTuple):
    """Everything besides the images that their features depend on."""

    backbone: Backbone
    """In evaluation mode."""
    resize_rule: ResizeRule
    pixels: PixelRule
    precision: torch.dtype
    channels_last: bool
    device: torch.device
    batch_size: int
    """Images of a forward pass: another number may round differently."""

    @torch.no_grad()
    def extract(self, batch: Batch) -> list[Tensor]:
        """The backbone's outputs for a batch, as the network computes them."""
        batch = to_device(batch, self.device)
        images = normalise(batch.images, batch.sizes_B2, self.pixels, self.channels_last)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            levels: list[Tensor] = self.backbone(images)
        return levels


def open_features(dataset: CocoDataset, rule: FeatureRule, augment: Augment, *, shown: bool = True) -> FeatureCache:
    """The features of all images of a split, from the cache folder; computed first where it does not have them.

    augment: may mirror images and nothing else. shown: whether to show progress. A file that is damaged is computed
    anew. Safe to call from several processes at once. Raises ResourceError where the file cannot be written, DataError
    for images that cannot be read.
    """
    form = feature_form(dataset, rule, possible_mirrorings(augment))
    path = cache_folder("features") / f"{feature_digest(dataset, rule, form)}.bin"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise ResourceError(
            f"{path.parent}: cannot be written ({error.strerror}); set RETINANET_CACHE to a folder with space, or use "
            "data.feature_cache=false."
        ) from error
    with lock:
        if not is_intact(path, form):
            for left_over in path.parent.glob(f".{path.stem}.*.partial{path.suffix}"):
                left_over.unlink(missing_ok=True)  # of a process that was killed
            entries = len(dataset.images) * len(form.mirrorings)
            with image_progress("computing features", entries, shown=shown) as on_batch:
                write_features(path, form, partial(filled_batches, dataset, rule), rule.extract, on_batch)
    return FeatureCache(path, form)


def feature_form(dataset: CocoDataset, rule: FeatureRule, mirrorings: tuple[Mirroring, ...]) -> FeatureForm:
    """Shape and type of the features of a split."""
    resize_rule = rule.resize_rule
    buckets = (resize_rule.aspect_bucket(record.height, record.width) for record in dataset.images)
    return FeatureForm(
        channels=rule.backbone.channels,
        dtype=rule.precision,
        channels_last=rule.channels_last,
        mirrorings=mirrorings,
        canvases=tuple(resize_rule.bucket_canvas(bucket, resize_rule.shorter_side[-1]) for bucket in buckets),
    )


def feature_digest(dataset: CocoDataset, rule: FeatureRule, form: FeatureForm) -> str:
    """A name for features: another one where images (by path, size and time of change), weights or settings differ."""
    whole = hashlib.sha256()
    settings = (rule.resize_rule, rule.pixels, rule.batch_size, dataset.depth_range, form)
    machine = (torch.__version__, rule.device.type, torch.backends.cpu.get_cpu_capability())
    whole.update(repr((VERSION, settings, machine, str(rule.backbone))).encode())
    for record in dataset.images:
        status = Path(record.path).stat()
        whole.update(repr((str(record.path.absolute()), status.st_size, status.st_mtime_ns, record.tile)).encode())
    for name, tensor in rule.backbone.state_dict().items():
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:32]


def filled_batches(dataset: CocoDataset, rule: FeatureRule, mirroring: Mirroring) -> Iterator[tuple[list[int], Batch]]:
    """All images, mirrored, in batches of exactly `rule.batch_size`: the last of a bucket repeats images."""
    always = Augment(
        scale_jitter=(1.0, 1.0),
        color_jitter=0.0,
        flip=float(mirroring.horizontal),
        vertical_flip=float(mirroring.vertical),
    )
    images = Images(dataset, rule.resize_rule, always, seed=0)
    for keys in eval_keys(dataset, rule.resize_rule, rule.batch_size):
        filled = (keys * rule.batch_size)[: rule.batch_size]
        yield [key.image for key in filled], images.batch(filled)


def backbone_of(network: nn.Module) -> Backbone:
    """The backbone of a `RetinaNet`."""
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, Backbone)
    return backbone
