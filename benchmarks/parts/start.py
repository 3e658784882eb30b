"""Part `start`: how long a user waits for the commands themselves."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.contest import Comparison, Contest, Contestant, Running, unchecked
from benchmarks.options import Options
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.folder import RunFolder
from retinanet.run.metrics import read_rows

PROJECT = Path(__file__).resolve().parent.parent.parent
HELPS = ("train.py", "eval.py", "predict.py")
IMPORTS = "import torch and torchvision"
PATIENCE = 300.0
"""Seconds after which a training that has not taken a step has failed."""


def build_contest(options: Options) -> Contest:
    """`--help` of the tools, and train.py up to its first step."""
    folder = tempfile.TemporaryDirectory(prefix="retinanet-benchmark-")
    first_step = "train.py, first step"
    return Contest(
        part="start",
        what="Wall clock from starting the process, files in the disk's cache: --help until it ends; train.py with "
        "configs/quickstart.yaml on 24 generated scenes until metrics.jsonl holds its first step.",
        contestants=(
            *(Contestant(f"{tool} --help", True, "-", partial(_help, tool), most_seconds=0.5) for tool in HELPS),
            Contestant(first_step, True, "-", lambda: _first_step(Path(folder.name)), most_seconds=10.0),
            Contestant(IMPORTS, False, "-", lambda: Running(lambda: _run("-c", "import torch, torchvision"))),
        ),
        comparisons=(
            *(Comparison(f"{tool} --help", IMPORTS, "--help does without them") for tool in HELPS),
            Comparison(first_step, IMPORTS, "a first step begins with them"),
        ),
        not_same="No peer has these commands: the imports that they need stand beside them.",
        check=unchecked,
        items=0,
        repeats=2 if options.quick else 7,
        once=True,
        close=folder.cleanup,
    )


def _help(tool: str) -> Running:
    return Running(lambda: _run(str(PROJECT / "tools" / tool), "--help"))


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], env=_environment(), check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    """This process's own, with the project importable from wherever it lies and no rank of a torchrun."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return {**inherited, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}


def _first_step(folder: Path) -> Running:
    """A training that is stopped once it has taken a step."""
    data, run = folder / "shapes", RunFolder(folder / "run")
    generate_shapes(data, train_images=24, val_images=4, size=(256, 256))
    command = [sys.executable, str(PROJECT / "tools" / "train.py"), str(PROJECT / "configs" / "quickstart.yaml")]
    command += [f"data.root={data}", f"output={run.path}"]
    started: list[subprocess.Popen[bytes]] = []

    def before() -> None:
        shutil.rmtree(run.path, ignore_errors=True)

    def step() -> None:
        with (folder / "log").open("wb") as log:
            started.append(subprocess.Popen(command, env=_environment(), stdout=log, stderr=log))
        _wait_for_row(run.metrics, started[0], folder / "log")

    def after() -> None:
        training = started.pop()
        training.terminate()
        training.wait(PATIENCE)

    return Running(step, before, after)


def _wait_for_row(metrics: Path, training: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `metrics` holds a training step; RuntimeError where the training ended or took too long."""
    last = time.monotonic() + PATIENCE
    while not (metrics.exists() and any(row["kind"] == "train" for row in read_rows(metrics))):
        if training.poll() is not None or time.monotonic() > last:
            training.kill()
            raise RuntimeError(f"train.py took no step: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        time.sleep(0.01)
