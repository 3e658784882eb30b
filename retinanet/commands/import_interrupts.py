"""Ctrl-C while a library is imported: the import is finished first, or the process ends. Imports nothing heavy.

Libraries of C pass over a KeyboardInterrupt in their own imports and stay half imported; the command then goes on, and
fails much later at a function that is not there.
"""

import _thread
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from types import FrameType

_AGAIN_SECONDS, _MOST_WAITS = 0.05, 10
_EXIT_CODE = 128 + signal.SIGINT


@contextmanager
def interrupts_after_imports() -> Iterator[None]:
    """Within this context Ctrl-C raises KeyboardInterrupt as ever, but not before the import that it comes in is done.

    An import that takes longer than half a second is one of a command's start, where nothing is to be cleaned up: the
    process ends there.
    Nothing changes outside the main thread, or where Ctrl-C is ignored or somebody else's already.
    """
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    handler = _Handler()
    signal.signal(signal.SIGINT, handler.handle)
    try:
        yield
    finally:
        handler.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Handler:
    def __init__(self) -> None:
        self._again: Timer | None = None
        self._waits = 0

    def handle(self, _number: int, frame: FrameType | None) -> None:
        self.cancel()
        if not _is_importing(frame):
            raise KeyboardInterrupt
        if self._waits == _MOST_WAITS:
            os.write(2, b"interrupted\n")
            os._exit(_EXIT_CODE)
        self._waits += 1
        self._again = Timer(_AGAIN_SECONDS, _interrupt_main)
        self._again.daemon = True
        self._again.start()

    def cancel(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None


def _interrupt_main() -> None:
    number = main_thread().ident
    if hasattr(signal, "pthread_kill") and number is not None:
        signal.pthread_kill(number, signal.SIGINT)  # also wakes it from a call of the system
    else:
        _thread.interrupt_main()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
