"""SIGINT and SIGTERM as a question that the training loop asks once a step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from retinanet.errors import Interrupted


class StopRequest:
    """The signal that asked to stop, 0 while none did. A second signal ends the process without
    saving, as soon as the images being read are there.
    """

    def __init__(self) -> None:
        self.signal = 0

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = number

    def raise_if_asked(self, kept: str) -> None:
        """`raise_asked` if a signal came to this process."""
        if self.signal:
            self.raise_asked(kept)

    def raise_asked(self, kept: str) -> NoReturn:
        """Interrupted (exit code 128 + signal); `kept` says what was saved and how to go on.

        Where the signal went to another rank, SIGTERM's code is used.
        """
        number = self.signal or signal.SIGTERM
        raise Interrupted(f"stopped by {signal.Signals(number).name}: {kept}", 128 + number)


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Within this context SIGINT and SIGTERM only set the request; afterwards the old handlers are back."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
