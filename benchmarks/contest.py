"""What one part of the benchmarks is: contestants that do the same work, and which of them are compared."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Precision = Literal["float32", "bfloat16", "float16", "-"]
"""Type of the arithmetic; "-" where there is none worth naming."""


def nothing() -> None:
    """For a contestant that needs no preparation."""


class Running(NamedTuple):
    """A contestant that is built and ready to be timed."""

    step: Callable[[], Any]
    """The timed call. What its first call returns is given to the contest's check."""
    before: Callable[[], None] = nothing
    """Called, not timed, before each timed stretch of steps."""
    after: Callable[[], None] = nothing
    """Called, not timed, after it."""


class Contestant(NamedTuple):
    """One way to do the work of a contest."""

    name: str
    """Unique within the contest."""
    ours: bool
    precision: Precision
    build: Callable[[], Running]
    most_seconds: float | None = None
    """Goal for the median itself."""


class Comparison(NamedTuple):
    """One of ours beside one peer. The ratio is the peer's time over ours: above 1 we are faster."""

    ours: str
    peer: str
    not_same: str = ""
    """What is not the same in these two, beside what Contest.not_same says of all pairs."""
    at_least: float | None = None
    """Goal for the ratio."""
    memory_at_most: float | None = None
    """Goal for our memory over the peer's."""


class Contest(NamedTuple):
    """One part, ready to be measured."""

    part: str
    what: str
    """A sentence: the work, its shapes and where they come from."""
    not_same: str
    """What is not the same in ours and any peer, for the reader of the table; empty where nothing is."""
    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    check: Callable[[Mapping[str, Any]], str]
    """First results by name -> a sentence on what was found equal. AssertionError where it is not."""
    items: int
    """Images of one step; 0 where that says nothing."""
    repeats: int
    warmups: int = 1
    once: bool = False
    """Steps are timed one by one, however short."""
    flops_of: str | None = None
    """The contestant whose floating point operations are the work of one step."""
    floor_bytes: Mapping[Precision, int] = {}
    """Bytes that a step must read and write at least, by precision."""
    memory: Literal["whole", "extra"] | None = None
    """Whether a step's peak is measured above the process before anything was built, or above what a first step left
    behind; None: not measured."""
    profiled: bool = False
    """Whether it is also found out what steps take their time for."""
    close: Callable[[], None] = nothing
    """Called when all is done."""


def unchecked(_results: Mapping[str, Any]) -> str:
    """For contests whose results cannot be compared."""
    return ""
