"""`--dry-run`: the cells of a study, and an estimate of their duration from a few steps that are actually trained."""

import contextlib
import io
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retinanet.ablation.cells import CellRecord, is_finished, list_cells, lr_of
from retinanet.ablation.study import Study, override_lines
from retinanet.config.schema import Config
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.run.metrics import FILE_NAME, read_rows
from retinanet.training.engine import train
from retinanet.training.optim import build_plan

STEPS, WARM_STEPS = 12, 4
"""Steps that are trained, and the number of slower first ones that are not counted."""
IMAGES = 32
"""Validation images that are evaluated."""


class Pace(NamedTuple):
    """Speed measured on this machine."""

    step: float
    """Seconds per training step, including waiting for data."""
    image: float
    """Seconds per evaluated image."""


class Estimate(NamedTuple):
    """Seconds of one cell."""

    training: float
    evaluation: float
    """All evaluations on val, and the one on test."""
    steps: int

    def total(self) -> float:
        """Seconds of training and evaluation."""
        return self.training + self.evaluation


def measure(study: Study, folder: Path) -> Pace:
    """Train a few steps of the reference arm in `folder` and evaluate a few images."""
    arm = next(arm for arm in study.arms if arm.name == study.reference)
    with contextlib.redirect_stdout(io.StringIO()):
        train(build_short_config(arm.config, study.seeds[0]), folder)
    rows = read_rows(folder / FILE_NAME)
    speeds = [row["clock"]["images_per_second"] for row in rows if row["kind"] == "train"]
    evaluation = next(row for row in rows if row["kind"] == "eval")
    data = arm.config.data
    images = min(IMAGES, count_images(Path(data.root, data.val_annotations), data.limit))
    step = arm.config.schedule.batch_size / statistics.median(speeds[WARM_STEPS:])
    return Pace(step=step, image=evaluation["clock"]["seconds"] / images)


def build_short_config(config: Config, seed: int) -> Config:
    """The config with STEPS steps, one evaluation of at most IMAGES images, and every step in the log."""
    schedule, data = config.schedule, config.data
    # Enough training images for every batch to differ, as in the real run.
    limit = min(data.limit or math.inf, max(IMAGES, STEPS * schedule.batch_size))
    factor = schedule.batch_size / schedule.reference_batch
    short = {"iterations": max(1, round(STEPS * factor)), "epochs": None, "milestones": (), "early_stop": None}
    return config.model_copy(
        update={
            "seed": seed,
            "output": None,
            "schedule": schedule.model_copy(update=short),
            "data": data.model_copy(update={"limit": int(limit)}),
            "eval": config.eval.model_copy(update={"every": 0.0}),
            "log": config.log.model_copy(update={"every": 1, "pictures": 0}),
        }
    )


def estimate(study: Study, pace: Pace) -> Estimate:
    """Seconds of one cell of the study at this pace."""
    config = study.base
    data, schedule = config.data, config.schedule
    train_images = count_images(Path(data.root, data.train_annotations), data.limit)
    val_images = count_images(Path(data.root, data.val_annotations), data.limit)
    test_images = count_images(Path(data.root, study.test[0]), data.limit)
    steps = build_plan(schedule, train_images).total_steps
    every = config.eval.every * (train_images / schedule.batch_size if config.eval.unit == "epochs" else 1.0)
    evaluations = math.ceil(steps / every) if every > 0 else 1
    # If test is val, the last evaluation of training is used.
    evaluated = evaluations * val_images + test_images * (study.test != (data.val_annotations, data.val_images))
    return Estimate(training=steps * pace.step, evaluation=evaluated * pace.image, steps=steps)


def count_images(annotations: Path, limit: int | None) -> int:
    """Images of a COCO file, at most `limit`."""
    content: Any = read_json(annotations, leave_out="segmentation")
    try:
        return min(len(content["images"]), limit or len(content["images"]))
    except (TypeError, KeyError) as error:
        raise DataError(f"{annotations}: has no list `images`, so it is not a COCO file; check the path.") from error


def show_cells(study: Study, records: dict[str, CellRecord]) -> None:
    """Print the cells in order with their status, and the settings that each arm changes."""
    console = Console()
    table = Table(title=study.title, title_justify="left")
    for column in ("cell", "name", "arm", "lr", "seed", "state"):
        table.add_column(column, justify="right" if column in ("cell", "lr", "seed") else "left")
    for cell in list_cells(study):
        record, lr = records.get(cell.name), lr_of(study, cell, records)
        state = "to do" if record is None else record.status
        rate = "chosen later" if lr is None else f"{lr:g}"
        table.add_row(*(Text(str(x)) for x in (cell.number, cell.name, cell.arm.name, rate, cell.seed, state)))
    console.print(table)
    for arm in study.arms:
        changes = ", ".join(override_lines(arm.overrides)) or "the base as it is"
        console.print(Text(f"{arm.name}: {changes}"), soft_wrap=True)


def show_estimate(study: Study, records: dict[str, CellRecord], slots: int) -> None:
    """Print the hours that the unfinished cells will take, from a measurement of about a minute."""
    left = sum(not is_finished(study, cell, records) for cell in list_cells(study))
    if left == 0:
        print("every cell is finished")
        return
    with tempfile.TemporaryDirectory() as folder:
        pace = measure(study, Path(folder) / "measured")
    one = estimate(study, pace)
    rounds = math.ceil(left / slots)
    hours = rounds * one.total() / 3600
    length = f"{hours:.2f} hours" if hours > 0.2 else f"{60 * hours:.1f} min"
    print(
        f"measured on arm {study.reference}: {pace.step:.3f} s per step (median of {STEPS - WARM_STEPS} after "
        f"{WARM_STEPS}), {pace.image:.3f} s per evaluated image\n"
        f"one cell: {one.steps} steps {one.training / 60:.1f} min + evaluation {one.evaluation / 60:.1f} min\n"
        f"{left} cells to run, {slots} at a time: about {length}\n"
        "included: steps with data loading, all evaluations; not included: starting processes (some seconds per cell), "
        "saving, slower steps of other arms or of several cells at a time"
    )
