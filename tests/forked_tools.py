"""Processes of command lines that start at once: forked from a process that has imported torch and done nothing else.

Importing takes three seconds, more than all that a test of an interrupted training needs the process for.
"""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from places import PROJECT


class ForkedTool:
    """A running command line, the leader of its own process group; one at a time of each `ToolServer`."""

    def __init__(self, server: subprocess.Popen[bytes], pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server, self._out, self._err = server, out, err

    def poll(self, seconds: float = 0.0) -> int | None:
        """The exit code as of subprocess.Popen; None while the process runs after waiting for `seconds`."""
        assert self._server.stdout is not None
        if self.returncode is None and select.select([self._server.stdout], [], [], seconds)[0]:
            self.returncode = int(self._server.stdout.readline())
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What the process printed on stdout and stderr, once it has ended."""
        if self.poll(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8")


class ToolServer:
    """Starts command lines one after another, each in a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """folder: for what the processes print."""
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-u", __file__],
            cwd=PROJECT,
            env={**environment, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that what select() sees is what has not been read
        )

    def start(self, tool: str, *arguments: object) -> ForkedTool:
        """start("train.py", argument, ...) runs retinanet train."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        files = [self._folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        words = [str(PROJECT / "tools" / tool), *map(str, arguments)]
        request = json.dumps({"words": words, "files": list(map(str, files))})
        self._process.stdin.write(f"{request}\n".encode())
        return ForkedTool(self._process, int(self._process.stdout.readline()), *files)

    def close(self) -> None:
        self._process.communicate()


def serve() -> None:
    """Fork for each line of stdin; print the process's id and, once it has ended, its exit code."""
    import torch  # noqa: F401

    import retinanet.training.engine  # noqa: F401

    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
        print(pid)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def run(request: dict[str, Any]) -> None:
    """Become the command line; ends by SystemExit."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    targets = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in request["files"]]
    for place, source in enumerate([nothing, *targets]):
        os.dup2(source, place)
    sys.argv = request["words"]
    runpy.run_path(sys.argv[0], run_name="__main__")
    raise SystemExit


if __name__ == "__main__":
    serve()
