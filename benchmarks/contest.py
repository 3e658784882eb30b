"""A part of the benchmarks: contestants that do the same work, and which of them are compared."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

Precision = Literal["float32", "bfloat16", "float16", "-"]
"""Type of the arithmetic; "-" where there is none worth naming."""

Step = Callable[[], Any]
"""The timed call. What its first call returns is given to the contest's check."""

Stretch = Callable[[], AbstractContextManager[Step]]
"""Opened before the steps of one repetition and closed after them, untimed; gives the step."""


def ready(step: Step) -> Stretch:
    """The stretch of a step that needs no preparation."""
    return lambda: nullcontext(step)


def nothing() -> None:
    """Do nothing: for a contest without anything to close."""


def unchecked(_results: Mapping[str, Any]) -> str:
    """The check of contests whose results cannot be compared."""
    return ""


class Contestant(NamedTuple):
    """One way to do the work of a contest."""

    name: str
    """Unique within the contest."""
    ours: bool
    """Whether it is this project's."""
    precision: Precision
    build: Callable[[], Stretch]
    most_seconds: float | None = None
    """Goal for the median itself."""


class Comparison(NamedTuple):
    """This project's contestant and a peer. The ratio is the peer's time over ours: above 1, ours is faster."""

    ours: str
    peer: str
    not_same: str = ""
    """What differs between these two, in addition to Contest.not_same."""
    at_least: float | None = None
    """Goal for the ratio."""
    memory_at_most: float | None = None
    """Goal for our memory over the peer's."""


class Contest(NamedTuple):
    """One part, ready to be measured."""

    part: str
    what: str
    """A sentence: the work, its shapes and where they come from."""
    contestants: tuple[Contestant, ...]
    repeats: int
    comparisons: tuple[Comparison, ...] = ()
    not_same: str = ""
    """What differs between ours and any peer, for the reader of the table; empty if nothing does."""
    check: Callable[[Mapping[str, Any]], str] = unchecked
    """First results by name -> a sentence on what was found equal. Raises AssertionError where it is not."""
    items: int = 0
    """Images of one step; 0 where images per second mean nothing."""
    warmups: int = 1
    once: bool = False
    """Whether a repetition is a single step, however short."""
    flops_of: str | None = None
    """The contestant whose floating point operations are the work of one step."""
    floor_bytes: Mapping[Precision, int] = {}
    """Minimum number of bytes that a step must read and write, by precision."""
    memory: Literal["whole", "extra"] | None = None
    """Whether a step's peak is measured above the process before anything was built, or above what is held after a
    first step; None: not measured."""
    profiled: bool = False
    """Whether the steps are also profiled."""
    close: Callable[[], None] = nothing
    """Called when all is done."""
