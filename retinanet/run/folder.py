"""The folder of a run: the paths of its files, the lock of the process that writes to it, and when it is taken."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import Timeout

from retinanet.distributed import may_be_restarted
from retinanet.errors import ConfigError, ResourceError
from retinanet.files import replacing
from retinanet.run.lock import locked, read_owner, this_process

LOCK = "run"
"""Name of the lock, run.lock with run.owner."""


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

    def kept(self, step: int) -> Path:
        """An earlier content of last.pt, for runs whose last one cannot be used."""
        return self.last.with_name(f"step-{step}.pt")

    def checkpoints(self) -> list[Path]:
        """What a resumed run may continue from, the best choice first: last.pt, then earlier ones, newest first."""
        steps = [int(file.stem[5:]) for file in self.last.parent.glob("step-*.pt") if file.stem[5:].isdecimal()]
        kept = [self.kept(step) for step in sorted(steps, reverse=True)]
        return [self.last, *kept] if self.last.exists() else kept

    @property
    def best(self) -> Path:
        """The weights with the best AP so far, for inference."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def eval(self) -> Path:
        """eval.json: COCO numbers of the best weights."""
        return self.path / "eval.json"

    @property
    def images(self) -> Path:
        """images.json: the names of the images of a `data.source`, see `run.image_record`."""
        return self.path / "images.json"

    @property
    def detections(self) -> Path:
        """detections.json: COCO results of the best weights."""
        return self.path / "detections.json"

    @property
    def pictures(self) -> Path:
        """Folder of the validation pictures and curves."""
        return self.path / "pictures"

    @property
    def failures(self) -> Path:
        """Folder of what a step that ended the run was computed from (`run.failures`)."""
        return self.path / "failures"

    @property
    def replaced(self) -> Path:
        """The run that `--overwrite` replaces, until the new one has a checkpoint."""
        return self.path / "replaced"

    def check_owned(self) -> None:
        """ResourceError if the folder is no longer this process's: deleted, moved, or taken by another run.

        Without this check a file would be written into a new folder of that name, or among another run's.
        """
        owner = read_owner(self.path / LOCK)
        if owner != this_process():
            other = f"is now used by {owner}" if owner else "has been deleted or moved"
            raise ResourceError(
                f"output: {self.path} {other}, while this run was writing to it; start again in a folder of its own, "
                "with output=PATH."
            )


@contextmanager
def claim(path: Path, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Create the folder and hold its lock within this context; the lock is also released when the block raises.

    A folder with a run in it is refused unless `resume` (continue that run) or `overwrite` (`set_aside` may replace it)
    is given. A run that was set aside is back at the end unless the new one has a checkpoint.
    Raises ConfigError for a folder that holds a run, ResourceError if it cannot be written to or is in use by another
    process or thread.
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output: {path} is a file; choose another run folder with output=PATH.")
    is_new = not path.exists()
    try:
        with _claimed(folder, resume=resume, overwrite=overwrite):
            yield folder
    finally:
        if is_new:
            with suppress(OSError):  # not empty: a run has begun
                path.rmdir()


@contextmanager
def _claimed(folder: RunFolder, *, resume: bool, overwrite: bool) -> Iterator[None]:
    path = folder.path
    with _locked(path):
        if not overwrite:
            _settle(folder)  # of a process that was killed
        if not resume and _holds_run(folder) and not overwrite:
            raise ConfigError(
                f"output: {path} already holds a run. Continue it with --resume, delete it with --overwrite, "
                "or choose another folder with output=PATH."
            )
        try:
            yield
        finally:
            if not may_be_restarted():
                _settle(folder)
            if not _holds_run(folder) and read_owner(path / LOCK) == this_process():
                # The start failed: no file of it stays.
                with suppress(OSError):
                    (path / f"{LOCK}.lock").unlink()


def set_aside(folder: RunFolder) -> None:
    """Move what a run wrote, if there is one, and nothing else in the folder to `folder.replaced`.

    Raises ResourceError.
    """
    if not _holds_run(folder) and not folder.replaced.is_dir():
        return
    try:
        if folder.replaced.exists() and folder.last.exists():
            shutil.rmtree(folder.replaced)
        if folder.replaced.exists():
            _delete_run(folder)  # without a checkpoint, while another one was set aside
            return
        for file in filter(Path.exists, _run_files(folder)):
            folder.replaced.mkdir(exist_ok=True)
            file.rename(folder.replaced / file.name)
    except OSError as error:
        raise ResourceError(f"output: {folder.path}: the old run cannot be moved aside ({error.strerror}).") from error


def discard_replaced(folder: RunFolder) -> None:
    """Delete the run that was set aside, now that the new one can be continued."""
    shutil.rmtree(folder.replaced, ignore_errors=True)


def keep_last(folder: RunFolder, step: int, count: int) -> None:
    """Before last.pt is replaced, keep it as that of `step`, and of all earlier ones only the newest `count`.

    A link takes no space. With `count` 0 none is kept. Raises ResourceError.
    """
    copy = folder.kept(step)
    if count and step and folder.last.exists() and not copy.exists():
        try:
            copy.hardlink_to(folder.last)
        except OSError:  # a file system without links
            with replacing(copy) as part:
                shutil.copyfile(folder.last, part)
    for old in [file for file in folder.checkpoints() if file != folder.last][count:]:
        old.unlink(missing_ok=True)


def _settle(folder: RunFolder) -> None:
    """Delete the run that was set aside if the new one has a checkpoint, else put it back."""
    if not folder.replaced.is_dir():
        return
    if folder.last.exists():
        discard_replaced(folder)
        return
    with suppress(OSError):
        _delete_run(folder)
        for file in folder.replaced.iterdir():
            file.rename(folder.path / file.name)
        folder.replaced.rmdir()
        print(f"note: {folder.path}: the old run is back, since the new one had no checkpoint yet", flush=True)


def _holds_run(folder: RunFolder) -> bool:
    return folder.config.exists() or bool(folder.checkpoints())


def _run_files(folder: RunFolder) -> tuple[Path, ...]:
    """Files and folders that a run writes."""
    folders = (folder.last.parent, folder.path / "tensorboard", folder.pictures, folder.failures)
    return *folders, folder.config, folder.metrics, folder.eval, folder.detections, folder.images


def _delete_run(folder: RunFolder) -> None:
    for file in _run_files(folder):
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold run.lock; run.owner names this process in the message that others get meanwhile."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path / LOCK))
        except Timeout as error:
            lost = (
                "" if (path / f"{LOCK}.lock").exists() else f" If that process has ended, delete {path / LOCK}.owner."
            )
            raise ResourceError(
                f"output: {path} is in use by {read_owner(path / LOCK) or 'another process'}; wait for it or choose "
                f"another folder with output=PATH.{lost}"
            ) from error
        except OSError as error:
            raise ResourceError(
                f"output: cannot write to {path} ({error.strerror}); choose another folder with output=PATH."
            ) from error
        yield
