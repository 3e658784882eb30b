"""Which images make which batch, and loading them ahead of their use.

Order and pixels depend on (seed, epoch, image index) alone: not on workers, ranks, accumulation or interruptions.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from functools import partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.data.coco import CocoDataset, ImageRecord
from retinanet.data.images import decode_image
from retinanet.data.prefetch import prefetched
from retinanet.data.transforms import NO_AUGMENT, Augment, ResizeRule, collate, make_sample, resized, tight_canvas
from retinanet.errors import DataError
from retinanet.structures import Batch, Sample

MIB = 2**20


class ImageCache:
    """Keeps images until it is full, and then those: an epoch comes back to every image, so one is worth as much as
    another, while a cache of the latest would have thrown each away just before its turn. Of several ranks, each meets
    another part of the images in every epoch, and in the end all of them.
    """

    def __init__(self, mib: int) -> None:
        """mib: bound of the pixels kept, in MiB; 0 keeps nothing."""
        self._free = mib * MIB
        self._kept: dict[Hashable, Tensor] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The image of `key`, from `make` where it is not kept. Callers must not write into it."""
        image = self._kept.get(key)
        if image is None:
            image = make()
            with self._lock:
                if key not in self._kept and image.nbytes <= self._free:
                    self._kept[key] = image
                    self._free -= image.nbytes
        return image


class Key(NamedTuple):
    """One image to load: all that its pixels depend on, beside the seed."""

    epoch: int
    image: int
    group: int
    shorter_side: int


class GlobalBatches:
    """The endless sequence of global batches of a training run.

    Each epoch is a permutation of all images. Images queue up by aspect-ratio bucket, and a batch leaves when a bucket
    has `batch_size` of them, so every batch fits one canvas, no image is repeated or dropped, and what an epoch leaves
    in the queues opens the batches of the next.
    """

    def __init__(self, buckets: list[int], batch_size: int, shorter_sides: tuple[int, ...], seed: int) -> None:
        """buckets: aspect-ratio bucket of each image."""
        self.buckets, self.batch_size, self.shorter_sides, self.seed = buckets, batch_size, shorter_sides, seed

    def __iter__(self) -> Iterator[list[Key]]:
        queues: dict[int, list[tuple[int, int]]] = {}
        epoch = 0
        while True:
            for index in np.random.default_rng([self.seed, epoch]).permutation(len(self.buckets)).tolist():
                bucket = self.buckets[index]
                queue = queues.setdefault(bucket, [])
                queue.append((epoch, index))
                if len(queue) == self.batch_size:
                    shorter = self._shorter_side(*queue[0])
                    yield [Key(e, i, bucket, shorter) for e, i in queue]
                    queue.clear()
            epoch += 1

    def _shorter_side(self, epoch: int, index: int) -> int:
        draw = np.random.default_rng([self.seed, epoch, index, 1]).integers(len(self.shorter_sides))
        return self.shorter_sides[int(draw)]


class MicroBatches:
    """This rank's micro-batches of the steps from `first_step` to `last_step`, in order."""

    def __init__(
        self, batches: GlobalBatches, first_step: int, last_step: int, rank: int, world_size: int, accumulation: int
    ) -> None:
        self.batches, self.first_step, self.last_step = batches, first_step, last_step
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        size = self.batches.batch_size // (self.world_size * self.accumulation)
        for step, batch in enumerate(self.batches):
            if step >= self.last_step:
                return
            if step >= self.first_step:
                for micro in range(self.accumulation):
                    start = (micro * self.world_size + self.rank) * size
                    yield batch[start : start + size]


