"""The folder of a run: what lies where, who may write into it, and when it counts as taken."""

import csv
import fcntl
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from retinanet.errors import ConfigFault, ResourceFault

Cell = str | float | int


class RunFolder(NamedTuple):
    """Paths of a run. config.yaml, metrics.jsonl, tensorboard/, checkpoints/, eval.json, detections.json, pictures/."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    @property
    def eval(self) -> Path:
        return self.path / "eval.json"

    @property
    def detections(self) -> Path:
        return self.path / "detections.json"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"


def make_folder(path: Path) -> None:
    """Make a folder for results, with its parents. ResourceFault where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceFault(f"output: cannot make the folder {path} ({error.strerror}); give another.") from error


@contextmanager
def claim(path: Path, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Make the folder and hold its lock within this context.

    A folder with a run in it is refused unless resume (go on) or overwrite (delete that run first) is told. Raises
    ConfigFault for a taken folder and ResourceFault where it cannot be written or another process is running in it.
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise ConfigFault(f"output: {path} is a file; give another run folder with output=PATH.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "run.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise ResourceFault(
            f"output: cannot write into {path} ({error.strerror}); give another with output=PATH."
        ) from error
    with lock:
        try:
            # Not flock: a child process would inherit that, and might hold it after a killed run.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise ResourceFault(
                f"output: {path} is in use by {owner}; wait for it or give another output=PATH."
            ) from error
        if (folder.config.exists() or folder.last.exists()) and not resume:
            if not overwrite:
                raise ConfigFault(
                    f"output: {path} already holds a run. Continue it with --resume, delete it with --overwrite, "
                    "or choose another folder with output=PATH."
                )
            _clear(folder)
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        lock.flush()
        yield folder


def _clear(folder: RunFolder) -> None:
    """Delete what a run of ours wrote and nothing else that may lie there."""
    for tree in (folder.path / "checkpoints", folder.path / "tensorboard", folder.pictures):
        shutil.rmtree(tree, ignore_errors=True)
    for file in (folder.config, folder.metrics, folder.eval, folder.detections):
        file.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Replace a CSV file in one step; NaN becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell != cell else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())
