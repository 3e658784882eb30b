"""Ratios that must not get worse: a file of floors, and whether a report keeps them."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmarks.report import Report
from retinanet.config.fields import Positive, Section
from retinanet.errors import ConfigError, UserError, list_errors


class RegressionError(UserError):
    """A ratio under its floor (exit code 9)."""

    exit_code = 9


class Floor(Section):
    """The least ratio that one comparison may have."""

    part: str
    ours: str
    peer: str
    at_least: Positive


_FLOORS = TypeAdapter(tuple[Floor, ...])


def read_floors(path: Path) -> tuple[Floor, ...]:
    """The floors of a JSON file; ConfigError where it is no list of them."""
    try:
        return _FLOORS.validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not a list of floors, each {{part, ours, peer, at_least}} ({error!s:.300})"
        ) from error


def check_floors(report: Report, floors: tuple[Floor, ...], path: Path | None) -> None:
    """RegressionError naming every comparison whose upper quartile is under its floor, or that was not measured.

    The quartile, so that one slow repetition of a busy machine is no alarm. Floors of other parts are left alone.
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
            errors.append(f"{pair} was not measured; mend the name, or measure it")
        elif spread.quartiles[1] < floor.at_least:
            errors.append(
                f"{pair}: {spread.median:.2f} times as fast (quartiles {spread.quartiles[0]:.2f} to "
                f"{spread.quartiles[1]:.2f}), the floor is {floor.at_least:g}"
            )
    if errors:
        title = "slower than before; make it fast again, or lower the floor and say why"
        raise RegressionError(list_errors(f"{path}: {title}", errors))
