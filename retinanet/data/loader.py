"""Which images make which batch, and loading them in worker processes.

Order and pixels depend on (seed, epoch, image index) alone: not on workers, ranks, accumulation or interruptions.
"""

import os
import signal
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from retinanet.data.coco import CocoDataset
from retinanet.data.images import decode_image
from retinanet.data.transforms import NO_AUGMENT, Augment, Sizing, collate, make_sample, tight_canvas
from retinanet.errors import DataFault
from retinanet.structures import Batch, Sample

GRACE_SECONDS = 120
"""How long a worker goes on after SIGTERM."""


class Key(NamedTuple):
    """One image to load: all that its pixels depend on, beside the seed."""

    epoch: int
    image: int
    group: int
    shorter_side: int


class GlobalBatches:
    """The endless sequence of global batches of a training run.

    Each epoch is a permutation of all images. Images queue up by shape group, and a batch leaves when a group has
    `batch_size` of them, so every batch fits one canvas, no image is repeated or dropped, and what an epoch leaves
    in the queues opens the batches of the next.
    """

    def __init__(self, groups: list[int], batch_size: int, shorter_sides: tuple[int, ...], seed: int) -> None:
        """groups: shape group of each image."""
        self.groups, self.batch_size, self.shorter_sides, self.seed = groups, batch_size, shorter_sides, seed

    def __iter__(self) -> Iterator[list[Key]]:
        queues: dict[int, list[tuple[int, int]]] = {}
        epoch = 0
        while True:
            for index in np.random.default_rng([self.seed, epoch]).permutation(len(self.groups)).tolist():
                group = self.groups[index]
                queue = queues.setdefault(group, [])
                queue.append((epoch, index))
                if len(queue) == self.batch_size:
                    shorter = self._shorter_side(*queue[0])
                    yield [Key(e, i, group, shorter) for e, i in queue]
                    queue.clear()
            epoch += 1

    def _shorter_side(self, epoch: int, index: int) -> int:
        draw = np.random.default_rng([self.seed, epoch, index, 1]).integers(len(self.shorter_sides))
        return self.shorter_sides[int(draw)]


class MicroBatches(Sampler[list[Key]]):
    """This rank's micro-batches of the steps from `first_step` to `last_step`, in order."""

    def __init__(
        self, batches: GlobalBatches, first_step: int, last_step: int, rank: int, ranks: int, accumulation: int
    ) -> None:
        self.batches, self.first_step, self.last_step = batches, first_step, last_step
        self.rank, self.ranks, self.accumulation = rank, ranks, accumulation

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        size = self.batches.batch_size // (self.ranks * self.accumulation)
        for step, batch in enumerate(self.batches):
            if step >= self.last_step:
                return
            if step >= self.first_step:
                for micro in range(self.accumulation):
                    start = (micro * self.ranks + self.rank) * size
                    yield batch[start : start + size]


class Images(Dataset[Sample | str]):
    """Decodes and augments the image of a key. A file that cannot be read comes back as its fault's message."""

    def __init__(self, coco: CocoDataset, sizing: Sizing, augment: Augment, seed: int) -> None:
        self.coco, self.sizing, self.augment, self.seed = coco, sizing, augment, seed

    def __getitem__(self, key: Key) -> Sample | str:
        record = self.coco.images[key.image]
        try:
            image = decode_image(record.path)
        except DataFault as fault:
            return str(fault)
        if image.shape[-2:] != (record.height, record.width):
            return (
                f"{record.path}: is {image.shape[-2]}x{image.shape[-1]} (height x width) but "
                f"{self.coco.annotation_file} says {record.height}x{record.width}; correct the annotation "
                f"of image id {record.id}."
            )
        rng = np.random.default_rng([self.seed, key.epoch, key.image])
        fitted = self.sizing.fitted(record.height, record.width, key.shorter_side)
        canvas = self.sizing.image_canvas(fitted, key.group, key.shorter_side)
        return make_sample(image, record, fitted, canvas, self.augment, rng, self.sizing.resize)

    def __getitems__(self, keys: list[Key]) -> tuple[tuple[int, int] | None, list[Sample | str]]:
        """All samples of a micro-batch and the canvas that their group shares; None where the samples decide it."""
        tight = self.sizing.canvases == "tight"
        canvas = None if tight else self.sizing.group_canvas(keys[0].group, keys[0].shorter_side)
        return canvas, [self[key] for key in keys]


def _collate(loaded: Any) -> Batch | str:
    """What `Images.__getitems__` gives, as a batch, or as the faults of the files that could not be read."""
    canvas, samples = loaded
    faults = [sample for sample in samples if isinstance(sample, str)]
    if faults:
        return "\n".join(faults)
    return collate(samples, canvas or tight_canvas(samples))


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C, and SIGTERM from a batch system, reach every process of a group; only the training process answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave_later)
    signal.signal(signal.SIGALRM, _leave)


def _leave_later(_number: int, _frame: FrameType | None) -> None:
    """Time for the training process to finish its step, save and end this worker itself."""
    signal.alarm(GRACE_SECONDS)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def _batches(
    images: Images, sampler: Sampler[list[Key]] | list[list[Key]], workers: int, pin: bool
) -> Generator[Batch, None, None]:
    """The batches of `sampler`. To be closed: that, unlike leaving it to the collector, ends the workers at once."""
    loader: DataLoader[Batch | str] = DataLoader(
        images,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_leave_signals_to_the_parent if workers else None,
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=4 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise DataFault(batch)
        yield batch


class Share(NamedTuple):
    """Which part of the work this process loads."""

    rank: int
    ranks: int
    accumulation: int


def train_batches(
    coco: CocoDataset,
    sizing: Sizing,
    augment: Augment,
    *,
    batch_size: int,
    seed: int,
    steps: tuple[int, int],
    share: Share,
    workers: int,
    pin: bool,
) -> Generator[Batch, None, None]:
    """This rank's micro-batches for the steps [first, last): `accumulation` of them a step.

    batch_size: images of a step over all ranks; a multiple of ranks * accumulation. Raises DataFault, while
    iterating, for an image that cannot be read.
    """
    groups = [sizing.shape_group(record.height, record.width) for record in coco.images]
    batches = GlobalBatches(groups, batch_size, sizing.shorter_side, seed)
    sampler = MicroBatches(batches, *steps, share.rank, share.ranks, share.accumulation)
    return _batches(Images(coco, sizing, augment, seed), sampler, workers, pin)


def eval_batches(
    coco: CocoDataset, sizing: Sizing, *, batch_size: int, rank: int, ranks: int, workers: int, pin: bool
) -> Generator[Batch, None, None]:
    """This rank's share of all images, once each, unaugmented, grouped by shape, at the last shorter side."""
    by_group: dict[int, list[Key]] = {}
    for index, record in enumerate(coco.images):
        group = sizing.shape_group(record.height, record.width)
        by_group.setdefault(group, []).append(Key(0, index, group, sizing.shorter_side[-1]))
    batches = [
        keys[start : start + batch_size]
        for _, keys in sorted(by_group.items())
        for start in range(0, len(keys), batch_size)
    ]
    return _batches(Images(coco, sizing, NO_AUGMENT, 0), batches[rank::ranks], workers, pin)