class Images:
    """Decodes and augments the images of keys."""

    def __init__(
        self, coco: CocoDataset, resize_rule: ResizeRule, augment: Augment, seed: int, cache: ImageCache | None = None
    ) -> None:
        self.coco, self.resize_rule, self.augment, self.seed = coco, resize_rule, augment, seed
        self.cache = cache or ImageCache(0)
        one_side = resize_rule.canvas is not None or len(resize_rule.shorter_side) == 1
        self.always_one_size = one_side and augment.scale_jitter == (1.0, 1.0)

    def sample(self, key: Key) -> Sample:
        """DataError for a file that cannot be read or has another size than its annotation says."""
        record = self.coco.images[key.image]
        fitted = self.resize_rule.fitted(record.height, record.width, key.shorter_side)
        if self.always_one_size:
            image = self.cache.get(
                (key.image, fitted), lambda: resized(self.decoded(record), fitted, self.resize_rule.resize)
            )
        else:
            image = self.cache.get(key.image, lambda: self.decoded(record))
        rng = np.random.default_rng([self.seed, key.epoch, key.image])
        canvas = self.resize_rule.image_canvas(fitted, key.group, key.shorter_side)
        return make_sample(image, record, fitted, canvas, self.augment, rng, self.resize_rule.resize)

    def decoded(self, record: ImageRecord) -> Tensor:
        """(3, h, w) uint8, as stored."""
        image = decode_image(record.path)
        if image.shape[-2:] != (record.height, record.width):
            raise DataError(
                f"{record.path}: is {image.shape[-2]}x{image.shape[-1]} (height x width) but "
                f"{self.coco.annotation_file} says {record.height}x{record.width}; correct the annotation "
                f"of image id {record.id}."
            )
        return image

    def batch(self, keys: list[Key]) -> Batch:
        """A micro-batch on the canvas of its group, or the samples' own. DataError naming every file at error."""
        samples, errors = [], []
        for key in keys:
            try:
                samples.append(self.sample(key))
            except DataError as error:
                errors.append(str(error))
        if errors:
            raise DataError("\n".join(errors))
        if self.resize_rule.canvases == "tight":
            return collate(samples, tight_canvas(samples))
        return collate(samples, self.resize_rule.group_canvas(keys[0].group, keys[0].shorter_side))

    def pinned_batch(self, keys: list[Key], device: int) -> Batch:
        """`batch` with its pixels where the GPU `device` can fetch them by itself."""
        batch = self.batch(keys)
        with torch.cuda.device(device):
            return batch._replace(images=batch.images.pin_memory())


def _batches(images: Images, keys: Iterable[list[Key]], workers: int, pin: bool) -> Generator[Batch, None, None]:
    """The batches of `keys`, in order. To be closed: that, unlike leaving it to the collector, ends the threads."""
    if pin:
        return prefetched(partial(images.pinned_batch, device=torch.cuda.current_device()), keys, workers)
    return prefetched(images.batch, keys, workers)


class Shard(NamedTuple):
    """Which part of the work this process loads."""

    rank: int
    world_size: int
    accumulation: int


def train_batches(
    coco: CocoDataset,
    resize_rule: ResizeRule,
    augment: Augment,
    *,
    batch_size: int,
    seed: int,
    steps: tuple[int, int],
    shard: Shard,
    workers: int,
    pin: bool,
    cache_mib: int = 0,
) -> Generator[Batch, None, None]:
    """This rank's micro-batches for the steps [first, last): `accumulation` of them a step.

    batch_size: images of a step over all ranks; a multiple of world_size * accumulation. cache_mib: of `ImageCache`.
    Raises DataError, while iterating, for an image that cannot be read.
    """
    buckets = [resize_rule.aspect_bucket(record.height, record.width) for record in coco.images]
    batches = GlobalBatches(buckets, batch_size, resize_rule.shorter_side, seed)
    keys = MicroBatches(batches, *steps, shard.rank, shard.world_size, shard.accumulation)
    return _batches(Images(coco, resize_rule, augment, seed, ImageCache(cache_mib)), keys, workers, pin)


def eval_batches(
    coco: CocoDataset, resize_rule: ResizeRule, *, batch_size: int, rank: int, world_size: int, workers: int, pin: bool
) -> Generator[Batch, None, None]:
    """This rank's share of all images, once each, unaugmented, grouped by shape, at the last shorter side."""
    by_group: dict[int, list[Key]] = {}
    for index, record in enumerate(coco.images):
        group = resize_rule.aspect_bucket(record.height, record.width)
        by_group.setdefault(group, []).append(Key(0, index, group, resize_rule.shorter_side[-1]))
    batches = [
        keys[start : start + batch_size]
        for _, keys in sorted(by_group.items())
        for start in range(0, len(keys), batch_size)
    ]
    return _batches(Images(coco, resize_rule, NO_AUGMENT, 0), batches[rank::world_size], workers, pin)
