"""Part `data`: JPEG files on a warm disk to padded batches."""

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2 import functional as F

from benchmarks.contest import Comparison, Contest, Contestant, Running, unchecked
from benchmarks.options import Options
from benchmarks.photos import make_dataset, source_of
from retinanet.build import build_pixel_rule, build_resize_rule
from retinanet.config.schema import Config, DataKeys, ScheduleKeys
from retinanet.data.coco import CocoDataset
from retinanet.data.loader import Shard, eval_batches, train_batches
from retinanet.data.transforms import NO_AUGMENT, normalise

BATCH = 2
RUN_UP = 8
"""Batches that workers give before a stretch is timed: as many as ours may hold ready."""

NOT_SAME = "Ours antialiases when it shrinks, the reference never does."
BYTES = "ours gives bytes and leaves normalising to the training step, the reference gives normalised float32"
WORKERS = "; two threads of ours against one process of the reference"

Batches = Generator[object, None, None]


class Load(NamedTuple):
    """What is loaded, and how."""

    dataset: CocoDataset
    """Its records repeat, so that workers can be timed in full swing."""
    kept: CocoDataset
    """The same without repetition, for a loader that meets its images again."""
    config: Config
    batches: int
    """Of a timed stretch."""


def build_contest(options: Options) -> Contest:
    """Loaders in one process on one thread, and with two workers."""
    folder = tempfile.TemporaryDirectory(prefix="retinanet-benchmark-")
    shorter, longer = (128, 214) if options.quick else (800, 1333)
    batches = 2 if options.quick else 16
    config = Config(
        data=DataKeys(shorter_side=(shorter,), longer_side=longer),
        schedule=ScheduleKeys(iterations=1, batch_size=BATCH),
    )
    dataset = make_dataset(Path(folder.name), options.images)
    records = dataset.images * (-(-(batches + RUN_UP) * BATCH // len(dataset.images)))
    load = Load(replace(dataset, images=records), dataset, config, batches)
    source = source_of(options.images)
    goals = (None, None) if options.quick else (5.0, 9.0)
    ours, theirs = "ours, 1 process", "reference, 1 process"
    return Contest(
        part="data",
        what=f"{batches * BATCH} images a step ({source}) from a warm disk to padded batches of {BATCH}, the shorter "
        f"side {shorter} and the longer at most {longer} pixels, no flip. One process computes on one thread; two "
        "workers (ours threads, theirs processes) are timed in full swing. The reference is what torchvision's "
        "training script does: Pillow, float, normalise, resize.",
        contestants=(
            Contestant(ours, True, "-", lambda: _in_process(lambda: our_batches(load, 0), load)),
            Contestant(f"{ours}, normalised", True, "-", lambda: _in_process(lambda: our_normalised(load), load)),
            Contestant(f"{ours}, cache", True, "-", lambda: _in_process_again(lambda: our_kept(load), load)),
            Contestant(theirs, False, "-", lambda: _in_process(lambda: their_batches(load, 0), load)),
            Contestant("ours, 2 workers", True, "-", lambda: _with_workers(lambda: our_batches(load, 2), load)),
            Contestant("reference, 2 workers", False, "-", lambda: _with_workers(lambda: their_batches(load, 2), load)),
        ),
        comparisons=(
            Comparison(ours, theirs, BYTES, at_least=goals[0]),
            Comparison(f"{ours}, normalised", theirs),
            Comparison(f"{ours}, cache", theirs, f"{BYTES}; images decoded and resized in an epoch before"),
            Comparison("ours, 2 workers", theirs, BYTES + WORKERS, at_least=goals[1]),
            Comparison("ours, 2 workers", "reference, 2 workers", BYTES),
        ),
        not_same=NOT_SAME,
        check=unchecked,
        items=batches * BATCH,
        repeats=9,
        once=True,
        close=folder.cleanup,
    )


def our_batches(load: Load, workers: int) -> Batches:
    """The project's own loader, without augmentation."""
    resize_rule = build_resize_rule(load.config)
    yield from eval_batches(
        load.dataset, resize_rule, batch_size=BATCH, rank=0, world_size=1, workers=workers, pin=False
    )


def our_normalised(load: Load) -> Batches:
    """The project's own loader, and what its training step does with a batch first."""
    rule, resize_rule = build_pixel_rule(load.config), build_resize_rule(load.config)
    for batch in eval_batches(load.dataset, resize_rule, batch_size=BATCH, rank=0, world_size=1, workers=0, pin=False):
        yield normalise(batch.images, batch.sizes_B2, rule, channels_last=True)


def our_kept(load: Load) -> Batches:
    """Training's loader without augmentation, with room for all images in data.cache_mib."""
    yield from train_batches(
        load.kept,
        build_resize_rule(load.config),
        NO_AUGMENT,
        batch_size=BATCH,
        seed=0,
        steps=(0, RUN_UP + load.batches + len(load.kept.images)),
        shard=Shard(0, 1, 1),
        workers=0,
        pin=False,
        cache_mib=4 * len(load.kept.images),
    )


class _Decoded(Dataset[Tensor]):
    """As the reference's CocoDetection with its evaluation preset: a float image in 0..1."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            return F.to_dtype(F.pil_to_tensor(image.convert("RGB")), torch.float32, scale=True)


def their_batches(load: Load, workers: int) -> Batches:
    """The reference's loader, then its model's transform (normalise, resize, pad) in this process."""
    data = load.config.data
    transform = GeneralizedRCNNTransform(
        data.shorter_side[0], data.longer_side, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    decoded = _Decoded([record.path for record in load.dataset.images])
    for images in DataLoader(decoded, batch_size=BATCH, num_workers=workers, collate_fn=list):
        yield transform(images)


def _in_process(batches: Callable[[], Batches], load: Load) -> Running:
    """A step takes the first batches of a new pass; one thread, which is put back afterwards."""
    threads = torch.get_num_threads()

    def step() -> None:
        with closing(batches()) as given:
            _take(given, load.batches)

    return Running(step, lambda: torch.set_num_threads(1), lambda: torch.set_num_threads(threads))


def _in_process_again(batches: Callable[[], Batches], load: Load) -> Running:
    """A step takes batches of a pass under way in which every image has come before; one thread."""
    running, threads = _under_way(batches, load, run_up=len(load.kept.images)), torch.get_num_threads()

    def before() -> None:
        torch.set_num_threads(1)
        running.before()

    def after() -> None:
        running.after()
        torch.set_num_threads(threads)

    return Running(running.step, before, after)


def _with_workers(batches: Callable[[], Batches], load: Load) -> Running:
    """A step takes batches of a pass that is under way; what workers had ready is taken before."""
    return _under_way(batches, load, RUN_UP)


def _under_way(batches: Callable[[], Batches], load: Load, run_up: int) -> Running:
    under_way: list[Batches] = []

    def before() -> None:
        under_way.append(batches())
        _take(under_way[0], run_up)

    def after() -> None:
        under_way.pop().close()

    return Running(lambda: _take(under_way[0], load.batches), before, after)


def _take(batches: Iterator[object], count: int) -> None:
    for _ in range(count):
        next(batches)
