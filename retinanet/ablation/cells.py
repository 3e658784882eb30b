"""The trainings of a study: one cell for each arm, seed and learning rate to try, and which are unfinished."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.arms import Arm, slug_of
from retinanet.ablation.study import Study
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, DataError
from retinanet.files import read_json, write_json


class CellStatus(StrEnum):
    """How far a cell is. Records hold all but WAITING."""

    DONE = "done"
    TUNED = "tuned"
    """Trained and measured on val for the learning-rate grid, not on test."""
    DIVERGED = "diverged"
    FAILED = "failed"
    WAITING = "waiting"
    """Not finished yet."""


class CellRecord(NamedTuple):
    """The content of cell.json."""

    cell: str
    arm: str
    seed: int
    lr: float
    status: CellStatus
    message: str = ""
    """The error of a cell that diverged or failed."""
    steps: int = 0
    """Updates that the training made until it finished or diverged."""
    seconds: float = 0.0
    """Time of the training steps, summed over interruptions, from metrics.jsonl; without validation and test."""
    memory_mb: float = 0.0
    """Peak memory of training: the GPU's allocations, or the process's resident set."""
    val_metrics: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    """COCO metrics (0..1) of the final weights on the config's val split."""
    test_metrics: dict[str, float] = {}  # noqa: RUF012
    """COCO metrics (0..1) of the final weights on the test split."""
    test_annotations: str = ""
    test_images: str = ""
    host: str = ""
    device: str = ""
    torch: str = ""
    level: str = ""
    """Empty in a study without levels."""
    positives_per_image: float = 0.0
    """Positive anchors, averaged over the logged steps; with the next two the imbalance that was trained on. 0: a run
    of before they were logged."""
    anchors_per_image: float = 0.0
    logits_per_image: float = 0.0
    """Class outputs."""
    test_metrics_at: dict[str, dict[str, float]] = {}  # noqa: RUF012
    """Score threshold -> COCO metrics (0..1) on the test split, if the study names thresholds; the first of them gives
    test_metrics."""


class Cell(NamedTuple):
    """One training."""

    number: int
    """From 0, for `--cell`."""
    name: str
    """Also its folder's name."""
    arm: Arm
    seed: int
    lr: float | None
    """None: the one that the arm's tuning cells will select."""
    tuning: bool
    """Whether it tries a learning rate of the grid. Unless the grid has seeds of its own, the cell of the selected rate
    is the arm's result for the first seed."""


class LrSearch(NamedTuple):
    """How far an arm's search for a learning rate is."""

    tried: tuple[float, ...]
    """The grid and the rates that it is widened by so far, ascending."""
    chosen: float | None
    """None while a rate of `tried` has an unfinished or failed cell."""


def list_cells(study: Study) -> tuple[Cell, ...]:
    """All cells in the order in which they run: all arms of one seed, then the next seed, so a part is balanced too.

    Rates by which the grid may be widened are listed after those of the grid; whether they run, `is_wanted` tells.
    """
    arms, rates = study.all_arms(), list(study.lr_values)
    wider = [lr for lr in widened_rates(study) if lr not in rates]
    tried = [(arm, lr, seed) for seed in tuning_seeds(study) for arm in arms for lr in rates]
    tried += [(arm, lr, seed) for seed in tuning_seeds(study) for arm in arms for lr in wider]
    cells = [
        Cell(number=number, name=tuning_name(arm, lr, seed), arm=arm, seed=seed, lr=lr, tuning=True)
        for number, (arm, lr, seed) in enumerate(tried)
    ]
    for seed in study.seeds[1:] if rates and study.lr_seeds is None else study.seeds:
        for arm in arms:
            lr = None if rates else arm.config.schedule.lr
            name = f"{cell_prefix(arm)}-seed{seed}"
            cells.append(Cell(number=len(cells), name=name, arm=arm, seed=seed, lr=lr, tuning=False))
    return tuple(cells)


def cell_prefix(arm: Arm) -> str:
    """The first part of the names of an arm's cells: its level, if there are levels, and its name."""
    return f"{slug_of(arm.level)}-{arm.slug}" if arm.level else arm.slug


def tuning_name(arm: Arm, lr: float, seed: int) -> str:
    """The name of the cell that tries a learning rate."""
    return f"{cell_prefix(arm)}-lr{lr_slug(lr)}-seed{seed}"


def lr_slug(lr: float) -> str:
    """A learning rate in a file name, different for different rates."""
    return str(float(lr)).replace("+", "")


def find_cell(cells: tuple[Cell, ...], name_or_index: str) -> Cell:
    """The cell with a name or a number. Raises ConfigError if there is none."""
    for cell in cells:
        if name_or_index in (cell.name, str(cell.number)):
            return cell
    names = ", ".join(f"{cell.number} {cell.name}" for cell in cells)
    raise ConfigError(f"--cell {name_or_index}: the study has no such cell; choose from {names}")


def build_cell_config(cell: Cell, lr: float) -> Config:
    """The config that the cell trains: its arm's with the seed and the learning rate."""
    schedule = cell.arm.config.schedule.model_copy(update={"lr": float(lr)})
    return cell.arm.config.model_copy(update={"seed": cell.seed, "schedule": schedule, "output": None})


