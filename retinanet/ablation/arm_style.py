"""How an arm looks in every picture of a report."""

from collections.abc import Sequence
from typing import NamedTuple

from retinanet.figures import COLORS

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*")
FALSE_COLOR = "#9A9A9A"


class ArmStyle(NamedTuple):
    """One arm's look, the same in all pictures."""

    color: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str


def arm_styles(names: Sequence[str]) -> dict[str, ArmStyle]:
    """A look for each arm, by its place in the study: seven colours, then the same with another dash; own markers."""
    return {
        name: ArmStyle(
            COLORS[index % len(COLORS)],
            DASHES[index // len(COLORS) % len(DASHES)],
            MARKERS[index % len(MARKERS)],
        )
        for index, name in enumerate(names)
    }
