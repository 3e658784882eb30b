"""All that a run of the benchmarks found: the schema of the JSON file."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from benchmarks.breakdown import Breakdown
from benchmarks.contest import Precision
from benchmarks.machine import Machine
from benchmarks.peaks import Peaks
from benchmarks.spread import Spread
from retinanet.config.fields import Section
from retinanet.errors import DataError
from retinanet.files import write_json

FORMAT: Literal["retinanet-benchmarks-1"] = "retinanet-benchmarks-1"


class Timing(Section):
    """One contestant."""

    name: str
    ours: bool
    precision: Precision
    seconds: Spread | None
    """Of one step; None where it failed."""
    failure: str | None = None
    """Why a peer could not run."""
    items_per_second: float | None = None
    """Images a second, from the median."""
    share_of_peak: float | None = None
    """0..1: the time that the step's operations (or least bytes) take at the measured peak, over the median."""
    memory_mb: float | None = None
    most_seconds: float | None = None
    """Goal for the median."""


class Ratio(Section):
    """One comparison: the peer's figure over ours for time, ours over the peer's for memory."""

    ours: str
    peer: str
    time: Spread
    """Of the ratios of paired repetitions."""
    at_least: float | None
    memory: float | None
    memory_at_most: float | None
    not_same: str
    """What else is not the same in these two."""

    @property
    def met(self) -> bool | None:
        """Whether every goal of this comparison that could be measured is met; None without one."""
        found = []
        if self.at_least is not None:
            found.append(self.time.median >= self.at_least)
        if self.memory_at_most is not None and self.memory is not None:
            found.append(self.memory <= self.memory_at_most)
        return all(found) if found else None


class PartReport(Section):
    """One part."""

    part: str
    what: str
    not_same: str
    """What is not the same in ours and any peer."""
    checked: str
    """What was found equal before timing; empty where nothing can be compared."""
    work: Literal["operations", "bytes"] | None
    """What share_of_peak counts."""
    memory: Literal["whole", "extra"] | None
    """What memory_mb counts; see Contest.memory."""
    contestants: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]
    breakdowns: tuple[Breakdown, ...] = ()
    """Of the contestants, where the part has its steps profiled."""


class Report(Section):
    """A run."""

    format: Literal["retinanet-benchmarks-1"] = FORMAT
    machine: Machine
    options: dict[str, str]
    peaks: Peaks
    parts: tuple[PartReport, ...]


def write_report(report: Report, path: Path) -> None:
    """ResourceError where the file cannot be written."""
    write_json(path, report.model_dump(mode="json"), indent=1)


def read_report(path: Path) -> Report:
    """DataError where the file is no report."""
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a report of the benchmarks ({error!s:.300})") from error
