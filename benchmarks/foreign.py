"""Another project's model, timed by a Python file of the user's with two functions."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.contest import Contestant, Running
from benchmarks.options import Options
from retinanet.errors import ConfigError


class Foreign(NamedTuple):
    """The two functions; see `benchmarks/run.py --help`."""

    build: Callable[[int, int, int, torch.device], Any]
    step: Callable[[Any], None]


def read_foreign(path: Path) -> Foreign:
    """Run the file and take its functions. ConfigError where it has not both."""
    defined = runpy.run_path(str(path))
    missing = [name for name in ("build", "step") if not callable(defined.get(name))]
    if missing:
        raise ConfigError(
            f"--against {path}: defines no function {' and no '.join(missing)}; it needs "
            "build(size, batch, classes, device) and step(state)."
        )
    return Foreign(defined["build"], defined["step"])


def foreign_contestant(path: Path, options: Options) -> Contestant:
    """The file's model as a peer; its precision is its own affair."""
    device = torch.device(options.device)

    def build() -> Running:
        functions = read_foreign(path)
        state = functions.build(options.size[0], options.batch, options.classes, device)
        return Running(lambda: functions.step(state))

    return Contestant(path.stem, ours=False, precision="-", build=build)
