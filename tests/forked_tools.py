"""Processes of command lines that start at once: forked from a process that has imported torch and done nothing else.

Importing takes three seconds, more than all that most tests need a process for. `ToolServer.start` starts a process for
a test; `ToolServer.python` is an executable for code that starts processes itself, by `sys.executable` or PATH.
"""

import fcntl
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from places import PROJECT

SMALL_NETWORK = "RETINANET_TESTS_SMALL_NETWORK"
"""Environment variable of processes in which the network of the tiny config is small; see small_networks."""


class ForkedTool:
    """A running command line, the leader of its own process group; killed once `connection` is closed."""

    def __init__(self, connection: socket.socket, out: Path, err: Path) -> None:
        self._connection, self._out, self._err = connection, out, err
        self.pid = receive(connection)
        self.returncode: int | None = None

    def poll(self, seconds: float = 0.0) -> int | None:
        """The exit code as of subprocess.Popen; None while the process runs after waiting for `seconds`."""
        if self.returncode is None and select.select([self._connection], [], [], seconds)[0]:
            self.returncode = receive(self._connection)
            self._connection.close()
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
    """Starts command lines, each in a process of its own.

    python: path of an executable that does as Python does with `-m MODULE`, `-c PROGRAM` or a file. The process that
    computes is another, which gets the signals that can be caught and is killed with it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """environment: of the commands that `start` starts."""
        self._folder = TemporaryDirectory(prefix="tools")  # pytest's paths can be too long for a socket
        folder = Path(self._folder.name)
        self._environment = {**environment, "PYTHONPATH": str(PROJECT)}
        self._connections: list[socket.socket] = []
        self._socket, self.python = str(folder / "socket"), str(folder / "python")
        client = [sys.executable, "-SE", __file__, self._socket, "python"]
        Path(self.python).write_text(f'#!/bin/sh\nexec {" ".join(client)} "$@"\n', encoding="utf-8")
        Path(self.python).chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._socket, "serve", self.python],
            cwd=PROJECT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

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
        return self.start_python(
            *(PROJECT / "tools" / tool, *arguments), environment=environment, terminal=terminal, collector=collector
        )

    def start_python(
        self,
        *words: object,
        environment: Mapping[str, str] | None = None,
        terminal: str | None = None,
        collector: bool = True,
    ) -> ForkedTool:
        """As `start`, of any words that `python` accepts."""
        out, err = (Path(self._folder.name) / f"{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        names = [os.devnull, out, err] if terminal is None else [terminal] * 3
        files = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOCTTY) for name in names]
        variables = {**self._environment, **(environment or {})}
        wanted = {"words": list(map(str, words)), "folder": str(PROJECT), "environment": variables}
        wanted |= {"collector": collector, "terminal": terminal is not None}
        connection = request(self._socket, wanted, files)
        for file in files:
            os.close(file)
        self._connections.append(connection)
        return ForkedTool(connection, out, err)

    def close(self) -> None:
        """Ends what still runs."""
        for connection in self._connections:
            connection.close()
        self._process.communicate()
        self._folder.cleanup()


def request(address: str, wanted: Mapping[str, Any], files: Sequence[int]) -> socket.socket:
    """Ask the server for a process with three files as stdin, stdout and stderr; it answers its id, then exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"\0"], files)
    connection.sendall(f"{json.dumps(wanted)}\n".encode())
    return connection


def send(connection: socket.socket, number: int) -> None:
    connection.sendall(number.to_bytes(4, signed=True))


def receive(connection: socket.socket) -> int:
    return int.from_bytes(connection.recv(4, socket.MSG_WAITALL), signed=True)


def python(address: str, words: list[str]) -> int:
    """The process of `ToolServer.python`."""
    wanted = {"words": words, "folder": str(Path.cwd()), "environment": dict(os.environ), "collector": True}
    connection = request(address, {**wanted, "terminal": False}, [0, 1, 2])
    pid = receive(connection)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: os.kill(pid, number))
    code = receive(connection)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def serve(address: str, python: str) -> None:
    """Fork for each request until stdin ends."""
    import retinanet.ablation.ablate
    import retinanet.commands.train
    import retinanet.training.engine  # noqa: F401

    sys.executable = python
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    running: dict[int, socket.socket] = {}
    while True:
        waiting = [sys.stdin, listener, *running.values()]
        ready = select.select(waiting, [], [], 0.01 if running else None)[0]
        if sys.stdin in ready:
            break
        if listener in ready:
            connection, _ = listener.accept()
            _, files, *_ = socket.recv_fds(connection, 1, 3)
            with connection.makefile("r") as lines:
                wanted = json.loads(lines.readline())
            pid = os.fork()
            if pid == 0:
                for other in (listener, connection, *running.values()):
                    other.close()
                run(wanted, files)
            for file in files:
                os.close(file)
            send(connection, pid)
            running[pid] = connection
        for pid, connection in list(running.items()):
            if connection in ready:  # whoever asked for the process has ended
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, 0 if connection in ready else os.WNOHANG)
            if ended:
                del running[pid]
                if connection not in ready:
                    send(connection, os.waitstatus_to_exitcode(status))
                connection.close()
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def run(wanted: Mapping[str, Any], files: Sequence[int]) -> None:
    """Become the command line; ends by SystemExit."""
    from small_networks import small_if_tiny

    from retinanet.build import network

    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, and a run would respect that
    if wanted["terminal"]:
        fcntl.ioctl(files[0], termios.TIOCSCTTY, 0)
    for place, source in enumerate(files):
        os.dup2(source, place)
        os.close(source)
    # Python's streams remember whether the files that they were opened on could seek.
    binary = (open(place, "wb", buffering=0, closefd=False) for place in (1, 2))  # noqa: SIM115
    sys.stdout, sys.stderr = (io.TextIOWrapper(stream, encoding="utf-8", write_through=True) for stream in binary)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    if not wanted["collector"]:
        gc.disable()
    if SMALL_NETWORK in os.environ:
        network.build_backbone = small_if_tiny
    match [word for word in wanted["words"] if word not in ("-u", "-B")]:
        case ["-m", module, *words]:
            sys.argv, sys.path[0] = [module, *words], ""
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", program, *words]:
            sys.argv, sys.path[0] = ["-c", *words], ""
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
        case [script, *words]:
            sys.argv, sys.path[0] = [script, *words], str(Path(script).parent)
            runpy.run_path(script, run_name="__main__")
    raise SystemExit


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        serve(sys.argv[1], sys.argv[3])
    else:
        sys.exit(python(sys.argv[1], sys.argv[3:]))
