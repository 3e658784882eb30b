"""Part `start`: how long a user waits for the commands themselves."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.contest import Comparison, Contest, Contestant, Step, Stretch, ready
from benchmarks.options import Options
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows

PROJECT = Path(__file__).resolve().parent.parent.parent
HELPS = ("train", "eval", "predict")
FIRST_STEP = "train, first step"
IMPORTS = "import torch and torchvision"
PATIENCE = 300.0
"""Seconds after which a training that has not taken a step has failed."""


def build_start(options: Options) -> Contest:
    """`--help` of commands, and a training up to its first step."""
    folder = tempfile.TemporaryDirectory(prefix="retinanet-benchmark-")
    helps = {command: f"{command} --help" for command in HELPS}
    return Contest(
        part="start",
        what="Wall clock from starting `python -m retinanet COMMAND`, files in the disk's cache: --help until it ends; "
        "train with configs/quickstart.yaml on 24 generated scenes until metrics.jsonl holds its first step.",
        contestants=(
            *(
                Contestant(name, True, "-", partial(_help, command), most_seconds=0.5)
                for command, name in helps.items()
            ),
            Contestant(FIRST_STEP, True, "-", lambda: _first_step(Path(folder.name)), most_seconds=10.0),
            Contestant(IMPORTS, False, "-", lambda: ready(lambda: _python("-c", "import torch, torchvision"))),
        ),
        comparisons=(
            *(Comparison(name, IMPORTS, "--help does without them") for name in helps.values()),
            Comparison(FIRST_STEP, IMPORTS, "a first step begins with them"),
        ),
        not_same="No peer has these commands; they are compared with the imports that they need.",
        repeats=2 if options.quick else 7,
        warmups=0,
        once=True,
        close=folder.cleanup,
    )


def _help(command: str) -> Stretch:
    return ready(lambda: _python("-m", "retinanet", command, "--help"))


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], env=_environment(), check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    """This process's own, with the project importable from everywhere and no rank of a torchrun."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return {**inherited, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}


def _first_step(folder: Path) -> Stretch:
    """A training that is stopped once it has taken a step."""
    data, run, log = folder / "shapes", RunFolder(folder / "run"), folder / "log"
    generate_shapes(data, train_images=24, val_images=4, size=(256, 256))
    command = [sys.executable, "-m", "retinanet", "train", str(PROJECT / "configs" / "quickstart.yaml")]
    command += [f"data.root={data}", f"output={run.path}"]

    @contextmanager
    def stretch() -> Iterator[Step]:
        shutil.rmtree(run.path, ignore_errors=True)
        with ExitStack() as stack:

            def step() -> None:
                output = stack.enter_context(log.open("wb"))
                training = subprocess.Popen(command, env=_environment(), stdout=output, stderr=output)
                stack.callback(training.wait, PATIENCE)
                stack.callback(training.terminate)
                _wait_for_row(run.metrics, training, log)

            yield step

    return stretch


def _wait_for_row(metrics: Path, training: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `metrics` holds a training step. Raises RuntimeError if the training ended or took too long."""
    deadline = time.monotonic() + PATIENCE
    while not (metrics.exists() and any(row["kind"] == "train" for row in read_rows(metrics))):
        if training.poll() is not None or time.monotonic() > deadline:
            training.kill()
            text = log.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the training took no step: {text[-2000:]}")
        time.sleep(0.01)
