"""The result of a run: the schema of the JSON file, and the floors that ratios must not fall below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from benchmarks.contest import Precision
from retinanet.config.fields import Positive, Section
from retinanet.errors import ConfigError, DataError, UserError, list_errors
from retinanet.files import write_json

FORMAT: Literal["retinanet-benchmarks-1"] = "retinanet-benchmarks-1"


class Spread(Section):
    """Median and spread of a figure over repetitions."""

    median: float
    quartiles: tuple[float, float]
    least: float
    most: float
    count: int


class Machine(Section):
    """The hardware and the releases that figures belong to."""

    processor: str
    cores: int
    """That this process may use."""
    threads: int
    memory_gb: float
    gpu: str | None
    system: str
    versions: dict[str, str]


class Peaks(Section):
    """Measured ceilings. Shares refer to the fastest repetition: whatever slows one down is no part of a ceiling."""

    flops: dict[str, Spread]
    """Floating point operations a second of a square matrix product, by precision."""
    side: int
    """Rows and columns of its matrices."""
    bytes: Spread
    """Bytes a second of a copy, read and written."""
    copied_mb: int


class GroupTime(Section):
    """One group of a step's work."""

    group: str
    seconds: float
    """Of one step."""
    share: float
    """0..1, of the sum of all groups."""
    flops: float | None
    """Floating point operations of one step; of convolutions only."""
    share_of_peak: float | None
    """0..1: the time that these take at the measured peak of a product, over `seconds`."""


class Breakdown(Section):
    """Where the time of one contestant's step goes."""

    name: str
    clock: Literal["cpu", "cuda"]
    """Whether times are of the step's thread, which is always in one group, or of the GPU while it works."""
    steps: int
    seconds: float
    """Of one step under the profiler, by the wall clock."""
    groups: tuple[GroupTime, ...]
    """Those that take any time."""


class Timing(Section):
    """One contestant."""

    name: str
    ours: bool
    precision: Precision
    seconds: Spread | None
    """Of one step; None if it failed."""
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
    """One comparison: the peer's time over ours, and our memory over the peer's."""

    ours: str
    peer: str
    time: Spread
    """Of the ratios of paired repetitions."""
    at_least: float | None
    memory: float | None
    memory_at_most: float | None
    not_same: str
    """What else differs between these two."""

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
    """What differs between ours and any peer."""
    checked: str
    """What was found equal before timing; empty where nothing can be compared."""
    work: Literal["operations", "bytes"] | None
    """What share_of_peak counts."""
    memory: Literal["whole", "extra"] | None
    """What memory_mb counts; see Contest.memory."""
    contestants: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]
    breakdowns: tuple[Breakdown, ...] = ()
    """Of the contestants, where the part's steps are profiled."""


class Report(Section):
    """A run."""

    format: Literal["retinanet-benchmarks-1"] = FORMAT
    machine: Machine
    options: dict[str, str]
    peaks: Peaks
    parts: tuple[PartReport, ...]


class Floor(Section):
    """The least ratio that one comparison may have."""

    part: str
    ours: str
    peer: str
    at_least: Positive


_FLOORS = TypeAdapter(tuple[Floor, ...])


class RegressionError(UserError):
    """A ratio below its floor (exit code 9)."""

    exit_code = 9


def spread_of(values: Sequence[float]) -> Spread:
    """Median, quartiles (linear interpolation), extremes and number of `values`, at least one of them."""
    least, low, middle, high, most = np.percentile(np.asarray(values, dtype=np.float64), [0, 25, 50, 75, 100]).tolist()
    return Spread(median=middle, quartiles=(low, high), least=least, most=most, count=len(values))


def paired_ratios(peer: Sequence[float], ours: Sequence[float]) -> Spread:
    """Spread of peer / ours over repetitions: those that ran one after the other shared the machine's load."""
    return spread_of([one / other for one, other in zip(peer, ours, strict=True)])


def write_report(report: Report, path: Path) -> None:
    """Write the JSON file. Raises ResourceError if it cannot be written."""
    write_json(path, report.model_dump(mode="json"), indent=1)


def read_report(path: Path) -> Report:
    """Read a JSON file of `write_report`. Raises DataError if it is not one."""
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a report of the benchmarks ({error!s:.300})") from error


def read_floors(path: Path) -> tuple[Floor, ...]:
    """The floors of a JSON file. Raises ConfigError if it is not a list of them."""
    try:
        return _FLOORS.validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        message = f"{path}: not a list of floors, each {{part, ours, peer, at_least}} ({error!s:.300})"
        raise ConfigError(message) from error


def check_floors(report: Report, floors: tuple[Floor, ...], path: Path | None) -> None:
    """Raise RegressionError naming every comparison whose upper quartile is below its floor, or that was not measured.

    The quartile, so that one slow repetition of a busy machine raises no alarm. Floors of other parts are ignored.
    """
    found = {(part.part, ratio.ours, ratio.peer): ratio.time for part in report.parts for ratio in part.ratios}
    measured = {part.part for part in report.parts}
    errors = []
    for floor in floors:
        if floor.part not in measured:
            continue
        spread = found.get((floor.part, floor.ours, floor.peer))
        pair = f"{floor.part}: {floor.ours} against {floor.peer}"
        if spread is None:
            errors.append(f"{pair} was not measured; correct the name, or measure it")
        elif spread.quartiles[1] < floor.at_least:
            errors.append(
                f"{pair}: {spread.median:.2f} times as fast (quartiles {spread.quartiles[0]:.2f} to "
                f"{spread.quartiles[1]:.2f}), the floor is {floor.at_least:g}"
            )
    if errors:
        title = "slower than before; make it fast again, or lower the floor and say why"
        raise RegressionError(list_errors(f"{path}: {title}", errors))
