"""Ranks that die, hang, see other data or cannot meet are named, with an exit code of their own."""

import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from forked_tools import ForkedTool

from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.folder import RunFolder

Start = Callable[..., ForkedTool]
FOREVER = ("schedule.iterations=100000", "log.save_every=1", "distributed.timeout=3")


class Ended(NamedTuple):
    """How a rank has ended."""

    code: int
    err: str
    seconds: float


class TwoRanks:
    """Two processes of a training that meet at a free port, as a batch system starts them."""

    def __init__(self, start_tool: Start, port: int) -> None:
        self.environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.processes: list[ForkedTool] = []
        self._start_tool = start_tool

    def start(self, rank: int, *words: object) -> None:
        own = {**self.environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        self.processes.append(self._start_tool("train.py", *words, environment=own))

    def wait_for_checkpoint(self, run: Path) -> None:
        deadline = time.monotonic() + 90
        while not RunFolder(run).last.exists():
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes), self.processes[0].communicate(60)[1]
            time.sleep(0.1)

    def end(self, rank: int) -> Ended:
        began = time.monotonic()
        process = self.processes[rank]
        _, err = process.communicate(timeout=60)
        assert process.returncode is not None
        return Ended(process.returncode, err, time.monotonic() - began)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.poll(60)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def ranks(start_tool: Start) -> Iterator[TwoRanks]:
    two = TwoRanks(start_tool, free_port())
    yield two
    two.close()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "what"), [(signal.SIGKILL, "is gone"), (signal.SIGSTOP, "does not answer")])
def test_a_rank_that_dies_or_hangs_is_named(
    number: signal.Signals, what: str, ranks: TwoRanks, tiny_yaml: Path, tmp_path: Path
) -> None:
    for rank in range(2):
        ranks.start(rank, tiny_yaml, *FOREVER, f"output={tmp_path / 'run'}")
    ranks.wait_for_checkpoint(tmp_path / "run")
    os.kill(ranks.processes[1].pid, number)
    ended = ranks.end(0)
    assert ended.code == 9, ended.err
    assert re.search(rf"error: rank 0: rank 1 {what}; .*--resume.* Saved step \d+ of 100000", ended.err)
    assert "Traceback" not in ended.err
    assert ended.seconds < 20
    assert load_checkpoint(tmp_path / "run/checkpoints/last.pt").progress.step > 0


@pytest.mark.slow
def test_a_rank_that_waits_for_a_hanging_one_ends_soon_after_sigterm(
    ranks: TwoRanks, tiny_yaml: Path, tmp_path: Path
) -> None:
    for rank in range(2):
        ranks.start(rank, tiny_yaml, *FOREVER, "distributed.timeout=100", f"output={tmp_path / 'run'}")
    ranks.wait_for_checkpoint(tmp_path / "run")
    os.kill(ranks.processes[1].pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(ranks.processes[0].pid, signal.SIGTERM)
    ended = ranks.end(0)
    assert ended.code == 143
    assert ended.seconds < 12


@pytest.mark.slow
@pytest.mark.parametrize("other", ["data", "config"])
def test_ranks_that_would_train_something_else_are_refused(
    other: str, ranks: TwoRanks, tiny_yaml: Path, shapes: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "shapes"
    shutil.copytree(shapes, copy)
    edit(copy / "annotations/train.json", lambda content: content["annotations"].pop())
    ranks.start(0, tiny_yaml, f"output={tmp_path / 'run'}")
    ranks.start(1, tiny_yaml, f"output={tmp_path / 'run'}", *([f"data.root={copy}"] if other == "data" else ["seed=1"]))
    for rank in range(2):
        ended = ranks.end(rank)
        assert ended.code == 2, ended.err
        what = "rank 1: training data is 12 images with 52 objects .*on rank 0 12 images with 53 objects"
        assert re.search(what if other == "data" else "rank 1: seed is 1, on rank 0 0", ended.err), ended.err
        assert "Start every rank with the same command" in ended.err


@pytest.mark.slow
def test_a_port_in_use_is_named(ranks: TwoRanks, tiny_yaml: Path, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        ranks.environment["MASTER_PORT"] = str(listener.getsockname()[1])
        ranks.start(0, tiny_yaml, f"output={tmp_path / 'run'}")
        ended = ranks.end(0)
    assert ended.code == 6
    assert re.search(
        r"error: rank 0: the 2 processes cannot meet at 127\.0\.0\.1:\d+ \(the port is in use\)", ended.err
    )
    assert "Traceback" not in ended.err


def edit(path: Path, change: Callable[[dict[str, list[object]]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
