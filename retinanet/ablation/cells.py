"""The trainings of a study: one cell for each arm, seed and learning rate to try, and which are still to do."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.study import Arm, Study
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, DataError
from retinanet.files import read_json, write_json

DONE, TUNED, DIVERGED, FAILED = "done", "tuned", "diverged", "failed"
"""tuned: trained and measured on val for the learning-rate grid, not on test."""


class CellRecord(NamedTuple):
    """What cell.json holds."""

    cell: str
    arm: str
    seed: int
    lr: float
    status: str
    message: str = ""
    """The error of a cell that diverged or failed."""
    steps: int = 0
    """Updates that the finished training, or the diverged one, made."""
    seconds: float = 0.0
    """Time in training steps, summed over interruptions, as metrics.jsonl has it."""
    memory_mb: float = 0.0
    """Peak memory of training: the GPU's allocations, or the process's resident set."""
    val_metrics: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    test_metrics: dict[str, float] = {}  # noqa: RUF012
    test_annotations: str = ""
    test_images: str = ""
    host: str = ""
    device: str = ""
    torch: str = ""


class Cell(NamedTuple):
    """One training."""

    number: int
    """For `--cell`, from 0."""
    name: str
    """Its folder's name."""
    arm: Arm
    seed: int
    lr: float | None
    """None: the one that the arm's tuning cells will choose."""
    tuning: bool
    """Whether it tries a learning rate of the grid. The chosen one's cell is the arm's result for the first seed."""


def list_cells(study: Study) -> tuple[Cell, ...]:
    """All cells in the order they run: seed by seed through the arms, so that a study cut short is still balanced."""
    rows: list[tuple[str, Arm, int, float | None, bool]] = []
    if study.lr_values:
        rows += [
            (f"{arm.slug}-lr{lr_slug(lr)}-seed{study.seeds[0]}", arm, study.seeds[0], lr, True)
            for arm in study.arms
            for lr in study.lr_values
        ]
    for seed in study.seeds[1:] if study.lr_values else study.seeds:
        for arm in study.arms:
            lr = None if study.lr_values else arm.config.schedule.lr
            rows.append((f"{arm.slug}-seed{seed}", arm, seed, lr, False))
    return tuple(Cell(number, *row) for number, row in enumerate(rows))


def lr_slug(lr: float) -> str:
    """A learning rate within a file name: no two have the same."""
    return str(float(lr)).replace("+", "")


def find_cell(cells: tuple[Cell, ...], name_or_index: str) -> Cell:
    """The cell of a name or a number. ConfigError where there is none."""
    for cell in cells:
        if name_or_index in (cell.name, str(cell.number)):
            return cell
    names = ", ".join(f"{cell.number} {cell.name}" for cell in cells)
    raise ConfigError(f"--cell {name_or_index}: the study has no such cell; its cells are {names}")


def build_cell_config(cell: Cell, lr: float) -> Config:
    """The config that the cell trains: its arm's with the seed and the learning rate."""
    schedule = cell.arm.config.schedule.model_copy(update={"lr": float(lr)})
    return cell.arm.config.model_copy(update={"seed": cell.seed, "schedule": schedule, "output": None})


def chosen_lr(study: Study, arm: Arm, records: dict[str, CellRecord]) -> float | None:
    """The grid's learning rate with the best AP on the selection split, ties to the smaller.

    None while a tuning cell of the arm is unfinished or failed. Where every one diverged: the smallest.
    """
    best: tuple[float, float] | None = None
    for cell in list_cells(study):
        if not cell.tuning or cell.arm.name != arm.name or cell.lr is None:
            continue
        record = records.get(cell.name)
        if record is None or record.status == FAILED:
            return None
        ap = float("-inf") if record.status == DIVERGED else record.val_metrics["AP"]
        if best is None or ap > best[0]:
            best = (ap, cell.lr)
    return None if best is None else best[1]


def lr_of(study: Study, cell: Cell, records: dict[str, CellRecord]) -> float | None:
    """The cell's learning rate, None while it is not chosen yet."""
    return chosen_lr(study, cell.arm, records) if cell.lr is None else cell.lr


def is_final(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell is part of the study's result: no tuning cell, or that of the chosen learning rate."""
    return not cell.tuning or cell.lr == chosen_lr(study, cell.arm, records)


def is_finished(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether nothing is left to do for the cell. A failed cell is not finished; a diverged one is a result.

    A tuning cell is finished once trained, and, if its learning rate is chosen, once it is measured on test.
    """
    record = records.get(cell.name)
    if record is None:
        return False
    if record.status == TUNED:
        known = chosen_lr(study, cell.arm, records)
        return known is not None and cell.lr != known
    return record.status in (DONE, DIVERGED)


def is_ready(study: Study, cell: Cell, records: dict[str, CellRecord]) -> bool:
    """Whether the cell can run now: not finished, its learning rate known, and not waiting for the others' tuning."""
    record = records.get(cell.name)
    if is_finished(study, cell, records) or lr_of(study, cell, records) is None:
        return False
    return record is None or record.status != TUNED or is_final(study, cell, records)


def cell_folder(study: Study, cell: Cell) -> Path:
    """The run folder of a cell."""
    return study.folder / "cells" / cell.name


def record_path(folder: Path, cell: str) -> Path:
    """Where the record of a cell lies in a study's folder."""
    return folder / "cells" / cell / "cell.json"


def write_record(folder: Path, record: CellRecord) -> None:
    """Replace a cell's record in one step."""
    path = record_path(folder, record.cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record._asdict(), indent=1)


def read_record(folder: Path, cell: str) -> CellRecord | None:
    """A cell's record, None while there is none. DataError where the file is no record."""
    path = record_path(folder, cell)
    if not path.exists():
        return None
    content: Any = read_json(path)
    try:
        return CellRecord(**content)
    except TypeError as error:
        raise DataError(f"{path}: not a record of a cell ({error}); delete it to run the cell again.") from error


def read_records(folder: Path, cells: list[str]) -> dict[str, CellRecord]:
    """Records of those cells that have one."""
    found = {cell: read_record(folder, cell) for cell in cells}
    return {cell: record for cell, record in found.items() if record is not None}
