"""Signals become a request that the loop checks, and the previous handlers are restored."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from retinanet.errors import Interrupted
from retinanet.run.interrupts import StopRequest, listen


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    """These tests may run under nohup, whose ignored SIGHUP a run respects."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_only_sets_the_request(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
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


def test_a_terminal_that_closes_sends_several_signals() -> None:
    lines: list[str] = []
    with listen(lines.append) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
    assert "quitting now" not in lines


def test_under_nohup_a_terminal_that_closes_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listen() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.signal
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sigusr1_asks_to_save_once_and_not_to_stop() -> None:
    lines: list[str] = []
    with listen(lines.append) as stop:
        assert not stop.take_save()
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert arrives(lambda: len(lines) == 2)
        assert (stop.take_save(), stop.take_save(), stop.signal) == (True, False, 0)
    assert lines[0] == "SIGUSR1: saving after this step, then going on"


def test_a_rank_that_got_no_signal_stops_with_the_code_of_sigterm() -> None:
    with pytest.raises(Interrupted, match=r"SIGTERM\. Saved") as caught:
        StopRequest().raise_asked("Saved.")
    assert caught.value.exit_code == 143


def test_the_previous_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), listen():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before


def arrives(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true within five seconds."""
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_signals_are_acknowledged_with_what_they_do_now() -> None:
    lines: list[str] = []
    with listen(lines.append) as stop, stop.answering("step 7 is saved already", "quit at once"):
        os.kill(os.getpid(), signal.SIGINT)
        assert arrives(lambda: len(lines) == 1)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)
        assert arrives(lambda: len(lines) == 2)
    assert lines == ["SIGINT: step 7 is saved already; press Ctrl-C again to quit at once", "quitting now"]
    with listen(lines.append):
        os.kill(os.getpid(), signal.SIGTERM)
    assert lines[2:] == ["SIGTERM: stopping after this step and saving"]


BUSY = """
import hashlib, os, signal, threading, time
from retinanet.run import interrupts
interrupts.GRACE_SECONDS = 0.2
def press():
    for _ in range(2):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
with interrupts.listen(lambda text: print(text, flush=True)):
    threading.Thread(target=press).start()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
"""
"""The main thread computes for minutes within one call, in which no handler runs; as torch, it releases the lock."""


def test_a_main_thread_that_does_not_return_is_acknowledged_and_ended() -> None:
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130
    assert done.stdout.splitlines() == [
        "SIGINT: stopping after this step and saving; press Ctrl-C again to quit without saving",
        "quitting now",
    ]
    assert done.stderr == ""
