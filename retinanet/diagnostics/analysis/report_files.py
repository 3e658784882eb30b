"""Taking away the report of an evaluation that was made before in the same folder."""

from pathlib import Path
from typing import NamedTuple

from retinanet.errors import ResourceError


class ReportHeader(NamedTuple):
    """A detector or a file of detections on some data."""

    title: str
    lines: tuple[str, ...]
    """Where the detections and the ground truth come from, a sentence each."""
    images: Path | None
    """Folder of the images, where it is known."""


REPORT = "report.html"
PLOTS = "plots"
TITLE = "Evaluation of "
"""How the titles of our reports begin."""
_NAMES = (
    *("precision_recall", "class_ap", "size_and_crowding", "errors", "confusion", "calibration", "thresholds"),
    "anchors",
)
_PATTERNS = (*(f"{name}.{kind}" for name in _NAMES for kind in ("png", "csv")), "worst_[0-9]*.jpg", "best_[0-9]*.jpg")


def remove_report(folder: Path) -> bool:
    """Delete report.html and the files in plots/ that an evaluation wrote; says whether there were any.

    Other files stay, and so does all where report.html is no report of an evaluation. Raises ResourceError where a
    file cannot be deleted.
    """
    report, plots = folder / REPORT, folder / PLOTS
    try:
        if report.is_file() and not _is_ours(report):
            return False
        stale = [file for file in (report, *(file for one in _PATTERNS for file in plots.glob(one))) if file.is_file()]
        for file in stale:
            file.unlink()
        if stale and plots.is_dir() and not any(plots.iterdir()):
            plots.rmdir()
    except OSError as error:
        raise ResourceError(
            f"{folder}: its older report cannot be removed ({error.strerror or error}); give another folder."
        ) from error
    return bool(stale)


def _is_ours(report: Path) -> bool:
    with report.open(encoding="utf-8", errors="replace") as file:
        return f"<title>{TITLE}" in file.read(4096)