def tuning_seeds(study: Study) -> tuple[int, ...]:
    """Seeds with which the learning rates are tried."""
    return study.lr_seeds or (study.seeds[0],)


def widened_rates(study: Study) -> tuple[float, ...]:
    """Every rate that may be tried, ascending: the grid, and `lr_widen` rates below and above it by its own factors."""
    values, times = study.lr_values, range(1, study.lr_widen + 1)
    if not values:
        return ()
    # Six digits, so that names stay short.
    below = [float(f"{values[0] * (values[0] / values[1]) ** n:.6g}") for n in reversed(times)]
    above = [float(f"{values[-1] * (values[-1] / values[-2]) ** n:.6g}") for n in times]
    return (*below, *values, *above)


def search_lr(study: Study, arm: Arm, records: dict[str, CellRecord]) -> LrSearch:
    """The arm's search for a learning rate, as far as its tuning cells' records go.

    The best rate has the highest AP on the selection split: the mean over the tuning seeds, -inf if one diverged; of
    equal rates the smallest. While the best is an end of what was tried, and `lr_widen` allows, the next rate beyond
    it is tried too. So what is tried depends on the records alone, in whatever order cells finish.
    """
    rates = widened_rates(study)
    first, last = study.lr_widen, len(rates) - study.lr_widen
    while True:
        aps = [selection_ap(study, arm, lr, records) for lr in rates[first:last]]
        known = [ap for ap in aps if ap is not None]
        if not known or len(known) < len(aps):
            return LrSearch(rates[first:last], None)
        best = first + known.index(max(known))
        if best == first and first > 0:
            first -= 1
        elif best == last - 1 and last < len(rates):
            last += 1
        else:
            return LrSearch(rates[first:last], rates[best])


def selection_ap(study: Study, arm: Arm, lr: float, records: dict[str, CellRecord]) -> float | None:
    """AP of a rate on the selection split, as `search_lr` compares it; None if a cell is unfinished or failed."""
    aps = []
    for seed in tuning_seeds(study):
        record = records.get(tuning_name(arm, lr, seed))
        if record is None or record.status == CellStatus.FAILED:
            return None
        aps.append(-math.inf if record.status == CellStatus.DIVERGED else record.val_metrics["AP"])
    return sum(aps) / len(aps)


def chosen_lr(study: Study, arm: Arm, records: dict[str, CellRecord]) -> float | None:
    """The learning rate that the arm's tuning cells select (see `search_lr`); None until they have."""
    return search_lr(study, arm, records).chosen


def lr_of(study: Study, cell: Cell, records: dict[str, CellRecord]) -> float | None:
    """The cell's learning rate; None until it is selected."""
    return chosen_lr(study, cell.arm, records) if cell.lr is None else cell.lr


def is_final(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell is part of the study's result: no tuning cell, or that of the selected learning rate."""
    return not cell.tuning or (study.lr_seeds is None and cell.lr == chosen_lr(study, cell.arm, records))


def is_wanted(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell is part of the study so far: all are but learning rates by which a grid need not be widened."""
    return not cell.tuning or cell.lr in search_lr(study, cell.arm, records).tried


def is_finished(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether nothing is left to do for the cell. A failed cell is not finished; a diverged one is a result.

    A tuning cell is finished after training and, if its seed and learning rate are a result, after its measurement on
    test; or when another rate is selected without it.
    """
    record = records.get(cell.name)
    if record is None:
        decided = cell.tuning and chosen_lr(study, cell.arm, records) is not None
        return decided and not is_wanted(study, cell, records)
    if record.status == CellStatus.TUNED:
        known = chosen_lr(study, cell.arm, records)
        return study.lr_seeds is not None or (known is not None and cell.lr != known)
    return record.status in (CellStatus.DONE, CellStatus.DIVERGED)


def is_ready(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell can run now: unfinished, its learning rate known, and not waiting for other tuning cells."""
    record = records.get(cell.name)
    if is_finished(study, cell, records) or lr_of(study, cell, records) is None:
        return False
    if not is_wanted(study, cell, records):
        return False
    return record is None or record.status != CellStatus.TUNED or is_final(study, cell, records)


def cell_folder(study: Study, cell: Cell) -> Path:
    """The run folder of a cell."""
    return study.folder / "cells" / cell.name


def record_path(folder: Path, cell: str) -> Path:
    """Path of a cell's record in a study's folder."""
    return folder / "cells" / cell / "cell.json"


def write_record(folder: Path, record: CellRecord) -> None:
    """Replace a cell's record in one step."""
    path = record_path(folder, record.cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record._asdict(), indent=1)


def read_record(folder: Path, cell: str) -> CellRecord | None:
    """A cell's record, None if there is none. Raises DataError if the file is no record."""
    path = record_path(folder, cell)
    if not path.exists():
        return None
    content: Any = read_json(path)
    try:
        return CellRecord(**content)._replace(status=CellStatus(content["status"]))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a record of a cell ({error}); delete it to run the cell again.") from error


def read_records(folder: Path, cells: list[str]) -> dict[str, CellRecord]:
    """Cell name -> record, of those cells that have one."""
    found = {cell: read_record(folder, cell) for cell in cells}
    return {cell: record for cell, record in found.items() if record is not None}
