"""Signals become a request that the loop checks, and the previous handlers are restored."""

import os
import signal

import pytest

from retinanet.errors import Interrupted
from retinanet.run.interrupts import StopRequest, listen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_only_sets_the_request(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with listen() as stop:
        stop.raise_if_asked("Nothing yet.")
        os.kill(os.getpid(), number)
        assert stop.signal == number
        with pytest.raises(Interrupted, match=rf"^Interrupted by {number.name}\. Saved step 3\.$") as caught:
            stop.raise_if_asked("Saved step 3.")
        assert caught.value.exit_code == 128 + number
    assert {n: signal.getsignal(n) for n in before} == before


def test_a_second_signal_ends_the_process_at_once() -> None:
    with listen() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.code == 143
        assert stop.signal == signal.SIGINT


def test_a_rank_that_got_no_signal_stops_with_the_code_of_sigterm() -> None:
    with pytest.raises(Interrupted, match=r"SIGTERM\. Saved") as caught:
        StopRequest().raise_asked("Saved.")
    assert caught.value.exit_code == 143


def test_the_previous_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), listen():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before
