"""Cells' processes that are forked from one that has imported everything, so that each saves some seconds.

The standard library's fork server does it: a process without threads that imports torch and this package once.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from retinanet.ablation.cell_process import RUNNER_VARIABLE
from retinanet.errors import ResourceError

PRELOADED = ["retinanet.commands.ablate", "retinanet.ablation.run_cell"]


def can_fork() -> bool:
    """Whether this system has fork servers: POSIX does, Windows does not."""
    return "forkserver" in multiprocessing.get_all_start_methods()


class ForkedCell:
    """A process with the methods of subprocess.Popen that the runner uses."""

    def __init__(self, study_file: Path, cell: str, log: Path, variables: Mapping[str, str]) -> None:
        """Start it; see `cell_process.start_process`."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        arguments = ([str(study_file), "--cell", cell], str(log), dict(variables))
        self._process: BaseProcess = context.Process(target=run_forked, args=arguments)
        try:
            self._process.start()
        except (OSError, EOFError) as error:
            raise ResourceError(f"cell {cell}: its process cannot be started ({error}).") from error

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)


def run_forked(words: list[str], log: str, variables: dict[str, str]) -> None:
    """In the new process: become what `cell_process.start_process` starts."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update({**variables, RUNNER_VARIABLE: str(os.getppid())})
    sys.argv = ["retinanet", "ablate", *words]
    runpy.run_module("retinanet", run_name="__main__", alter_sys=True)
