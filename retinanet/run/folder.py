"""The folder of a run: what lies where, who may write into it, and when it counts as taken."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from retinanet.errors import ConfigError, ResourceError
from retinanet.files import write_text


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


@contextmanager
def claim(path: Path, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Make the folder and hold its lock within this context.

    A folder with a run in it is refused unless resume (go on) or overwrite (delete that run first) is given. Raises
    ConfigError for a taken folder and ResourceError where it cannot be written or another process is running in it.
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output: {path} is a file; give another run folder with output=PATH.")
    lock, owner = FileLock(path / "run.lock", timeout=0), path / "run.owner"
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        who = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
        raise ResourceError(f"output: {path} is in use by {who}; wait for it or give another output=PATH.") from error
    except OSError as error:
        raise ResourceError(
            f"output: cannot write into {path} ({error.strerror}); give another with output=PATH."
        ) from error
    with lock:
        lock.release()  # the context holds it now
        if (folder.config.exists() or folder.last.exists()) and not resume:
            if not overwrite:
                raise ConfigError(
                    f"output: {path} already holds a run. Continue it with --resume, delete it with --overwrite, "
                    "or choose another folder with output=PATH."
                )
            _clear(folder)
        write_text(owner, f"process {os.getpid()} on {platform.node()}\n")
        try:
            yield folder
        finally:
            owner.unlink(missing_ok=True)


def _clear(folder: RunFolder) -> None:
    """Delete what a run wrote and nothing else that may lie there."""
    for tree in (folder.path / "checkpoints", folder.path / "tensorboard", folder.pictures):
        shutil.rmtree(tree, ignore_errors=True)
    for file in (folder.config, folder.metrics, folder.eval, folder.detections):
        file.unlink(missing_ok=True)
