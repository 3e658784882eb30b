"""Who is running a cell: a file in a folder that machines may share, with a heartbeat.

A claim is a file made with O_EXCL that holds host, process and a token of its own. Its modification time is the
heartbeat. Taking, taking over and giving back happen under a POSIX lock on one file of the folder; where a file
system keeps no such lock between machines, the owner still notices at its next heartbeat that its claim is gone.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 150.0
POLL_SECONDS = 1.0
"""How soon a process notices that whoever started it is gone."""


class Owner(NamedTuple):
    """Who holds a claim."""

    host: str
    pid: int
    token: str
    age: float
    """Seconds since the last heartbeat, by the file system's own clock."""

    def is_stale(self) -> bool:
        """Whether the owner cannot be at work any more."""
        gone = self.host == os.uname().nodename and not _is_alive(self.pid)
        return gone or self.age > STALE_SECONDS

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claim(NamedTuple):
    """A claim that is ours."""

    path: Path
    token: str
    notice: str
    """Who it was taken over from, if from anybody."""


def claim_path(folder: Path, name: str) -> Path:
    return folder / "claims" / f"{name}.json"


def owner_of(folder: Path, name: str) -> Owner | None:
    """Who holds the claim `name`, stale or not; None for nobody."""
    path = claim_path(folder, name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        age = _file_clock(path.parent) - path.stat().st_mtime
        return Owner(str(content["host"]), int(content["pid"]), str(content["token"]), age)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # Torn by a crash between making and filling it: nobody's, once it is old.
        return _unreadable_owner(path)


def live_owner(folder: Path, name: str) -> Owner | None:
    """Who is at work under the claim `name`; None for nobody."""
    owner = owner_of(folder, name)
    return None if owner is None or owner.is_stale() else owner


def take(folder: Path, name: str) -> Claim | None:
    """Claim `name`, taking over a stale claim; None where somebody is at work under it."""
    path = claim_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        owner = owner_of(folder, name)
        notice = ""
        if owner is not None:
            if not owner.is_stale():
                return None
            notice = f"{name}: taking over from {owner}, last heard of {owner.age:.0f} s ago"
            path.rename(path.with_suffix(f".{secrets.token_hex(4)}.stale"))
        token = secrets.token_hex(8)
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            json.dump({"host": os.uname().nodename, "pid": os.getpid(), "token": token}, stream)
        for old in path.parent.glob(f"{path.stem}.*.stale"):
            old.unlink(missing_ok=True)
    return Claim(path, token, notice)


def release(claim: Claim) -> None:
    """Give a claim back; nothing happens where it is no longer ours."""
    with contextlib.suppress(FileNotFoundError), _locked(claim.path.parent):
        if _is_ours(claim):
            claim.path.unlink(missing_ok=True)


@contextmanager
def kept(claim: Claim, runner_pid: int | None = None) -> Iterator[None]:
    """Within this context a thread keeps the claim's heartbeat; the claim is given back at the end.

    Where the claim has become another's, or the process `runner_pid` that started this one is gone, the process
    sends itself SIGTERM, upon which training saves and stops.
    """
    ended = threading.Event()

    def beat() -> None:
        since = HEARTBEAT_SECONDS
        while not ended.wait(POLL_SECONDS):
            since += POLL_SECONDS
            if runner_pid is not None and os.getppid() != runner_pid:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if since < HEARTBEAT_SECONDS:
                continue
            since = 0.0
            if not _is_ours(claim):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with contextlib.suppress(OSError):
                os.utime(claim.path)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        release(claim)


def _is_ours(claim: Claim) -> bool:
    try:
        return bool(json.loads(claim.path.read_text(encoding="utf-8"))["token"] == claim.token)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        # The drive hiccups: the claim is not known to be another's.
        return True


def _unreadable_owner(path: Path) -> Owner | None:
    try:
        return Owner("an unknown host", 0, "", _file_clock(path.parent) - path.stat().st_mtime)
    except FileNotFoundError:
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _file_clock(folder: Path) -> float:
    """Now, as the folder's file system has it, which need not be this machine's clock."""
    mark = folder / f".clock-{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}"
    mark.touch()
    try:
        return mark.stat().st_mtime
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the one lock of a folder of claims."""
    with (folder / ".lock").open("a", encoding="utf-8") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
