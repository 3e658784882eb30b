"""The rows of a run's metrics.jsonl: reading them, and keeping what a resumed run continues from."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet.errors import CheckpointError, ResourceError, list_errors
from retinanet.files import replacing, write_text

FILE_NAME = "metrics.jsonl"
TENSORBOARD_TAGS = {
    "loss": "loss/total",
    "loss_class": "loss/class",
    "loss_box": "loss/box",
    "lr": "schedule/lr",
    "grad_norm": "schedule/grad_norm",
}
"""Names in TensorBoard of values of training rows; others are `data/NAME`, those of evaluations `eval/NAME`."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics.jsonl, in order; an incomplete last line (the writer was killed) is left out.

    Raises CheckpointError that names every other invalid line, ResourceError if the file cannot be read.
    """
    return [row for row, _ in _rows_and_lines(path)]


def mean_over_steps(rows: Iterable[Mapping[str, Any]], name: str) -> float:
    """Mean of a value over the training rows that have it; 0 if none has."""
    values = [float(row[name]) for row in rows if row["kind"] == "train" and name in row]
    return statistics.fmean(values) if values else 0.0


def without_clock(path: Path) -> bytes:
    """Canonical bytes of a metrics.jsonl: every row without `clock`. Equal runs have equal bytes.

    Raises as `read_rows`.
    """
    rows = read_rows(path)
    for row in rows:
        row.pop("clock", None)
    return "".join(row_line(row) for row in rows).encode("utf-8")


def row_line(row: Mapping[str, Any]) -> str:
    """The line of a row."""
    return json.dumps(row, allow_nan=False) + "\n"


def count_rows(rows: Sequence[Mapping[str, Any]]) -> int:
    """Training rows and evaluations."""
    return sum(row["kind"] != "note" for row in rows)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a whole metrics.jsonl atomically. Raises ResourceError."""
    write_text(path, "".join(map(row_line, rows)))


def truncate_rows(path: Path, resume_step: int | None) -> list[dict[str, Any]]:
    """Keep only what belongs before the resumed step in the file, atomically, and return those rows."""
    kept: list[tuple[dict[str, Any], bytes]] = []
    if resume_step is not None and path.exists():
        kept = [
            (row, line)
            for row, line in _rows_and_lines(path)
            if row["step"] < resume_step or (row["kind"] == "train" and row["step"] == resume_step)
        ]
    with replacing(path) as part:
        part.write_bytes(b"".join(line + b"\n" for _, line in kept))
    return [row for row, _ in kept]


def _rows_and_lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Rows with the bytes that they were read from; raises as `read_rows`."""
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read ({error.strerror})") from error
    found: list[tuple[dict[str, Any], bytes]] = []
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if _is_row(row):
            found.append((row, line))
        elif number < len(lines):
            errors.append(f"line {number} is not a row of metrics: {line[:40].decode('utf-8', 'replace')!a}")
    if errors:
        raise CheckpointError(list_errors(f"{path} is damaged; repair it or move it away", errors))
    return found


def _is_row(row: object) -> bool:
    """Whether parsed JSON is a row as `MetricsLog` writes it: numbers, a clock, or the text of a note."""
    if not isinstance(row, dict) or type(row.get("step")) is not int or not isinstance(row.get("clock", {}), dict):
        return False
    match row.get("kind"):
        case "note":
            return isinstance(row.get("text"), str)
        case "train" | "eval":
            return all(type(value) in (int, float) for name, value in row.items() if name not in ("kind", "clock"))
        case _:
            return False
