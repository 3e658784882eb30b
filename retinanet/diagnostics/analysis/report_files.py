"""The files of a report: written next to their place, then put there together, instead of an older report's."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from retinanet.errors import ResourceError
from retinanet.files import make_folder, write_text


class ReportHeader(NamedTuple):
    """What a report is about."""

    title: str
    """Begins with TITLE."""
    lines: tuple[str, ...]
    """Origin of the detections and of the ground truth, one sentence each."""
    images: Path | None
    """Folder of the image files, if known."""


REPORT = "report.html"
PLOTS = "plots"
TITLE = "Evaluation of "
"""Start of the title of every evaluation report, by which one is recognised."""
_LIST = ".written"
"""File in plots/ with the names of the files there that belong to the report."""


@contextmanager
def replaced_report(folder: Path) -> Iterator[Path]:
    """A temporary folder with an empty plots/; when the block ends, its files replace the older report in `folder`.

    If the block raises, the older report stays. Raises ResourceError where files cannot be written or moved.
    """
    part = folder / ".report.partial"
    try:
        shutil.rmtree(part, ignore_errors=True)
        make_folder(part / PLOTS)
        yield part
        names = sorted(file.name for file in (part / PLOTS).iterdir())
        write_text(part / PLOTS / _LIST, "".join(f"{name}\n" for name in names))
        remove_report(folder)
        make_folder(folder / PLOTS)
        try:
            for name in (*(f"{PLOTS}/{name}" for name in (_LIST, *names)), REPORT):
                (part / name).replace(folder / name)
        except OSError as error:
            raise ResourceError(f"{folder}: the report cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_report(folder: Path) -> bool:
    """Delete report.html and the files in plots/ that belong to it; return whether there were any.

    Other files stay, and everything stays where report.html is not the report of an evaluation. Raises ResourceError
    where a file cannot be deleted.
    """
    report, plots = folder / REPORT, folder / PLOTS
    try:
        if report.is_file() and f"<title>{TITLE}" not in _start_of(report):
            return False
        listed = (plots / _LIST).read_text(encoding="utf-8").splitlines() if (plots / _LIST).is_file() else []
        files = (report, plots / _LIST, *(plots / Path(name).name for name in listed))
        stale = [file for file in files if file.is_file()]
        for file in stale:
            file.unlink()
        if stale and plots.is_dir() and not any(plots.iterdir()):
            plots.rmdir()
    except OSError as error:
        raise ResourceError(
            f"{folder}: its older report cannot be removed ({error.strerror or error}); choose another folder."
        ) from error
    return bool(stale)


def _start_of(report: Path) -> str:
    with report.open(encoding="utf-8", errors="replace") as file:
        return file.read(4096)
