"""SIGINT and SIGTERM as a request that the training loop checks once per step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from retinanet.errors import Interrupted


class StopRequest:
    """The signal that asked to stop, 0 as long as there is none.

    A second signal ends the process without saving, as soon as the images that are being read have arrived.
    """

    def __init__(self) -> None:
        self.signal = 0

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = number

    def raise_if_asked(self, saved: str) -> None:
        """`raise_asked` if this process has received a signal."""
        if self.signal:
            self.raise_asked(saved)

    def raise_asked(self, saved: str) -> NoReturn:
        """Raise Interrupted with exit code 128 + signal.

        saved: sentences on what has been saved and how to continue. If another rank received the signal, SIGTERM is
        reported.
        """
        number = self.signal or signal.SIGTERM
        raise Interrupted(f"Interrupted by {signal.Signals(number).name}. {saved}", 128 + number)


@contextmanager
def listen() -> Iterator[StopRequest]:
    """Within this context SIGINT and SIGTERM only set the request; the previous handlers are restored at its end."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
