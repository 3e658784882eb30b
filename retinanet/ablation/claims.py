"""Which process works on a cell of a study, on one or more machines that share its folder.

A claim is a lock on claims/NAME.lock, which the operating system releases when the process ends, however it ends.
claims/NAME.json names the owner. The lock decides between processes of one machine, and between machines if their
shared file system has locks. Where it has none, the modification time of NAME.json, which its owner renews, shows that
an owner on another machine is alive.
"""

import json
import os
import platform
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 150.0
"""Age of its last heartbeat from which an owner on another machine counts as dead."""
POLL_SECONDS = 1.0
"""Seconds within which a process notices that its runner has ended."""


class Owner(NamedTuple):
    """The process that holds, or held, a claim."""

    host: str
    pid: int
    token: str
    """Differs between any two claims."""
    age: float
    """Seconds since the last heartbeat, by the file system's clock."""

    def is_alive_elsewhere(self) -> bool:
        """Whether it is a process of another machine with a recent heartbeat."""
        return self.host != platform.node() and self.age <= STALE_SECONDS

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claim(NamedTuple):
    """A claim that this process holds."""

    path: Path
    """The owner's file."""
    token: str
    lock: FileLock
    notice: str
    """The dead owner that it replaces; empty if there was none."""


def claim_path(folder: Path, name: str) -> Path:
    """The owner's file of a claim in a study's folder."""
    return folder / "claims" / f"{name}.json"


def owner_of(folder: Path, name: str) -> Owner | None:
    """The owner of the claim `name`, alive or dead; None if nobody claims it."""
    path = claim_path(folder, name)
    try:
        age = _file_clock(path.parent) - path.stat().st_mtime
        content = json.loads(path.read_text(encoding="utf-8"))
        return Owner(host=str(content["host"]), pid=int(content["pid"]), token=str(content["token"]), age=age)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # The owner died between creating the file and writing it, or is about to write it.
        return Owner(host="an unknown host", pid=0, token="", age=age)


def live_owner(folder: Path, name: str) -> Owner | None:
    """The owner that is working under the claim `name`; None if there is none."""
    owner = owner_of(folder, name)
    if owner is None or owner.is_alive_elsewhere():
        return owner
    lock = _lock_of(folder, name)
    try:
        lock.acquire()
    except Timeout:
        return owner
    lock.release()
    return None


def take(folder: Path, name: str) -> Claim | None:
    """Claim `name`, also if its owner is dead; None if another process is working under it."""
    path = claim_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_of(folder, name)
    try:
        # `live_owner` of another process may hold the lock for a moment.
        lock.acquire(timeout=0.5, poll_interval=0.02)
    except Timeout:
        return None
    before, token = owner_of(folder, name), secrets.token_hex(8)
    if (before is not None and before.is_alive_elsewhere()) or not _write_owner(path, token):
        lock.release()
        return None
    notice = "" if before is None else f"{name}: replaces {before}, last seen {before.age:.0f} s ago"
    return Claim(path=path, token=token, lock=lock, notice=notice)


def release(claim: Claim) -> None:
    """Give up a claim; another process's claim to the same name stays."""
    if _is_held(claim):
        claim.path.unlink(missing_ok=True)
    claim.lock.release()


@contextmanager
def held(claim: Claim, runner_pid: int | None = None) -> Iterator[None]:
    """Renew the claim's heartbeat within this context, in a thread, and release the claim at its end.

    If another machine has claimed the name, or the process `runner_pid` that started this one has ended, the process
    sends itself SIGTERM, at which training saves and stops.
    """
    ended = threading.Event()

    def beat() -> None:
        since = HEARTBEAT_SECONDS
        while not ended.wait(POLL_SECONDS):
            since += POLL_SECONDS
            lost = since >= HEARTBEAT_SECONDS and not _is_held(claim)
            if lost or (runner_pid is not None and os.getppid() != runner_pid):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if since >= HEARTBEAT_SECONDS:
                since = 0.0
                with suppress(OSError):
                    os.utime(claim.path)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        release(claim)


def _lock_of(folder: Path, name: str) -> FileLock:
    return FileLock(claim_path(folder, name).with_suffix(".lock"), timeout=0)


def _write_owner(path: Path, token: str) -> bool:
    """Name this process as the owner. False if another machine, whose file system has no locks, did so first."""
    path.unlink(missing_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump({"host": platform.node(), "pid": os.getpid(), "token": token}, file)
    except FileExistsError:
        return False
    return True


def _is_held(claim: Claim) -> bool:
    try:
        return bool(json.loads(claim.path.read_text(encoding="utf-8"))["token"] == claim.token)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        # The drive does not respond: it is not known that another process has claimed the name.
        return True


def _file_clock(folder: Path) -> float:
    """The present time by the clock of the folder's file system, which may differ from this machine's."""
    mark = folder / ".clock"
    mark.touch()
    return mark.stat().st_mtime
