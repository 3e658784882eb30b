"""Which process works on a cell of a study: the one that holds the cell's lock, claims/NAME.lock.

The lock decides between processes of one machine and between machines that share the study's folder.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import Timeout

from retinanet.errors import ResourceError
from retinanet.run.lock import locked, owner_of, read_owner


class ClaimTaken(ResourceError):
    """Another process is at work on it (exit code 8)."""

    exit_code = 8


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Work on a cell, or on the `report`, alone within this context. Raises ClaimTaken if another process does."""
    path = _claim_path(folder, name)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except Timeout as error:
            raise ClaimTaken(
                f"{name} is being run by {read_owner(path) or 'another process'}; wait until it has finished."
            ) from error
        yield


def claim_owner(folder: Path, name: str) -> str:
    """The process that is at work on a cell, such as "process 12 on node3"; empty if there is none."""
    return owner_of(_claim_path(folder, name))


def all_owners(folder: Path) -> dict[str, str]:
    """What is being worked on -> the process that does."""
    names = sorted(path.stem for path in (folder / "claims").glob("*.lock"))
    return {name: owner for name in names if (owner := claim_owner(folder, name))}


def _claim_path(folder: Path, name: str) -> Path:
    return folder / "claims" / name
