"""A lock that one process holds at a time, with a file that names the process.

The operating system releases the lock when its process ends, however it ends; on a network drive the file server does
so once a machine is gone. Nothing has to be renewed or cleaned up.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from retinanet.files import write_text

PROBE_SECONDS = 0.5
"""Time for which `locked` tolerates a lock that `owner_of` of another process holds for a moment."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold PATH.lock within this context; PATH.owner names this process meanwhile.

    Raises filelock.Timeout if another process or thread holds it, OSError if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock_of(path).acquire(timeout=PROBE_SECONDS, poll_interval=0.02):
        write_text(_owner_path(path), f"process {os.getpid()} on {platform.node()}\n")
        try:
            yield
        finally:
            _owner_path(path).unlink(missing_ok=True)


def owner_of(path: Path) -> str:
    """The process that holds PATH.lock, such as "process 12 on node3"; empty if nobody does."""
    if not path.parent.is_dir():
        return ""
    lock = _lock_of(path)
    try:
        lock.acquire()
    except Timeout:
        return read_owner(path)
    lock.release()
    return ""


def read_owner(path: Path) -> str:
    """The process that PATH.owner names, for a message on a lock that is taken."""
    try:
        return _owner_path(path).read_text(encoding="utf-8").strip()
    except OSError:  # not written yet, or removed just now
        return "another process"


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_name(f"{path.name}.lock"), timeout=0)


def _owner_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")
