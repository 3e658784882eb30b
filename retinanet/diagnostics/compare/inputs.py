"""The two files of detections that are compared, and what the report calls them."""

from pathlib import Path
from typing import NamedTuple


class Inputs(NamedTuple):
    """The files to compare."""

    first: Path
    second: Path
    ground_truth: Path


def title_of(inputs: Inputs) -> str:
    """Title of the report."""
    first, second = labels(inputs)
    return f"{second} against {first}"


def labels(inputs: Inputs) -> tuple[str, str]:
    """Short names of both files: up to the first dot, or of the nearest of their folders that differ."""
    first, second = (path.name.split(".")[0] for path in inputs[:2])
    if first == second:
        first, second = (parts[0] for parts in _from_difference(inputs))
    return first, second


def _from_difference(inputs: Inputs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of both paths from the last that differs; only the names, if one path is an end of the other."""
    first, second = inputs.first.absolute().parts, inputs.second.absolute().parts
    for length in range(1, min(len(first), len(second)) + 1):
        if first[-length] != second[-length]:
            return first[-length:], second[-length:]
    return first[-1:], second[-1:]


def described(inputs: Inputs) -> tuple[str, str]:
    """What A and B are, in a report that is passed on: their paths from where they differ."""
    first, second = ("/".join(parts) for parts in _from_difference(inputs))
    return f"A is {first}.", f"B is {second}."
