"""What runs on a node of a Ray cluster: the process of one cell, and whoever can pass it a signal.

A node imports this module and nothing heavier, so that waiting for a cell takes no memory.
"""

import os
import platform
import signal
import subprocess
import time
from pathlib import Path

from retinanet.ablation.cell_process import APPEARS_SECONDS, POLL_SECONDS, start_process
from retinanet.errors import DataError
from retinanet.run.interrupts import SIGNALS


class CellOnNode:
    """What runs on a node: the process of one cell."""

    def __init__(self, folder: str, study: str, cell: str, log: str) -> None:
        self._folder, self._study, self._cell, self._log = Path(folder), Path(study), cell, Path(log)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, variables: dict[str, str]) -> str:
        """Start the process; returns where. Raises DataError if this node does not see the study."""
        deadline = time.monotonic() + APPEARS_SECONDS
        while not (self._folder.is_dir() and (self._folder / self._study).is_file()):
            if time.monotonic() > deadline:
                raise DataError(
                    f"node {platform.node()} has no {self._folder / self._study}: the current folder, the study's "
                    "folder and its data must be on a drive that every node mounts at the same path."
                )
            time.sleep(POLL_SECONDS)
        os.chdir(self._folder)
        # Ray's threads block SIGINT, and a process starts with the signals blocked that its parent's thread blocks.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._process = start_process(self._study, self._cell, self._log, variables)
        gpus = variables.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return f" on {platform.node()}{f', GPU {gpus}' if gpus else ''}"

    def wait(self, _begun: str) -> int:
        """The exit code of the process, once it has ended. The argument makes Ray call `begin` first."""
        assert self._process is not None
        return self._process.wait()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        if self._process is not None:
            self._process.send_signal(number)
