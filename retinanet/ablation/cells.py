"""The trainings of a study: one cell for each arm, seed and learning rate to try, and which are unfinished."""

from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.study import Arm, Study
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
    """Whether it tries a learning rate of the grid. The cell of the selected rate is the arm's result for the first
    seed."""


def list_cells(study: Study) -> tuple[Cell, ...]:
    """All cells in the order in which they run: all arms of one seed, then the next seed, so a part is balanced too."""
    first = study.seeds[0]
    tried = [(arm, lr) for arm in study.arms for lr in study.lr_values]
    cells = [
        Cell(number=number, name=f"{arm.slug}-lr{lr_slug(lr)}-seed{first}", arm=arm, seed=first, lr=lr, tuning=True)
        for number, (arm, lr) in enumerate(tried)
    ]
    for seed in study.seeds[1:] if study.lr_values else study.seeds:
        for arm in study.arms:
            lr = None if study.lr_values else arm.config.schedule.lr
            name = f"{arm.slug}-seed{seed}"
            cells.append(Cell(number=len(cells), name=name, arm=arm, seed=seed, lr=lr, tuning=False))
    return tuple(cells)


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


def chosen_lr(study: Study, arm: Arm, records: dict[str, CellRecord]) -> float | None:
    """The grid's learning rate with the best AP on the selection split; of equal ones the smallest.

    None while a tuning cell of the arm is unfinished or failed. If all diverged: the smallest.
    """
    best: tuple[float, float] | None = None
    for cell in list_cells(study):
        if not cell.tuning or cell.arm.name != arm.name or cell.lr is None:
            continue
        record = records.get(cell.name)
        if record is None or record.status == CellStatus.FAILED:
            return None
        ap = float("-inf") if record.status == CellStatus.DIVERGED else record.val_metrics["AP"]
        if best is None or ap > best[0]:
            best = (ap, cell.lr)
    return None if best is None else best[1]


def lr_of(study: Study, cell: Cell, records: dict[str, CellRecord]) -> float | None:
    """The cell's learning rate; None until it is selected."""
    return chosen_lr(study, cell.arm, records) if cell.lr is None else cell.lr


def is_final(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell is part of the study's result: no tuning cell, or that of the selected learning rate."""
    return not cell.tuning or cell.lr == chosen_lr(study, cell.arm, records)


def is_finished(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether nothing is left to do for the cell. A failed cell is not finished; a diverged one is a result.

    A tuning cell is finished after training and, if its learning rate is selected, after its measurement on test.
    """
    record = records.get(cell.name)
    if record is None:
        return False
    if record.status == CellStatus.TUNED:
        known = chosen_lr(study, cell.arm, records)
        return known is not None and cell.lr != known
    return record.status in (CellStatus.DONE, CellStatus.DIVERGED)


def is_ready(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell can run now: unfinished, its learning rate known, and not waiting for other tuning cells."""
    record = records.get(cell.name)
    if is_finished(study, cell, records) or lr_of(study, cell, records) is None:
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
