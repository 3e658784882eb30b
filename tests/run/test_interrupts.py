"""Signals become a question that the loop asks, and the old handlers come back."""

import os
import signal

import pytest

from retinanet.errors import Interrupted
from retinanet.run.interrupts import StopRequest, listen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_only_sets_the_request(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with listen() as stop:
        stop.raise_if_asked("nothing yet")
        os.kill(os.getpid(), number)
        assert stop.signal == number
        with pytest.raises(Interrupted, match=rf"stopped by {number.name}: step 3 is saved") as caught:
            stop.raise_if_asked("step 3 is saved")
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
    with pytest.raises(Interrupted, match="SIGTERM: saved") as caught:
        StopRequest().raise_asked("saved")
    assert caught.value.exit_code == 143


def test_the_old_handlers_come_back_after_a_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), listen():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before
