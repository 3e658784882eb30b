"""The speed, memory and disk of a training on this machine, from a few steps that are actually trained."""

import contextlib
import io
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.errors import DataError
from retinanet.evaluation.sources import resolve_data
from retinanet.files import read_json
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows
from retinanet.training.engine import run_training
from retinanet.training.optim import build_plan

STEPS, WARM_STEPS = 12, 4
"""Steps that are trained, and the number of slower first ones that are not counted."""
FEWEST_IMAGES = 32
"""Images of each split that are used at least, where there are that many."""


class Pace(NamedTuple):
    """What a few steps on this machine have measured."""

    step: float
    """Seconds per training step, including waiting for data; median of the steps that are counted."""
    image: float
    """Seconds per evaluated image."""
    memory_mb: float
    """Peak memory: allocations on the GPU, or the process on a CPU; NaN if the system has no figure."""
    checkpoint_bytes: int
    """Of all checkpoints while one is replaced, which needs the space of one more."""
    positives_per_image: float


class Duration(NamedTuple):
    """Seconds of a training at a pace."""

    training: float
    evaluation: float
    steps: int

    def total(self) -> float:
        """Seconds of training and evaluation."""
        return self.training + self.evaluation


def measure_pace(config: Config, folder: Path) -> Pace:
    """Train STEPS steps of a config without `auto` values in `folder`, and evaluate some images; prints nothing."""
    short = build_short_config(config.model_copy(update={"data": resolve_data(config.data)}))
    with contextlib.redirect_stdout(io.StringIO()):
        run_training(short, folder)
    run = RunFolder(folder)
    rows = read_rows(run.metrics)
    steps = [row for row in rows if row["kind"] == "train"]
    evaluation = next(row for row in rows if row["kind"] == "eval")
    speeds = [row["clock"]["images_per_second"] for row in steps]
    memory = [row["clock"]["memory_mb"] for row in steps if row["clock"]["memory_mb"] is not None]
    images = count_images(Path(short.data.root, short.data.val_annotations), short.data.limit)
    return Pace(
        step=known(config.schedule.batch_size) / statistics.median(speeds[WARM_STEPS:]),
        image=evaluation["clock"]["seconds"] / images,
        memory_mb=max(memory, default=math.nan),
        checkpoint_bytes=config.log.keep * run.last.stat().st_size + 2 * run.best.stat().st_size,
        positives_per_image=statistics.mean(row["positives_per_image"] for row in steps),
    )


def build_short_config(config: Config) -> Config:
    """The config with STEPS steps on as many images, one evaluation at the end, every step in the log, no callbacks."""
    schedule, data = config.schedule, config.data
    batch = known(schedule.batch_size)
    # Enough training images for every batch to differ, as in the real run.
    limit = min(data.limit or math.inf, max(FEWEST_IMAGES, STEPS * batch))
    factor = batch / schedule.reference_batch
    short = {"iterations": max(1, round(STEPS * factor)), "epochs": None, "milestones": (), "early_stop": None}
    return config.model_copy(
        update={
            "output": None,
            "schedule": schedule.model_copy(update=short),
            "data": data.model_copy(update={"limit": int(limit)}),
            "eval": config.eval.model_copy(update={"every": 0.0}),
            "log": config.log.model_copy(update={"every": 1, "pictures": 0, "callbacks": ()}),
        }
    )


def estimate_duration(config: Config, pace: Pace, train_images: int, val_images: int) -> Duration:
    """Seconds of a training with all its evaluations on val; images: of each split, at most `data.limit`."""
    steps = build_plan(config.schedule, train_images).total_steps
    per_epoch = train_images / known(config.schedule.batch_size)
    every = known(config.eval.every) * (per_epoch if config.eval.unit == "epochs" else 1.0)
    evaluations = math.ceil(steps / every) if every > 0 else 1
    return Duration(training=steps * pace.step, evaluation=evaluations * val_images * pace.image, steps=steps)


def count_images(annotations: Path, limit: int | None) -> int:
    """Images of a COCO file, at most `limit`."""
    content: Any = read_json(annotations, leave_out="segmentation")
    try:
        return min(len(content["images"]), limit or len(content["images"]))
    except (TypeError, KeyError) as error:
        raise DataError(f"{annotations}: has no list `images`, so it is not a COCO file; check the path.") from error
