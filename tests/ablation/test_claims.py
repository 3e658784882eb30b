"""Claims: one process at a time, free again however it ends; and cells that end with their runner."""

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.ablation.cell_process import RUNNER_VARIABLE
from retinanet.ablation.claims import ClaimTaken, all_owners, claim_owner, claimed

DEAD_PID = 99_999_999
"""Above the largest process id of Linux."""
HOLD = """
import sys, time
from pathlib import Path
from retinanet.ablation import cell_process
from retinanet.ablation.claims import claimed
cell_process.POLL_SECONDS = 0.05
cell_process.stop_with_runner()
with claimed(Path(sys.argv[1]), "cell-lr0.01"):
    print("held", flush=True)
    time.sleep(30)
"""
Hold = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    """hold(variable=value) starts a process that holds the claim `cell-lr0.01`."""

    def start(**variables: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), **variables}
        return subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=environment)

    return start


def test_a_claim_is_held_once_and_released(tmp_path: Path) -> None:
    assert claim_owner(tmp_path, "cell") == ""
    with claimed(tmp_path, "cell"), claimed(tmp_path, "other"):
        assert claim_owner(tmp_path, "cell") == f"process {os.getpid()} on {platform.node()}"
        with (
            pytest.raises(ClaimTaken, match=f"cell is being run by process {os.getpid()} on "),
            claimed(tmp_path, "cell"),
        ):
            pass
        assert list(all_owners(tmp_path)) == ["cell", "other"]
    assert claim_owner(tmp_path, "cell") == ""
    with claimed(tmp_path, "cell"):
        pass


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path, hold: Hold) -> None:
    with hold() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert all_owners(tmp_path) == {"cell-lr0.01": f"process {process.pid} on {platform.node()}"}
        with pytest.raises(ClaimTaken), claimed(tmp_path, "cell-lr0.01"):
            pass
        process.kill()
        process.wait()
    assert all_owners(tmp_path) == {}
    with claimed(tmp_path, "cell-lr0.01"):
        pass


def test_a_process_whose_runner_has_ended_stops(hold: Hold) -> None:
    with hold(**{RUNNER_VARIABLE: str(DEAD_PID)}) as process:
        assert process.wait(20) == -signal.SIGTERM
