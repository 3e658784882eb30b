"""The order of images and batches, and loading them ahead of their use.

Order and pixels depend only on (seed, epoch, image index), not on workers, ranks, accumulation or interruptions.
"""

import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from functools import partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.data.coco import CocoDataset, ImageRecord
from retinanet.data.feature_cache import FeatureCache
from retinanet.data.prefetch import prefetched
from retinanet.data.repeats import repeat_factors, rounded_at_random
from retinanet.data.transforms import (
    NO_AUGMENT,
    Augment,
    Draws,
    ResizeRule,
    collate,
    draw_changes,
    make_sample,
    resized,
    tight_canvas,
)
from retinanet.data.whole_images import RecentImages, crop_tile, decode_whole
from retinanet.errors import DataError, list_errors
from retinanet.structures import Batch, Sample

MIB = 2**20

_log = logging.getLogger(__name__)


class ImageCache:
    """Images in memory, added until the cache is full and never evicted.

    Without repeats every epoch uses each image once, so all are worth the same, while a cache of the most recent ones
    would discard each just before its next use. With several ranks, each loads another part of the images in every
    epoch, and in the end all of them.
    """

    def __init__(self, mib: int) -> None:
        """mib: maximum size of the pixels kept, in MiB; 0 keeps nothing."""
        self._free = mib * MIB
        self._kept: dict[Hashable, Tensor] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The image of `key`, from `make` where it is not cached. Callers must not modify it."""
        image = self._kept.get(key)
        if image is None:
            image = make()
            with self._lock:
                if key not in self._kept and image.nbytes <= self._free:
                    self._kept[key] = image
                    self._free -= image.nbytes
        return image


class Key(NamedTuple):
    """One image to load: with the seed, all that its pixels depend on."""

    epoch: int
    image: int
    bucket: int
    """Aspect-ratio bucket."""
    shorter_side: int
    repeat: int = 0
    """How often the image has occurred in its epoch before (config `data.repeat_threshold`)."""

    def pixel_seed(self, seed: int) -> list[int]:
        """Seed of the augmentation, another one for each repeat."""
        first = [seed, self.epoch, self.image]
        return [*first, 2, self.repeat] if self.repeat else first


class GlobalBatches:
    """The endless sequence of global batches of a training run.

    Each epoch is a permutation of all images, or of as many copies of each as its repeat factor gives. Images are
    queued by aspect-ratio bucket, and `batch_size` of them in a queue become a batch. So every batch fits one canvas,
    no image is dropped, and images still queued at the end of an epoch come first in the batches of the next.
    """

    def __init__(
        self,
        buckets: list[int],
        batch_size: int,
        shorter_sides: tuple[int, ...],
        seed: int,
        factor_I: NDArray[np.float64] | None = None,
    ) -> None:
        """buckets: aspect-ratio bucket of each image; factor_I: see `repeats.repeat_factors`, None: each image once."""
        self.buckets, self.batch_size, self.shorter_sides, self.seed = buckets, batch_size, shorter_sides, seed
        self.factor_I = factor_I

    def __iter__(self) -> Iterator[list[Key]]:
        queues: dict[int, list[tuple[int, int, int]]] = {}
        epoch = 0
        while True:
            for index, repeat in self._epoch(epoch):
                bucket = self.buckets[index]
                queue = queues.setdefault(bucket, [])
                queue.append((epoch, index, repeat))
                if len(queue) == self.batch_size:
                    shorter = self._shorter_side(*queue[0][:2])
                    yield [
                        Key(epoch=e, image=i, bucket=bucket, shorter_side=shorter, repeat=again)
                        for e, i, again in queue
                    ]
                    queue.clear()
            epoch += 1

    def _epoch(self, epoch: int) -> list[tuple[int, int]]:
        """(image, repeat) in the order of this epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        if self.factor_I is None:
            return [(index, 0) for index in rng.permutation(len(self.buckets)).tolist()]
        times = rounded_at_random(self.factor_I, self.seed, epoch).tolist()
        copies = [(index, repeat) for index, count in enumerate(times) for repeat in range(count)]
        return [copies[place] for place in rng.permutation(len(copies)).tolist()]

    def _shorter_side(self, epoch: int, index: int) -> int:
        draw = np.random.default_rng([self.seed, epoch, index, 1]).integers(len(self.shorter_sides))
        return self.shorter_sides[int(draw)]


