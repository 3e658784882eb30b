"""Claims: one owner at a time, stale ones taken over once, heartbeats kept."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.ablation import claims
from retinanet.ablation.claims import claim_path, kept, live_owner, owner_of, release, take


def put(folder: Path, host: str, pid: int, age: float = 0.0) -> Path:
    """A claim of somebody else."""
    path = claim_path(folder, "cell")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": pid, "token": "theirs"}), encoding="utf-8")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.fixture
def dead_pid() -> int:
    """Of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_claim_is_taken_once_and_given_back(tmp_path: Path) -> None:
    assert live_owner(tmp_path, "cell") is None
    claim = take(tmp_path, "cell")
    assert claim is not None
    assert claim.notice == ""
    owner = live_owner(tmp_path, "cell")
    assert owner is not None
    assert (owner.pid, owner.host) == (os.getpid(), os.uname().nodename)
    assert take(tmp_path, "cell") is None
    assert take(tmp_path, "other") is not None
    release(claim)
    release(claim)
    assert owner_of(tmp_path, "cell") is None
    assert take(tmp_path, "cell") is not None


def test_a_claim_of_a_process_that_is_gone_is_taken_over(tmp_path: Path, dead_pid: int) -> None:
    put(tmp_path, os.uname().nodename, dead_pid)
    assert live_owner(tmp_path, "cell") is None
    claim = take(tmp_path, "cell")
    assert claim is not None
    assert f"taking over from process {dead_pid}" in claim.notice
    assert [path.name for path in (tmp_path / "claims").iterdir() if not path.name.startswith(".")] == ["cell.json"]


def test_another_machines_claim_counts_by_its_heartbeat(tmp_path: Path, dead_pid: int) -> None:
    put(tmp_path, "elsewhere", dead_pid, age=60)
    assert take(tmp_path, "cell") is None
    put(tmp_path, "elsewhere", dead_pid, age=claims.STALE_SECONDS + 5)
    claim = take(tmp_path, "cell")
    assert claim is not None
    assert "on elsewhere, last heard of 155 s ago" in claim.notice


def test_a_torn_claim_is_nobodys_once_it_is_old(tmp_path: Path) -> None:
    path = put(tmp_path, "x", 1)
    path.write_text("{", encoding="utf-8")
    assert take(tmp_path, "cell") is None
    os.utime(path, (1, 1))
    assert take(tmp_path, "cell") is not None


def test_giving_back_leaves_anothers_claim(tmp_path: Path) -> None:
    claim = take(tmp_path, "cell")
    assert claim is not None
    put(tmp_path, "elsewhere", 1)
    release(claim)
    owner = owner_of(tmp_path, "cell")
    assert owner is not None
    assert owner.token == "theirs"


def race(folder: Path, ready: float, won: "multiprocessing.Queue[int]") -> None:
    time.sleep(max(0.0, ready - time.time()))
    won.put(take(folder, "cell") is not None)
    # The winner stays alive until all have tried.
    time.sleep(1.0)


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_try_at_once_one_wins(tmp_path: Path, dead_pid: int, stale: bool) -> None:
    if stale:
        put(tmp_path, os.uname().nodename, dead_pid)
    context = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[int] = context.Queue()
    ready = time.time() + 0.3
    tries = [context.Process(target=race, args=(tmp_path, ready, won)) for _ in range(8)]
    for one in tries:
        one.start()
    assert sum(won.get(timeout=20) for _ in tries) == 1
    for one in tries:
        one.join()


def test_a_kept_claim_beats_and_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.1)
    claim = take(tmp_path, "cell")
    assert claim is not None
    with kept(claim):
        os.utime(claim.path, (1, 1))
        deadline = time.monotonic() + 5
        while claim.path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert claim.path.stat().st_mtime > time.time() - 60
    assert not claim.path.exists()


HOLD = """
import sys, time
from pathlib import Path
from retinanet.ablation import claims
claims.POLL_SECONDS, claims.HEARTBEAT_SECONDS = 0.05, 0.1
claim = claims.take(Path(sys.argv[1]), "cell")
with claims.kept(claim, int(sys.argv[2])):
    print("held", flush=True)
    time.sleep(30)
"""


def test_a_process_whose_claim_is_anothers_stops(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PROJECT)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        put(tmp_path, "elsewhere", 1)
        assert process.wait(10) == -signal.SIGTERM


def test_a_process_whose_runner_is_gone_stops(tmp_path: Path, dead_pid: int) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), str(dead_pid)]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}, timeout=20, check=False
    )
    assert done.returncode == -signal.SIGTERM
