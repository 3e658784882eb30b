"""Values of a config that follow from the size of the data, where it says `auto`: length, warmup, evaluation."""

import math
from typing import Any

from retinanet.config.eval_keys import EvalKeys
from retinanet.config.fields import known
from retinanet.config.schedule_keys import ScheduleKeys
from retinanet.config.schema import Config

FEWEST_EPOCHS, FIRST_IMAGES = 12, 4000
"""A run sees each image 12 times and 4,000 images more: 179 epochs of 24 images, 32 of 200, 13 of 5,000."""
LONGEST_WARMUP = 500
"""Steps at the reference batch."""
EVALUATIONS = 12


def has_auto(config: Config) -> list[str]:
    """The keys of a config that are `auto` and that `resolve_auto` replaces."""
    values = {
        "schedule.epochs": config.schedule.epochs,
        "schedule.batch_size": config.schedule.batch_size,
        "schedule.warmup": config.schedule.warmup,
        "eval.every": config.eval.every,
    }
    return [key for key, value in values.items() if value == "auto"]


def resolve_auto(config: Config, images: int) -> Config:
    """The config with numbers for the keys of `has_auto`; images: size of the training set.

    `schedule.batch_size` becomes the reference batch; `training.fit` splits it where it does not fit into a GPU.
    """
    if not has_auto(config):
        return config
    schedule = config.schedule
    found: dict[str, Any] = {}
    if schedule.batch_size == "auto":
        found["batch_size"] = schedule.reference_batch
    if schedule.epochs == "auto":
        found["epochs"] = float(auto_epochs(images))
    schedule = schedule.model_copy(update=found)
    if schedule.warmup == "auto":
        schedule = schedule.model_copy(update={"warmup": auto_warmup(schedule, images)})
    evaluation = config.eval
    if evaluation.every == "auto":
        evaluation = evaluation.model_copy(update={"every": auto_interval(evaluation, schedule, images)})
    return config.model_copy(update={"schedule": schedule, "eval": evaluation})


def auto_epochs(images: int) -> int:
    """Epochs of a training on this number of images, at least 1."""
    return math.ceil(FEWEST_EPOCHS + FIRST_IMAGES / max(images, 1))


def auto_warmup(schedule: ScheduleKeys, images: int) -> int:
    """Warmup in steps at the reference batch: a tenth of the run, at most LONGEST_WARMUP."""
    return min(LONGEST_WARMUP, int(_reference_steps(schedule, images) / 10))


def auto_interval(evaluation: EvalKeys, schedule: ScheduleKeys, images: int) -> float:
    """`eval.every` in its unit: EVALUATIONS in a run, but not more often than each epoch."""
    reference_steps = _reference_steps(schedule, images)
    epochs = reference_steps * schedule.reference_batch / max(images, 1)
    every = max(1.0, epochs / EVALUATIONS)
    if evaluation.unit == "epochs":
        return every
    return float(max(1, round(every * images / known(schedule.batch_size))))


def describe_auto(asked: Config, config: Config, images: int) -> str | None:
    """One line on the values that `auto` has become; None if there was none."""
    keys = has_auto(asked)
    if not keys:
        return None
    schedule = config.schedule
    values = {
        "schedule.epochs": f"epochs={known(schedule.epochs or 0.0):g}",
        "schedule.batch_size": f"batch_size={schedule.batch_size}"
        + (f" in {schedule.accumulation} micro-batches" if schedule.accumulation > 1 else ""),
        "schedule.warmup": f"warmup={schedule.warmup}",
        "eval.every": f"eval.every={known(config.eval.every):.3g} {config.eval.unit}",
    }
    return f"auto for {images:,} images: " + ", ".join(values[key] for key in keys)


def _reference_steps(schedule: ScheduleKeys, images: int) -> float:
    """Length of the run in steps at the reference batch."""
    if schedule.epochs is not None:
        return known(schedule.epochs) * images / schedule.reference_batch
    return float(schedule.iterations or 0)
