"""A lock that one process holds at a time, with a file that names the process.

The operating system releases the lock when its process ends, however it ends; on a network drive the file server does
so once a machine is gone. Nothing has to be renewed or cleaned up.
"""

import os
import platform
import re
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

    Raises filelock.Timeout if another process or thread holds it, or may hold it although somebody has deleted
    PATH.lock; OSError if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_of(path)
    if not Path(lock.lock_file).exists() and _is_running(read_owner(path)):
        raise Timeout(lock.lock_file)
    with lock.acquire(timeout=PROBE_SECONDS, poll_interval=0.02):
        if not Path(lock.lock_file).exists():  # deleted by its last holder while this process waited for it
            raise Timeout(lock.lock_file)
        write_text(_owner_path(path), f"{this_process()}\n")
        try:
            yield
        finally:
            if read_owner(path) == this_process():
                _owner_path(path).unlink(missing_ok=True)


def owner_of(path: Path) -> str:
    """The process that holds PATH.lock, such as "process 12 on node3"; empty if nobody does."""
    if not path.parent.is_dir():
        return ""
    lock = _lock_of(path)
    try:
        lock.acquire()
    except Timeout:
        return read_owner(path) or "another process"
    lock.release()
    return ""


def read_owner(path: Path) -> str:
    """The process that PATH.owner names; empty if it is not known."""
    try:
        return _owner_path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # not written yet, or removed just now
        return ""


def this_process() -> str:
    """This process, as an owner is written."""
    return f"process {os.getpid()} on {platform.node()}"


def _is_running(owner: str) -> bool:
    """Whether the process that an owner file names may be running; of another machine it is not known."""
    found = re.fullmatch(r"process (\d+) on (.*)", owner)
    if found is None or found[2] != platform.node():
        return found is not None
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's
    return True


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_name(f"{path.name}.lock"), timeout=0)


def _owner_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")
