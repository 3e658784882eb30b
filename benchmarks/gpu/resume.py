"""Runs killed and resumed, compared with unbroken ones.

python -m benchmarks.gpu.resume cpu|cuda DATA OUTPUT

Each case trains twice unbroken, and once killed with SIGKILL and resumed; all three must end equal to the bit. With a
GPU, runs are also begun on the CPU and resumed on the GPU.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from retinanet.run.checkpoint import Checkpoint, load_checkpoint
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows, without_clock

KEYS = (
    "schedule.warmup=2",
    "log.every=1",
    "log.save_every=2",
    "log.pictures=0",
    "eval.every=0",
    "eval.score_threshold=0.001",
    "threads=2",
)
SMALL_KEYS = ("data.canvas=[64,64]", "schedule.batch_size=4", "schedule.reference_batch=4", "data.workers=0")
CASES = {
    "bfloat16": ("precision=auto",),
    "float16": ("precision=float16",),
    "frozen": ("model.backbone.norm=frozen_bn", "model.backbone.frozen_stages=2"),
    "compiled": ("compile=true",),
    "graphs": ("compile=graphs",),
    "ohem": ("loss.classification.kind=ohem",),
}
SMALL_CASES = {"float32": ("precision=float32",)}


class Plan(NamedTuple):
    """What all runs share."""

    device: str
    data: Path
    output: Path
    steps: int


def main(device: str, data: Path, output: Path) -> int:
    """Run every case. Returns 1 if one fails."""
    small = device == "cpu"
    plan = Plan(device=device, data=data, output=output, steps=6 if small else 60)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    cases = SMALL_CASES if small else CASES
    with ThreadPoolExecutor(len(cases)) as pool:
        outcomes = list(pool.map(lambda name: compare_case(plan, name, cases[name]), cases))
    if not small:
        # float16 has a loss scale on the GPU alone.
        outcomes += [resume_on_gpu(plan, precision) for precision in ("float32", "float16")]
    for good, text in outcomes:
        print("ok  " if good else "BAD ", text, flush=True)
    return int(not all(good for good, _ in outcomes))


def compare_case(plan: Plan, name: str, keys: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the three runs of a case agree, and a line about them."""
    keys = (*keys, f"device={plan.device}", *(SMALL_KEYS if plan.device == "cpu" else ()))
    first, again, killed = (plan.output / f"{name}-{end}" for end in ("first", "again", "killed"))
    middle = plan.steps // 2
    codes = [
        train(plan, first, keys),
        train(plan, again, keys),
        train(plan, killed, keys, kill_at=middle),
        train(plan, killed, keys, resume=True),
    ]
    if codes != [0, 0, -signal.SIGKILL, 0]:
        return False, f"{name}: exit codes {codes}; {last_words(killed)}"
    same, twice = compare(first, again)
    same_resumed, resumed = compare(first, killed)
    return same and same_resumed, f"{name}: run twice: {twice} | killed at step {middle} and resumed: {resumed}"


def resume_on_gpu(plan: Plan, precision: str) -> tuple[bool, str]:
    """Whether a run that was begun on the CPU continues on the GPU, as state.FREE_TO_CHANGE promises."""
    folder, plan = plan.output / f"across-{precision}", plan._replace(steps=8)
    keys = (f"precision={precision}", "data.canvas=[64,64]")
    codes = [
        train(plan, folder, (*keys, "device=cpu"), kill_at=4),
        train(plan, folder, (*keys, "device=cuda"), resume=True),
    ]
    good = codes == [-signal.SIGKILL, 0]
    text = f"{precision}: begun on the CPU, resumed on the GPU: exit codes {codes}"
    return good, text if good else f"{text}; {last_words(folder)}"


def train(plan: Plan, folder: Path, keys: tuple[str, ...], kill_at: int | None = None, resume: bool = False) -> int:
    """Exit code of a training; with kill_at it is killed once that step is logged."""
    command = [sys.executable, "-m", "retinanet", "train", "configs/quickstart.yaml", *KEYS, *keys]
    command += [f"data.root={plan.data}", f"schedule.iterations={plan.steps}", f"output={folder}"]
    command += ["--resume"] if resume else []
    metrics = RunFolder(folder).metrics
    with log_of(folder).open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while kill_at is not None and process.poll() is None:
            time.sleep(0.02)
            rows = read_rows(metrics) if metrics.exists() else []
            if any(row["kind"] == "train" and row["step"] >= kill_at for row in rows):
                os.killpg(process.pid, signal.SIGKILL)
                break
        return process.wait()


def log_of(folder: Path) -> Path:
    """The file next to a run's folder that its output goes to."""
    return folder.with_suffix(".log")


def last_words(folder: Path) -> str:
    """The end of a run's log."""
    return f"{log_of(folder)} ends: {log_of(folder).read_text(encoding='utf-8', errors='replace')[-300:]}"


def compare(a: Path, b: Path) -> tuple[bool, str]:
    """Whether two runs ended equal to the bit: every tensor of last.pt, every figure of metrics.jsonl."""
    first, second = (dict(tensors_of(load_checkpoint(RunFolder(folder).last))) for folder in (a, b))
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    rows = without_clock(RunFolder(a).metrics) == without_clock(RunFolder(b).metrics)
    text = f"{len(first) - len(differ)} of {len(first)} tensors equal, metrics.jsonl {'equal' if rows else 'DIFFERS'}"
    return not differ and rows, text + (f"; first: {differ[0]}" if differ else "")


def tensors_of(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested containers, with their paths."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Checkpoint):
        yield from tensors_of({"model": value.model, "average": value.average, "optimizer": value.optimizer})
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in items:
            yield from tensors_of(one, f"{name}.{key}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
