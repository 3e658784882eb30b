"""`--dry-run`: the cells of a study, and an estimate of their duration from a few steps that are actually trained."""

import math
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retinanet.ablation.arms import override_lines
from retinanet.ablation.cells import CellRecord, is_finished, is_wanted, list_cells, lr_of
from retinanet.ablation.study import Study
from retinanet.diagnostics.pace import (
    STEPS,
    WARM_STEPS,
    Duration,
    Pace,
    count_images,
    estimate_duration,
    measure_pace,
)
from retinanet.display.console import format_seconds


def measure(study: Study, folder: Path) -> Pace:
    """Train a few steps of the reference arm in `folder` and evaluate a few images."""
    arm = next(arm for arm in study.arms if arm.name == study.reference)
    return measure_pace(arm.config.model_copy(update={"seed": study.seeds[0]}), folder)


def estimate(study: Study, pace: Pace) -> Duration:
    """Seconds of one cell of a study without levels, or of a part, at this pace, the evaluation on test included."""
    data = study.base.data
    train_images = count_images(Path(data.root, data.train_annotations), data.limit)
    val_images = count_images(Path(data.root, data.val_annotations), data.limit)
    cell = estimate_duration(study.base, pace, train_images, val_images)
    if study.test == (data.val_annotations, data.val_images):  # the last evaluation of training is used
        return cell
    test_images = count_images(Path(data.root, study.test[0]), data.limit)
    return cell._replace(evaluation=cell.evaluation + test_images * pace.image)


def show_cells(study: Study, records: dict[str, CellRecord]) -> None:
    """Print the cells in order with their status, and the settings that each arm changes."""
    console = Console()
    table = Table(title=study.title, title_justify="left")
    table.add_column("cell", justify="right")
    table.add_column("name: level, arm, seed" if study.levels else "name: arm, seed", no_wrap=True)
    table.add_column("lr", justify="right")
    table.add_column("state")
    for cell in list_cells(study):
        record, lr = records.get(cell.name), lr_of(study, cell, records)
        to_do = "to do" if is_wanted(study, cell, records) else "if needed"
        state = to_do if record is None else record.status
        rate = "chosen later" if lr is None else f"{lr:g}"
        table.add_row(*(Text(str(value)) for value in (cell.number, cell.name, rate, state)))
    console.print(table)
    for known in study.levels:
        changes = ", ".join(override_lines(known.overrides)) or "the base as it is"
        data = "" if known.shapes is None else f"; its data in {known.base.data.root}"
        console.print(Text(f"level {known.name}: {changes}{data}"), soft_wrap=True)
    for arm in study.arms:
        changes = ", ".join(override_lines(arm.overrides)) or "the base as it is"
        console.print(Text(f"{arm.name}: {changes}"), soft_wrap=True)


def show_estimate(study: Study, records: dict[str, CellRecord], slots: int) -> None:
    """Print the hours that the unfinished cells will take, from a measurement of about a minute for each level."""
    cells = [cell for cell in list_cells(study) if not is_finished(study, cell, records)]
    wanted = [cell for cell in cells if is_wanted(study, cell, records)]
    if not cells:
        print("every cell is finished")
        return
    seconds = 0.0
    for part in study.parts():
        level = part.levels[0].name if part.levels else ""
        left = sum(cell.arm.level == level for cell in wanted)
        if left == 0:
            continue
        with tempfile.TemporaryDirectory() as folder:
            pace = measure(part, Path(folder) / "measured")
        one = estimate(part, pace)
        seconds += left * one.total()
        print(
            f"{f'level {level}: ' if level else ''}measured on arm {study.reference}: {pace.step:.3f} s per step "
            f"(median of {STEPS - WARM_STEPS} after {WARM_STEPS}), {pace.image:.3f} s per evaluated image\n"
            f"one cell: {one.steps} steps {one.training / 60:.1f} min + evaluation {one.evaluation / 60:.1f} min"
        )
    rounds = math.ceil(len(wanted) / slots) / len(wanted)
    print(f"{len(wanted)} cells to run, {slots} at a time: about {format_seconds(rounds * seconds)}")
    if len(wanted) < len(cells):
        print(f"{len(cells) - len(wanted)} more may follow: rates beyond an end of the grid, where that is the best")
    print(
        "included: steps with data loading, all evaluations; not included: starting processes (some seconds per cell), "
        "saving, slower steps of other arms or of several cells at a time"
    )
