"""Signals as a request that the training loop checks once per step, acknowledged at once.

SIGINT, SIGTERM and SIGHUP (a terminal or connection that closes) stop the run after saving; SIGUSR1 saves and goes on.

Python runs a signal's handler only between two bytecodes of the main thread, which may be in the middle of a
convolution of seconds. The signal's number arrives on a socket immediately (`signal.set_wakeup_fd`), where a thread
waits for it and answers the user meanwhile. Nothing is printed by a handler: it might interrupt a print.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import NoReturn

from retinanet.errors import Interrupted, StoppedByCaller

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALS = (*STOPPING, signal.SIGUSR1)
GRACE_SECONDS = 1.0
"""After a second signal, time for the main thread to end by itself, before the process ends without it."""
STOPS_AFTER_STEP = "stopping after this step and saving", "quit without saving"
"""What a first signal does, and what a second one would do."""


class StopRequest:
    """Who asked to stop: a signal (its number, else 0), or the caller of a training that was started from Python.

    A second signal ends the process without saving, unless one of both is SIGHUP: a terminal that closes sends several.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.by_caller = False
        self.answer = STOPS_AFTER_STEP
        self.patience: float | None = None
        """Seconds after a signal in which the main thread must have set this to None, or the process ends unsaved."""
        self._save = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if number == signal.SIGUSR1:
            self._save = True
            return
        if _is_impatient(self.signal, number):
            raise SystemExit(128 + number)
        self.signal = number

    @property
    def asked(self) -> bool:
        """Whether this process is asked to stop."""
        return self.signal > 0 or self.by_caller

    def take_save(self) -> bool:
        """Whether SIGUSR1 has asked to save since the last call."""
        asked, self._save = self._save, False
        return asked

    @contextmanager
    def answering(self, first: str, second: str) -> Iterator[None]:
        """Within this context signals do something else, which these texts describe to the user."""
        before, self.answer = self.answer, (first, second)
        try:
            yield
        finally:
            self.answer = before

    def raise_if_asked(self, saved: str) -> None:
        """`raise_asked` if this process is asked to stop."""
        if self.asked:
            self.raise_asked(saved)

    def raise_asked(self, saved: str) -> NoReturn:
        """Raise Interrupted with exit code 128 + signal, or StoppedByCaller.

        saved: sentences on what has been saved and how to continue. If another rank was asked to stop, SIGTERM is
        reported.
        """
        if self.by_caller and not self.signal:
            raise StoppedByCaller(f"Stopped by on_row. {saved}")
        number = self.signal or signal.SIGTERM
        raise Interrupted(f"Interrupted by {signal.Signals(number).name}. {saved}", 128 + number)


def _is_impatient(first: int, second: int) -> bool:
    """Whether a signal after `first` (0: none) means that the process shall end at once."""
    return first not in (0, signal.SIGHUP) and second != signal.SIGHUP


@contextmanager
def listen(
    acknowledge: Callable[[str], None] = lambda text: None, request: StopRequest | None = None
) -> Iterator[StopRequest]:
    """Within this context signals only set the request; the previous handlers are restored at its end.

    Outside the main thread, where Python allows no handlers, nothing is changed. SIGHUP stays ignored where it was, as
    under nohup. acknowledge: shows a line to the user; called at once for every signal, from another thread. A second
    signal ends the process, with the exit code 128 + signal, as soon as the main thread notices it or after
    GRACE_SECONDS. request: what to set; None makes one.
    """
    request = request or StopRequest()
    if current_thread() is not main_thread():
        yield request
        return
    received, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    watcher = Thread(target=_acknowledge, args=(received, request, acknowledge), name="signals", daemon=True)
    watcher.start()
    before_wakeup = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    heard = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.handle) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_wakeup)
        wakeup.close()
        watcher.join()
        received.close()


def _acknowledge(received: socket.socket, request: StopRequest, acknowledge: Callable[[str], None]) -> None:
    """Answer each signal whose number arrives, until the other end of the socket is closed."""
    first = last = 0
    waits = False
    while True:
        try:
            data = received.recv(16)
        except TimeoutError:
            if not waits:
                _end_process(128 + last)
            waits = False
            received.settimeout(None)
            if request.patience is None:
                continue
            with suppress(OSError):
                acknowledge("this rank waits for others, which do not answer; ending without saving")
            _end_process(128 + first)
        if not data:
            return
        for number in (number for number in data if number in SIGNALS):
            if number == signal.SIGUSR1:
                answer = "SIGUSR1: saving after this step, then going on"
            elif _is_impatient(first, number):
                answer, last, waits = "quitting now", number, False
                received.settimeout(GRACE_SECONDS)
            else:
                now, then = request.answer
                again = f"; press Ctrl-C again to {then}" if number == signal.SIGINT else ""
                answer, first = f"{signal.Signals(number).name}: {now}{again}", number
                if request.patience is not None:
                    waits = True
                    received.settimeout(request.patience)
            with suppress(OSError):  # a terminal that is gone
                acknowledge(answer)


def _end_process(exit_code: int) -> NoReturn:
    """End at once; the main thread is in a call that does not return. Files are written as a whole or not at all."""
    try:
        sys.stdout.flush()
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\n\x1b[?25h")  # below the live lines, the cursor that they hide
    except (OSError, ValueError):
        pass  # nobody reads the output, or it is no file
    os._exit(exit_code)
