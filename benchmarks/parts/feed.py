"""Part `feed`: training from JPEG files on a warm disk, beside the same step on a batch that is there already."""

import math
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.contest import Comparison, Contest, Contestant, Precision, Running
from benchmarks.options import Options
from benchmarks.ours import ONE_PROCESS, as_in_a_run, build_training, one_update, own_precisions
from benchmarks.photos import make_dataset, source_of
from retinanet.config.schema import Config, DataKeys, ScheduleKeys
from retinanet.data.coco import CocoDataset
from retinanet.data.prefetch import AHEAD
from retinanet.data.transforms import to_device
from retinanet.structures import Batch
from retinanet.training.batches import load_steps

STEPS, GPU_STEPS, QUICK_STEPS = 4, 20, 2
"""Training steps of a timed repetition: several times as long as a batch takes to load."""
ENOUGH = 1_000_000
"""Steps that the loader prepares for."""

AT_LEAST = 0.95
NOT_SAME = (
    "Files give another batch at each step, flipped at random; memory gives the first of them again and again, all of "
    "it on the device. The loader's threads compute on the cores that a step on a CPU wants too."
)
FROM_FILES, IN_MEMORY = "ours, from files", "ours, in memory"

Loading = Generator[list[Batch], None, None]


class Feed(NamedTuple):
    """What trains, on what."""

    dataset: CocoDataset
    config: Config
    """Of the data: the canvas, the batch, the threads."""
    batch: int
    backbone: str
    precision: Precision
    classes: int
    device: torch.device
    steps: int
    """Of a repetition."""


class Fed(NamedTuple):
    """What a repetition comes to."""

    loss: float
    shape: tuple[int, ...]
    """Of the last batch's pixels."""


def build_contest(options: Options) -> Contest:
    """Training from files, and on one batch."""
    folder = tempfile.TemporaryDirectory(prefix="retinanet-benchmark-")
    device = torch.device(options.device)
    config = Config(
        data=DataKeys(canvas=options.size), schedule=ScheduleKeys(iterations=ENOUGH, batch_size=options.batch)
    )
    feed = Feed(
        dataset=make_dataset(Path(folder.name), options.images),
        config=config,
        batch=options.batch,
        backbone="resnet18" if options.quick else "resnet50",
        precision=own_precisions(device)[-1],
        classes=options.classes,
        device=device,
        steps=QUICK_STEPS if options.quick else GPU_STEPS if device.type == "cuda" else STEPS,
    )
    closers = ExitStack()
    closers.callback(folder.cleanup)
    height, width = options.size
    return Contest(
        part="feed",
        what=f"{feed.steps} training steps (part train's) of a {feed.backbone} RetinaNet with {options.classes} "
        f"classes, {options.batch} images each ({source_of(options.images)}) fitted into {height} x {width} pixels: "
        f"from JPEG files on a warm disk through training's own loader with {config.data.workers} threads in full "
        "swing, and on a batch that stays in memory.",
        contestants=(
            Contestant(FROM_FILES, True, feed.precision, partial(_from_files, feed, closers)),
            Contestant(IN_MEMORY, True, feed.precision, partial(_in_memory, feed)),
        ),
        comparisons=(Comparison(FROM_FILES, IN_MEMORY, at_least=None if options.quick else AT_LEAST),),
        not_same=NOT_SAME,
        check=same_shapes,
        items=feed.steps * options.batch,
        repeats=5,
        warmups=0,
        once=True,
        close=closers.close,
    )


def same_shapes(results: Mapping[str, Any]) -> str:
    """Losses are numbers; batches have one shape, so the steps have the same work."""
    for name, fed in results.items():
        assert math.isfinite(fed.loss), f"{name}: its loss is {fed.loss}"
    shapes = {fed.shape for fed in results.values()}
    assert len(shapes) == 1, f"batches differ: {results}"
    return f"batches are of {' x '.join(map(str, shapes.pop()))} bytes" + (" in both" if len(results) > 1 else "")


def load(feed: Feed) -> Loading:
    """A training run's batches, without end."""
    pin = feed.device.type == "cuda"
    return load_steps(feed.config, feed.dataset, (0, ENOUGH), ONE_PROCESS, pin)


def trainer(feed: Feed, next_batch: Callable[[], Batch]) -> Callable[[int], Fed]:
    """A network of ours, and what takes a number of training steps with it."""
    update = one_update(*build_training(feed.backbone, feed.precision, feed.batch, feed.classes, feed.device))

    def train(steps: int) -> Fed:
        for _ in range(steps):
            batch = next_batch()
            loss = update(batch)
        return Fed(loss, tuple(batch.images.shape))

    return train


def _from_files(feed: Feed, closers: ExitStack) -> Running:
    """A repetition begins when all is used up that threads had ready, and a step has been taken since."""
    under_way: list[Loading] = []
    train = trainer(feed, lambda: next(under_way[0])[0])

    def before() -> None:
        under_way.append(closers.enter_context(closing(load(feed))))
        for _ in range(AHEAD * feed.config.data.workers):
            next(under_way[0])
        as_in_a_run(partial(train, 1))()

    def after() -> None:
        under_way.pop().close()

    return Running(as_in_a_run(partial(train, feed.steps)), before, after)


def _in_memory(feed: Feed) -> Running:
    with closing(load(feed)) as loading:
        (batch,) = next(loading)
    # A step looks at the ids on the host, which from the device would be one more wait.
    resident = to_device(batch, feed.device)._replace(image_ids_B=batch.image_ids_B)
    return Running(as_in_a_run(partial(trainer(feed, lambda: resident), feed.steps)))
