"""The runs and studies that `torture` and `torture_ranks` disturb: their configs, processes and what they leave."""

import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from retinanet.__main__ import run_command
from retinanet.commands.border import run
from retinanet.errors import UserError
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows, without_clock
from retinanet.training import engine  # noqa: F401 - imported before forks

CONFIG = """
data: {root: ROOT, train_annotations: annotations/train.json, train_images: train,
  val_annotations: annotations/val.json, val_images: val, canvas: [64, 64], workers: 1}
model: {backbone: {name: mobilenet_v2, weights: none, norm: bn, frozen_stages: 0}, fpn: {channels: 32},
  head: {depth: 1}, anchors: {sizes: [8, 16, 32, 64, 128]}}
schedule: {iterations: 24, batch_size: 2, reference_batch: 2, lr: 0.001, warmup: 2, shape: constant, ema: 0.9}
eval: {every: 6, unit: steps, score_threshold: 0.0, detections: 20, topk: 100}
log: {every: 1, save_every: 2, pictures: 1}
device: cpu
threads: 1
"""


STUDY = """
base: torture.yaml
overrides: {schedule.iterations: 6, log.pictures: 0}
arms: [{name: FL}, {name: CE, overrides: {loss.classification.kind: cross_entropy}}]
reference: FL
seeds: [0]
budget: {iterations: 6}
test: {annotations: annotations/train.json, images: train}
"""


class Place(NamedTuple):
    """Where the tries happen."""

    folder: Path
    config: Path
    tries: int
    steps: int


class Row(NamedTuple):
    """A row of the table."""

    kind: str
    good: int
    tries: int
    remark: str


def start(place: Place, run_folder: Path, *words: str, most: int = 0, command: str = "train") -> int:
    """Fork a training or a study; returns its process id. most: bytes that a file may have; 0: any number."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for kind in (signal.SIGHUP, signal.SIGTERM):  # nohup has them ignored, and a run would respect that
        signal.signal(kind, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    card = place.config if command == "train" else place.folder / "study.yaml"
    line = [command, str(card), f"output={run_folder}", *words]
    sys.argv = ["retinanet", *line]
    os._exit(run(lambda: run_command(command, line[1:])))


def wait(pid: int) -> int:
    """The exit code of a forked training; negative: the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def errors(place: Place) -> str:
    """What the last training has printed on stderr."""
    return (place.folder / "err").read_text(encoding="utf-8", errors="replace")


def logged(run_folder: Path) -> int:
    """The last step in the log."""
    with contextlib.suppress(UserError):
        return max(
            (row["step"] for row in read_rows(run_folder / "metrics.jsonl") if row["kind"] == "train"), default=0
        )
    return 0


def content(run_folder: Path) -> object:
    """All that must not depend on interruptions."""
    folder = RunFolder(run_folder)
    saved = load_checkpoint(folder.last)
    tensors = [value.numpy().tobytes() for value in (*saved.model.values(), *saved.average.values())]
    return without_clock(folder.metrics), tensors, saved.progress, folder.eval.read_bytes()


def unbroken(place: Place) -> object:
    """The content of a run that nothing interrupts."""
    folder = place.folder / "unbroken"
    if not folder.exists():
        assert wait(start(place, folder)) == 0, errors(place)
    return content(folder)


def bytes_of(folder: Path) -> int:
    """Size of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def numbers(study: Path) -> list[bytes]:
    """What the cells of a study have measured."""
    return [(cell / "test" / name).read_bytes() for cell in cells(study) for name in ("eval.json", "detections.json")]


def cells(study: Path) -> list[Path]:
    """The folders of its cells."""
    return sorted(path for path in (study / "cells").iterdir() if path.is_dir())
