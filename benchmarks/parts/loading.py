"""Parts `data` and `feed`: JPEG files on a warm disk to padded batches, and training steps from them."""

import math
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.benchmark import set_torch_threads
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2 import functional as F

from benchmarks.contest import Comparison, Contest, Contestant, Step, Stretch, ready
from benchmarks.options import Options
from benchmarks.project import ONE_PROCESS, as_in_a_run, build_training, one_update, own_precisions
from benchmarks.scenes import describe_source, make_dataset
from retinanet.build.rules import build_pixel_rule, build_resize_rule
from retinanet.config.data_keys import DataKeys
from retinanet.config.schedule_keys import ScheduleKeys
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.data.loader import Shard, eval_batches, train_batches
from retinanet.data.prefetch import AHEAD
from retinanet.data.transforms import NO_AUGMENT, normalise
from retinanet.data.upload import to_device
from retinanet.structures import Batch
from retinanet.training.batches import load_steps

BATCH = 2
RUN_UP = 8
"""Batches that workers give before a stretch is timed: as many as this project's may hold ready."""

FEED_STEPS, GPU_FEED_STEPS, QUICK_FEED_STEPS = 4, 20, 2
"""Training steps of a timed repetition: several times as long as a batch takes to load."""
ENOUGH = 1_000_000
"""Steps that the loader prepares for."""
FROM_FILES, IN_MEMORY = "ours, from files", "ours, in memory"

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


def _dataset_in(folder: tempfile.TemporaryDirectory[str], images: Path | None) -> CocoDataset:
    """`make_dataset`; the folder is removed if the images cannot be used."""
    try:
        return make_dataset(Path(folder.name), images)
    except BaseException:
        folder.cleanup()
        raise


