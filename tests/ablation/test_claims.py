"""Claims: one owner at a time, dead owners replaced once, heartbeats for owners on other machines."""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.ablation import claims
from retinanet.ablation.claims import claim_path, held, live_owner, owner_of, release, take

DEAD_PID = 99_999_999
"""Above the largest process id of Linux."""

HOLD = """
import sys, time
from pathlib import Path
from retinanet.ablation import claims
claims.POLL_SECONDS, claims.HEARTBEAT_SECONDS = 0.05, 0.1
claim = claims.take(Path(sys.argv[1]), "cell")
with claims.held(claim, int(sys.argv[2])):
    print("held", flush=True)
    time.sleep(30)
"""
Hold = Callable[[int], "subprocess.Popen[bytes]"]


def put(folder: Path, host: str, age: float = 0.0) -> Path:
    """The owner's file of another process."""
    path = claim_path(folder, "cell")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": DEAD_PID, "token": "another"}), encoding="utf-8")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    """hold(runner_pid) starts a process that holds the claim `cell`."""

    def start(runner_pid: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", HOLD, str(tmp_path), str(runner_pid)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)})

    return start


@pytest.mark.slow
def test_a_claim_is_taken_once_and_released(tmp_path: Path) -> None:
    assert live_owner(tmp_path, "cell") is None
    claim = take(tmp_path, "cell")
    assert claim is not None
    assert claim.notice == ""
    owner = live_owner(tmp_path, "cell")
    assert owner is not None
    assert (owner.pid, owner.host) == (os.getpid(), platform.node())
    assert take(tmp_path, "cell") is None
    assert take(tmp_path, "other") is not None
    release(claim)
    release(claim)
    assert owner_of(tmp_path, "cell") is None
    assert take(tmp_path, "cell") is not None


def test_the_claim_of_a_process_that_has_ended_is_replaced(tmp_path: Path) -> None:
    put(tmp_path, platform.node())
    assert live_owner(tmp_path, "cell") is None
    claim = take(tmp_path, "cell")
    assert claim is not None
    assert f"cell: replaces process {DEAD_PID}" in claim.notice
    assert [path.name for path in (tmp_path / "claims").glob("*.json*")] == ["cell.json"]


@pytest.mark.slow
def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path, hold: Hold) -> None:
    with hold(os.getpid()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        owner = live_owner(tmp_path, "cell")
        assert owner is not None
        assert owner.pid == process.pid
        assert take(tmp_path, "cell") is None
        process.kill()
        process.wait()
    assert live_owner(tmp_path, "cell") is None
    assert take(tmp_path, "cell") is not None


def test_a_claim_of_another_machine_counts_by_its_heartbeat(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere", age=60)
    assert live_owner(tmp_path, "cell") is not None
    assert take(tmp_path, "cell") is None
    put(tmp_path, "elsewhere", age=claims.STALE_SECONDS + 5)
    assert live_owner(tmp_path, "cell") is None
    claim = take(tmp_path, "cell")
    assert claim is not None
    assert "on elsewhere, last seen 155 s ago" in claim.notice


def test_an_unreadable_claim_is_replaced_once_it_is_old(tmp_path: Path) -> None:
    path = put(tmp_path, "x")
    path.write_text("{", encoding="utf-8")
    assert take(tmp_path, "cell") is None
    os.utime(path, (1, 1))
    assert take(tmp_path, "cell") is not None


def test_releasing_leaves_the_claim_of_another_process(tmp_path: Path) -> None:
    claim = take(tmp_path, "cell")
    assert claim is not None
    put(tmp_path, "elsewhere")
    release(claim)
    owner = owner_of(tmp_path, "cell")
    assert owner is not None
    assert owner.token == "another"


def race(folder: Path, start: Barrier, won: "multiprocessing.Queue[int]", all_tried: Barrier) -> None:
    """Try once, at the same moment as the others."""
    start.wait()
    claim = take(folder, "cell")
    won.put(claim is not None)
    # The winner holds its claim until all have tried.
    all_tried.wait()


@pytest.mark.slow
@pytest.mark.parametrize("dead_owner", [False, True])
def test_of_many_that_try_at_once_one_wins(tmp_path: Path, dead_owner: bool) -> None:
    if dead_owner:
        put(tmp_path, platform.node())
    context = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = context.Queue()
    start, all_tried = context.Barrier(8), context.Barrier(8)
    tries = [context.Process(target=race, args=(tmp_path, start, won, all_tried)) for _ in range(8)]
    for one in tries:
        one.start()
    assert sum(won.get(timeout=60) for _ in tries) == 1
    for one in tries:
        one.join()


def test_a_held_claim_is_renewed_and_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.1)
    claim = take(tmp_path, "cell")
    assert claim is not None
    with held(claim):
        os.utime(claim.path, (1, 1))
        deadline = time.monotonic() + 5
        while claim.path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert claim.path.stat().st_mtime > time.time() - 60
    assert not claim.path.exists()


def test_a_process_whose_claim_was_replaced_stops(tmp_path: Path, hold: Hold) -> None:
    with hold(os.getpid()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        put(tmp_path, "elsewhere")
        assert process.wait(10) == -signal.SIGTERM


def test_a_process_whose_runner_has_ended_stops(hold: Hold) -> None:
    with hold(DEAD_PID) as process:
        assert process.wait(20) == -signal.SIGTERM
