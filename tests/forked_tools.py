"""Processes of command lines that start at once: forked from a process that has imported torch and done nothing else.

Importing takes three seconds, more than all that a test of an interrupted training needs the process for.
"""

import fcntl
import gc
import io
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from places import PROJECT


class ForkedTool:
    """A running command line, the leader of its own process group."""

    def __init__(self, server: "ToolServer", pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server, self._out, self._err = server, out, err

    def poll(self, seconds: float = 0.0) -> int | None:
        """The exit code as of subprocess.Popen; None while the process runs after waiting for `seconds`."""
        if self.returncode is None:
            self.returncode = self._server.exit_code(self.pid, seconds)
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
    """Starts command lines, each in a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """folder: for what the processes print."""
        self._folder = folder
        self._ended: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-u", __file__],
            cwd=PROJECT,
            env={**environment, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that what select() sees is what has not been read
        )

    def start(
        self,
        tool: str,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        terminal: str | None = None,
        collector: bool = True,
    ) -> ForkedTool:
        """start("train.py", argument, ...) runs retinanet train.

        environment: variables added to the server's. terminal: device that becomes the process's controlling terminal
        and shows what it prints. collector: whether Python's garbage collector runs.
        """
        assert self._process.stdin is not None
        files = [self._folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        request = {
            "words": [str(PROJECT / "tools" / tool), *map(str, arguments)],
            "files": list(map(str, files)),
            "environment": dict(environment or {}),
            "terminal": terminal,
            "collector": collector,
        }
        self._process.stdin.write(f"{json.dumps(request)}\n".encode())
        while (pid := self._read_line()) is None:
            pass
        return ForkedTool(self, pid, *files)

    def exit_code(self, pid: int, seconds: float) -> int | None:
        """Exit code of a process, None if it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while pid not in self._ended:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            self._read_line()
        return self._ended[pid]

    def close(self) -> None:
        self._process.communicate()

    def _read_line(self) -> int | None:
        """The process that has started; None if the server reports that one has ended."""
        assert self._process.stdout is not None
        pid, *code = map(int, self._process.stdout.readline().split())
        if not code:
            return pid
        self._ended[pid] = code[0]
        return None


def serve() -> None:
    """Fork for each line of stdin; print the process's id and, once it has ended, its id and exit code."""
    import torch  # noqa: F401

    import retinanet.training.engine  # noqa: F401

    running: set[int] = set()
    while True:
        if select.select([sys.stdin], [], [], 0.01 if running else None)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            pid = os.fork()
            if pid == 0:
                run(json.loads(line))
            print(pid)
            running.add(pid)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                print(pid, os.waitstatus_to_exitcode(status))
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def run(request: dict[str, Any]) -> None:
    """Become the command line; ends by SystemExit."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, and a run would respect that
    if request["terminal"]:
        targets = [os.open(request["terminal"], os.O_RDWR)] * 3
        fcntl.ioctl(targets[0], termios.TIOCSCTTY, 0)
    else:
        files = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in request["files"]]
        targets = [os.open(os.devnull, os.O_RDONLY), *files]
    for place, source in enumerate(targets):
        os.dup2(source, place)
    # Python's streams remember whether the files that they were opened on could seek.
    binary = (open(place, "wb", buffering=0, closefd=False) for place in (1, 2))  # noqa: SIM115
    sys.stdout, sys.stderr = (io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in binary)
    os.environ.update(request["environment"])
    if not request["collector"]:
        gc.disable()
    sys.argv = request["words"]
    runpy.run_path(sys.argv[0], run_name="__main__")
    raise SystemExit


if __name__ == "__main__":
    serve()
