"""The folder of a run: the paths of its files, the lock of the process that writes to it, and when it is taken."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import Timeout

from retinanet.errors import ConfigError, ResourceError
from retinanet.run.lock import locked, read_owner


class RunFolder(NamedTuple):
    """Paths of a run's files; metrics.jsonl and tensorboard/ are written by `MetricsLog`."""

    path: Path

    @property
    def config(self) -> Path:
        """config.yaml: the resolved config."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one row for each logged step and each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run continues from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The weights with the best AP so far, for inference."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def eval(self) -> Path:
        """eval.json: COCO numbers of the best weights."""
        return self.path / "eval.json"

    @property
    def detections(self) -> Path:
        """detections.json: COCO results of the best weights."""
        return self.path / "detections.json"

    @property
    def pictures(self) -> Path:
        """Folder of the validation pictures and curves."""
        return self.path / "pictures"


@contextmanager
def claim(path: Path, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Create the folder and hold its lock within this context; the lock is also released when the block raises.

    A folder with a run in it is refused unless `resume` (continue that run) or `overwrite` (delete it first) is given.
    Raises ConfigError for a folder that holds a run, ResourceError if it cannot be written to or is in use by another
    process or thread.
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output: {path} is a file; choose another run folder with output=PATH.")
    with _locked(path):
        if not resume and (folder.config.exists() or folder.last.exists()):
            if not overwrite:
                raise ConfigError(
                    f"output: {path} already holds a run. Continue it with --resume, delete it with --overwrite, "
                    "or choose another folder with output=PATH."
                )
            _clear(folder)
        yield folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold run.lock; run.owner names this process in the message that others get meanwhile."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path / "run"))
        except Timeout as error:
            raise ResourceError(
                f"output: {path} is in use by {read_owner(path / 'run')}; wait for it or choose another folder with "
                "output=PATH."
            ) from error
        except OSError as error:
            raise ResourceError(
                f"output: cannot write to {path} ({error.strerror}); choose another folder with output=PATH."
            ) from error
        yield


def _clear(folder: RunFolder) -> None:
    """Delete what a run wrote, and nothing else in the folder."""
    for tree in (folder.path / "checkpoints", folder.path / "tensorboard", folder.pictures):
        shutil.rmtree(tree, ignore_errors=True)
    for file in (folder.config, folder.metrics, folder.eval, folder.detections):
        file.unlink(missing_ok=True)
