"""The process of one cell: `retinanet ablate STUDY --cell NAME`, started here or on a node of a cluster."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

RUNNER_VARIABLE = "RETINANET_ABLATION_RUNNER"
"""Environment variable with the process id of the runner; the cell stops when that process ends."""
APPEARS_SECONDS = 120.0
"""Time within which a file that one machine has written to a shared drive is seen by another. NFS remembers for up to a
minute that a file does not exist."""
POLL_SECONDS = 1.0
"""Seconds within which a cell notices that its runner has ended."""


def start_process(study_file: Path, cell: str, log: Path, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the process of a cell; its output is appended to `log`.

    variables: environment variables on top of this process's own.
    """
    with log.open("ab") as file:
        # In a session of its own: Ctrl-C reaches only the runner, which passes it on once.
        return subprocess.Popen(
            [sys.executable, "-m", "retinanet", "ablate", str(study_file), "--cell", cell],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables, RUNNER_VARIABLE: str(os.getpid())},
            start_new_session=True,
        )


def has_runner() -> bool:
    """Whether a runner started this process."""
    return RUNNER_VARIABLE in os.environ


def stop_with_runner() -> None:
    """SIGTERM to this process once its runner, if it has one, has ended; at SIGTERM training saves and stops."""
    if not has_runner():
        return
    runner = int(os.environ[RUNNER_VARIABLE])
    parent = multiprocessing.parent_process()  # of a forked cell: the runner, although getppid() is the fork server

    def watch() -> None:
        while parent.is_alive() if parent is not None else os.getppid() == runner:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="runner", daemon=True).start()