class MicroBatches:
    """This rank's micro-batches of the steps [first_step, last_step), in order."""

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


class SkippedImages:
    """Images that a training passes over because they cannot be read: at most `most` of `total`."""

    def __init__(self, most: int, total: int) -> None:
        self.most, self.total = most, total
        self.errors: dict[int, str] = {}
        self._lock = Lock()

    def add(self, index: int, error: str) -> None:
        """Count an image and name it once. Raises DataError that lists all of them if there are too many."""
        with self._lock:
            if index in self.errors:
                return
            self.errors[index] = error
            if len(self.errors) > self.most:
                title = f"more than {self.most} of {self.total:,} images cannot be read (data.bad_images)"
                raise DataError(list_errors(title, list(self.errors.values())))
        _log.warning("%s; another image takes its place (%d of at most %d)", error, len(self.errors), self.most)


class Images:
    """Decodes and augments the images of a data set, or reads the features of a cache in their place."""

    def __init__(
        self,
        coco: CocoDataset,
        resize_rule: ResizeRule,
        augment: Augment,
        seed: int,
        cache: ImageCache | None = None,
        features: FeatureCache | None = None,
        skipped: SkippedImages | None = None,
    ) -> None:
        """skipped: passes over images that cannot be read; None raises DataError for them."""
        self.features, self.skipped = features, skipped
        self.coco, self.resize_rule, self.augment, self.seed = coco, resize_rule, augment, seed
        self.cache, self.recent = cache or ImageCache(0), RecentImages()
        one_side = resize_rule.canvas is not None or len(resize_rule.shorter_side) == 1
        self.always_one_size = one_side and augment.scale_jitter == (1.0, 1.0)

    def sample(self, key: Key) -> Sample:
        """Load one image. Raises DataError where its file cannot be read or has another size than its annotation."""
        record = self.coco.images[key.image]
        fitted = self.resize_rule.fitted(record.height, record.width, key.shorter_side)
        if self.features is not None:
            image = torch.empty((0, *fitted), dtype=torch.uint8)
        elif record.tile is not None:
            image = self.decoded(record)
        elif self.always_one_size:
            image = self.cache.get(
                (key.image, fitted), lambda: resized(self.decoded(record), fitted, self.resize_rule.resize)
            )
        else:
            image = self.cache.get(key.image, lambda: self.decoded(record))
        canvas = self.resize_rule.image_canvas(fitted, key.bucket, key.shorter_side)
        return make_sample(image, record, fitted, canvas, self.augment, self.draws(key), self.resize_rule.resize)

    def draws(self, key: Key) -> Draws:
        """The random numbers of a sample."""
        return draw_changes(np.random.default_rng(key.pixel_seed(self.seed)))

    def sample_or_other(self, key: Key) -> Sample:
        """`sample`, or that of the next image of the same bucket where `skipped` passes over one."""
        count, bad = len(self.coco.images), self.skipped
        if bad is None:
            return self.sample(key)
        for index in (number % count for number in range(key.image, key.image + count)):
            record = self.coco.images[index]
            if index not in bad.errors and self.resize_rule.aspect_bucket(record.height, record.width) == key.bucket:
                try:
                    return self.sample(key._replace(image=index))
                except DataError as error:
                    bad.add(index, str(error))
        raise DataError(list_errors("no image of this shape can be read", list(bad.errors.values())))

    def decoded(self, record: ImageRecord) -> Tensor:
        """(3, h, w) uint8, as stored; whole images of tiles are kept."""
        if record.tile is None:
            return decode_whole(record, self.coco)
        whole = self.cache.get(
            record.path, lambda: self.recent.get(record.path, lambda: decode_whole(record, self.coco))
        )
        return crop_tile(whole, record)

    def batch(self, keys: list[Key]) -> Batch:
        """A micro-batch on its bucket's or its samples' own canvas. Raises DataError naming every unreadable file."""
        samples, errors = [], []
        for key in keys:
            try:
                samples.append(self.sample_or_other(key))
            except DataError as error:
                errors.append(str(error))
        if errors:
            raise DataError("\n".join(errors))
        if self.resize_rule.canvases == "tight":
            return collate(samples, tight_canvas(samples))
        batch = collate(samples, self.resize_rule.bucket_canvas(keys[0].bucket, keys[0].shorter_side))
        if self.features is None:
            return batch
        entries = [(key.image, self.draws(key).mirroring(self.augment)) for key in keys]
        return batch._replace(features=self.features.stacked(entries))

    def pinned_batch(self, keys: list[Key], device: int) -> Batch:
        """`batch` with its pixels or features in pinned memory, from which the GPU `device` copies asynchronously."""
        batch = self.batch(keys)
        with torch.cuda.device(device):
            features = [level.pin_memory() for level in batch.features]
            return batch._replace(images=batch.images.pin_memory(), features=features)


