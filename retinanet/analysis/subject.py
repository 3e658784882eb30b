"""What was evaluated, for the head of a report."""

from pathlib import Path
from typing import NamedTuple


class Subject(NamedTuple):
    """A detector or a file of detections on some data."""

    title: str
    lines: tuple[str, ...]
    """Where the detections and the ground truth come from, a sentence each."""
    images: Path | None
    """Folder of the images, where it is known."""
