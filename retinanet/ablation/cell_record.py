"""cell.json: how one cell ended. Written once and whole, so that a finished cell is never run again."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.json_file import read_json, write_json
from retinanet.errors import DataFault

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
    """The fault of a cell that diverged or failed."""
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


def record_path(folder: Path, cell: str) -> Path:
    """Where the record of a cell lies in a study's folder."""
    return folder / "cells" / cell / "cell.json"


def write_record(folder: Path, record: CellRecord) -> None:
    """Replace a cell's record in one step."""
    path = record_path(folder, record.cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record._asdict(), indent=1)


def read_record(folder: Path, cell: str) -> CellRecord | None:
    """A cell's record, None while there is none. DataFault where the file is no record."""
    path = record_path(folder, cell)
    if not path.exists():
        return None
    content: Any = read_json(path)
    try:
        return CellRecord(**content)
    except TypeError as error:
        raise DataFault(f"{path}: not a record of a cell ({error}); delete it to run the cell again.") from error


def read_records(folder: Path, cells: list[str]) -> dict[str, CellRecord]:
    """Records of those cells that have one."""
    found = {cell: read_record(folder, cell) for cell in cells}
    return {cell: record for cell, record in found.items() if record is not None}