def _batches(images: Images, keys: Iterable[list[Key]], workers: int, pin: bool) -> Generator[Batch, None, None]:
    """The batches of `keys`, in order. Close the generator to end its threads at once."""
    if pin:
        return prefetched(partial(images.pinned_batch, device=torch.cuda.current_device()), keys, workers)
    return prefetched(images.batch, keys, workers)


class Shard(NamedTuple):
    """The part of every batch that this process loads."""

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
    features: FeatureCache | None = None,
    repeat_threshold: float | None = None,
    skipped: SkippedImages | None = None,
) -> Generator[Batch, None, None]:
    """Yield this rank's micro-batches for the steps [first, last), `accumulation` of them per step.

    batch_size: images of a step over all ranks; a multiple of world_size * accumulation. cache_mib: see `ImageCache`.
    features: those of `coco`, to read instead of pixels.
    repeat_threshold: see `repeats.repeat_factors`.
    skipped: see `Images`.
    Raises DataError, while iterating, for images that cannot be read.
    """
    buckets = [resize_rule.aspect_bucket(record.height, record.width) for record in coco.images]
    factor_I = repeat_factors(coco.images, len(coco.categories), repeat_threshold)
    batches = GlobalBatches(buckets, batch_size, resize_rule.shorter_side, seed, factor_I)
    keys = MicroBatches(batches, *steps, shard.rank, shard.world_size, shard.accumulation)
    images = Images(coco, resize_rule, augment, seed, ImageCache(cache_mib), features, skipped)
    return _batches(images, keys, workers, pin)


def eval_batches(
    coco: CocoDataset,
    resize_rule: ResizeRule,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    workers: int,
    pin: bool,
    features: FeatureCache | None = None,
    augment: Augment = NO_AUGMENT,
) -> Generator[Batch, None, None]:
    """Yield this rank's share of all images, once each, grouped by bucket, at the last shorter side.

    features: those of `coco`, to read instead of pixels. augment: may mirror images, always or never.
    """
    keys = eval_keys(coco, resize_rule, batch_size)
    images = Images(coco, resize_rule, augment, 0, features=features)
    return _batches(images, keys[rank::world_size], workers, pin)


def eval_keys(coco: CocoDataset, resize_rule: ResizeRule, batch_size: int) -> list[list[Key]]:
    """All images in batches of one bucket each, at the last shorter side."""
    by_bucket: dict[int, list[Key]] = {}
    for index, record in enumerate(coco.images):
        bucket = resize_rule.aspect_bucket(record.height, record.width)
        key = Key(epoch=0, image=index, bucket=bucket, shorter_side=resize_rule.shorter_side[-1])
        by_bucket.setdefault(bucket, []).append(key)
    return [
        keys[start : start + batch_size]
        for _, keys in sorted(by_bucket.items())
        for start in range(0, len(keys), batch_size)
    ]
