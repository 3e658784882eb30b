"""Rows that are missing from a resumed run's metrics.jsonl, restored from TensorBoard events that have them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.display.console import COCO_PRECISIONS, COCO_RECALLS
from retinanet.run.metric_rows import TENSORBOARD_TAGS, count_rows, write_rows

_DERIVED = "data/class_loss_background_share"
"""A scalar that no row has, which earlier versions wrote."""


class _Scalar(NamedTuple):
    tag: str
    step: int
    value: float
    time: float


def restore_rows(
    path: Path, kept: Sequence[dict[str, Any]], step: int, expected: int
) -> tuple[list[dict[str, Any]], str]:
    """The rows of a run at `step` with what TensorBoard knows of missing ones, and a text on them for a note.

    path: the metrics.jsonl, which is written anew. kept: its rows. expected: training rows and evaluations that there
    were. Restored values are rounded to float32; `restored` in their clock marks them.
    """
    known = {(row["kind"], row["step"]) for row in kept}
    found = [row for row in _rows_of_events(path.parent / "tensorboard") if (row["kind"], row["step"]) not in known]
    restored = [row for row in found if row["step"] < step or (row["kind"] == "train" and row["step"] == step)]
    place = {"train": 0, "eval": 1, "note": 2}
    rows = sorted([*kept, *restored], key=lambda row: (row["step"], place[row["kind"]]))
    write_rows(path, rows)
    lost = expected - count_rows(rows)
    text = f"{expected - count_rows(kept)} of {expected} rows up to step {step:,} were missing from {path.name}"
    parts = [f"{len(restored)} restored from TensorBoard, rounded to float32"] if restored else []
    return rows, f"{text}: {', '.join([*parts, *([f'{lost} lost'] if lost > 0 else [])])}"


def _rows_of_events(folder: Path) -> list[dict[str, Any]]:
    """Training rows and evaluations of all events; of a step that was repeated the last ones."""
    names = {tag: name for name, tag in TENSORBOARD_TAGS.items()}
    train: dict[int, dict[str, float]] = defaultdict(dict)
    clock: dict[int, dict[str, float]] = defaultdict(dict)
    evaluations: dict[int, dict[str, float]] = defaultdict(dict)
    for tag, step, value, time in _scalars(folder):
        group, _, name = tag.partition("/")
        if group == "eval":
            evaluations[step][name] = value
        elif group == "speed":
            clock[step][name] = value
        elif tag != _DERIVED:
            train[step]["epoch" if tag == "schedule/epoch" else names.get(tag, name)] = value
            clock[step] |= {"time": time, "restored": 1.0}
    absent = dict.fromkeys((*COCO_PRECISIONS, *COCO_RECALLS), -1.0)
    return [
        *({"kind": "train", "step": step, **values, "clock": clock[step]} for step, values in train.items()),
        *(
            {"kind": "eval", "step": step, **absent, **values, "clock": {"restored": 1.0}}
            for step, values in evaluations.items()
        ),
    ]


def _scalars(folder: Path) -> Iterator[_Scalar]:
    """The scalars of all files of a folder, in the order in which they were written; none without TensorBoard."""
    try:
        # Imported here, because it takes a second and is optional.
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    except ImportError:
        return
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    yield _Scalar(tag=value.tag, step=event.step, value=value.simple_value, time=event.wall_time)
