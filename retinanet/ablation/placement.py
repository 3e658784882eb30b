"""Where cells run: what the runner needs of this machine (local.py) or of a cluster (cluster.py)."""

from typing import NamedTuple, Protocol

from retinanet.ablation.cells import Cell


class Ended(NamedTuple):
    """How the process of a cell ended."""

    code: int | None
    """Exit code, negative for a signal; None if the machine on which it ran is gone."""
    reason: str = ""
    """Why it failed, if more is known than the exit code."""


class CellProcess(Protocol):
    """The process of one cell."""

    def location(self) -> str | None:
        """Where it runs, as the end of a line: "" or " on GPU 1"; None while it waits for a machine."""
        ...

    def poll(self) -> Ended | None:
        """How it ended; None while it waits or runs."""
        ...

    def send_signal(self, number: int) -> None:
        """Pass a signal on; a cell that waits for a machine is withdrawn."""
        ...


class Placement(Protocol):
    """The machine, or the cluster, on which cells run."""

    def has_room(self, running: int) -> bool:
        """Whether another cell may start while `running` cells run or wait."""
        ...

    def start(self, cell: Cell) -> CellProcess:
        """Start the process of a cell."""
        ...