def build_data(options: Options) -> Contest:
    """Loaders in one process on one thread, and with two workers."""
    folder = tempfile.TemporaryDirectory(prefix="retinanet-benchmark-")
    shorter, longer = (128, 214) if options.quick else (800, 1333)
    batches = 2 if options.quick else 16
    config = Config(
        data=DataKeys(shorter_side=(shorter,), longer_side=longer),
        schedule=ScheduleKeys(iterations=1, batch_size=BATCH),
    )
    dataset = _dataset_in(folder, options.images)
    records = dataset.images * (-(-(batches + RUN_UP) * BATCH // len(dataset.images)))
    load = Load(dataset=replace(dataset, images=records), kept=dataset, config=config, batches=batches)
    goals = (None, None) if options.quick else (5.0, 9.0)
    ours, peer = "ours, 1 process", "reference, 1 process"
    as_bytes = "ours gives bytes and leaves normalising to the training step, the reference gives normalised float32"
    ways: dict[str, Callable[[], Stretch]] = {
        ours: lambda: pass_of(lambda: our_batches(load, 0), load),
        f"{ours}, normalised": lambda: pass_of(lambda: our_normalised(load), load),
        f"{ours}, cache": lambda: pass_of(lambda: our_kept(load), load, run_up=len(load.kept.images)),
        peer: lambda: pass_of(lambda: reference_batches(load, 0), load),
        "ours, 2 workers": lambda: pass_of(lambda: our_batches(load, 2), load, RUN_UP, threads=None),
        "reference, 2 workers": lambda: pass_of(lambda: reference_batches(load, 2), load, RUN_UP, threads=None),
    }
    return Contest(
        part="data",
        what=f"{batches * BATCH} images a step ({describe_source(options.images)}) from a warm disk to padded batches "
        f"of {BATCH}, the shorter side {shorter} and the longer at most {longer} pixels, no flip. One process computes "
        "on one thread; two workers (ours threads, the reference's processes) are timed in full swing. The reference "
        "is what torchvision's training script does: Pillow, float, normalise, resize.",
        contestants=tuple(
            Contestant(name, ours=name.startswith("ours"), precision="-", build=build) for name, build in ways.items()
        ),
        comparisons=(
            Comparison(ours, peer, as_bytes, at_least=goals[0]),
            Comparison(f"{ours}, normalised", peer),
            Comparison(f"{ours}, cache", peer, f"{as_bytes}; images decoded and resized in an epoch before"),
            Comparison(
                "ours, 2 workers",
                peer,
                f"{as_bytes}; two threads of this project against one process of the reference",
                at_least=goals[1],
            ),
            Comparison("ours, 2 workers", "reference, 2 workers", as_bytes),
        ),
        not_same="Ours antialiases when it shrinks, the reference never does.",
        items=batches * BATCH,
        repeats=9,
        once=True,
        close=folder.cleanup,
    )


def our_batches(load: Load, workers: int) -> Batches:
    """The project's own loader, without augmentation."""
    rule = build_resize_rule(load.config)
    yield from eval_batches(load.dataset, rule, batch_size=BATCH, rank=0, world_size=1, workers=workers, pin=False)


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
            decoded: Tensor = F.to_dtype(F.pil_to_tensor(image.convert("RGB")), torch.float32, scale=True)
        return decoded


def reference_batches(load: Load, workers: int) -> Batches:
    """The reference's loader, then its model's transform (normalise, resize, pad) in this process."""
    data = load.config.data
    transform = GeneralizedRCNNTransform(
        data.shorter_side[0], data.longer_side, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    decoded = _Decoded([record.path for record in load.dataset.images])
    for images in DataLoader(decoded, batch_size=BATCH, num_workers=workers, collate_fn=list):
        yield transform(images)


def pass_of(batches: Callable[[], Batches], load: Load, run_up: int = 0, threads: int | None = 1) -> Stretch:
    """A step takes batches of a new pass after its first `run_up`, on `threads` threads; None: as many as elsewhere.

    A loader without workers begins its work when the first batch is asked for, so nothing of it goes untimed.
    """

    @contextmanager
    def stretch() -> Iterator[Step]:
        with set_torch_threads(threads or torch.get_num_threads()), closing(batches()) as given:
            _take(given, run_up)
            yield lambda: _take(given, load.batches)

    return stretch


def _take(batches: Iterator[object], count: int) -> None:
    taken = sum(1 for _ in islice(batches, count))
    assert taken == count, f"the loader ended after {taken} of {count} batches"


class Feed(NamedTuple):
    """What trains, on what."""

    dataset: CocoDataset
    config: Config
    """Of the data: the canvas, the batch, the threads."""
    options: Options
    steps: int
    """Of a repetition."""


class Fed(NamedTuple):
    """The result of a repetition."""

    loss: float
    shape: tuple[int, ...]
    """Of the last batch's pixels."""


def build_feed(options: Options) -> Contest:
    """Training from files, and on one batch."""
    folder = tempfile.TemporaryDirectory(prefix="retinanet-benchmark-")
    config = Config(
        data=DataKeys(canvas=options.size), schedule=ScheduleKeys(iterations=ENOUGH, batch_size=options.batch)
    )
    steps = QUICK_FEED_STEPS if options.quick else GPU_FEED_STEPS if options.device == "cuda" else FEED_STEPS
    feed = Feed(dataset=_dataset_in(folder, options.images), config=config, options=options, steps=steps)
    precision = own_precisions(torch.device(options.device))[-1]
    height, width = options.size
    return Contest(
        part="feed",
        what=f"{feed.steps} training steps (part train's) of a {options.backbone()} RetinaNet with {options.classes} "
        f"classes, {options.batch} images each ({describe_source(options.images)}) fitted into {height} x {width} "
        f"pixels: from JPEG files on a warm disk through training's own loader with {config.data.workers} threads in "
        "full swing, and on a batch that stays in memory.",
        contestants=(
            Contestant(FROM_FILES, ours=True, precision=precision, build=lambda: _from_files(feed)),
            Contestant(IN_MEMORY, ours=True, precision=precision, build=lambda: _in_memory(feed)),
        ),
        comparisons=(Comparison(FROM_FILES, IN_MEMORY, at_least=None if options.quick else 0.95),),
        not_same="Files give another batch at each step, flipped at random; memory gives the first of them again and "
        "again, all of it on the device. The loader's threads compute on the same cores as a step on a CPU.",
        check=same_shapes,
        items=feed.steps * options.batch,
        repeats=5,
        warmups=0,
        once=True,
        close=folder.cleanup,
    )


def same_shapes(results: Mapping[str, Any]) -> str:
    """Losses are numbers; batches have one shape, so the steps have the same work."""
    for name, fed in results.items():
        assert math.isfinite(fed.loss), f"{name}: its loss is {fed.loss}"
    shapes = {fed.shape for fed in results.values()}
    assert len(shapes) == 1, f"batches differ: {results}"
    return f"batches are of {' x '.join(map(str, shapes.pop()))} bytes" + (" in both" if len(results) > 1 else "")


def load_feed(feed: Feed) -> Generator[list[Batch], None, None]:
    """A training run's batches, without end."""
    return load_steps(feed.config, feed.dataset, (0, ENOUGH), ONE_PROCESS, pin=feed.options.device == "cuda")


def trainer(feed: Feed) -> Callable[[Iterator[list[Batch]], int], Fed]:
    """This project's network, as a function that takes a number of training steps on batches."""
    options, device = feed.options, torch.device(feed.options.device)
    precision = own_precisions(device)[-1]
    update = one_update(*build_training(options.backbone(), precision, options.batch, options.classes, device))

    def train(batches: Iterator[list[Batch]], steps: int) -> Fed:
        for (batch,) in islice(batches, steps):
            loss = update(batch)
        return Fed(loss, tuple(batch.images.shape))

    return train


def _from_files(feed: Feed) -> Stretch:
    """A repetition begins when all that threads had ready is used up, and one more step has been taken."""
    train = trainer(feed)

    @contextmanager
    def stretch() -> Iterator[Step]:
        with closing(load_feed(feed)) as loading:
            _take(loading, AHEAD * feed.config.data.workers)
            as_in_a_run(lambda: train(loading, 1))()
            yield as_in_a_run(lambda: train(loading, feed.steps))

    return stretch


def _in_memory(feed: Feed) -> Stretch:
    train = trainer(feed)
    with closing(load_feed(feed)) as loading:
        (batch,) = next(loading)
    # A step reads the ids on the host, which from the device would be one more synchronisation.
    resident = to_device(batch, torch.device(feed.options.device))._replace(image_ids_B=batch.image_ids_B)
    return ready(as_in_a_run(lambda: train(repeat([resident]), feed.steps)))
