"""A study on a Ray cluster: shares, nodes that die, signals; without Ray, everything that a stand-in of it can show."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from places import PROJECT

from retinanet.ablation import node as node_module
from retinanet.ablation.ablate import report, run_one
from retinanet.ablation.cells import cell_folder, list_cells, read_record
from retinanet.ablation.cluster import Cluster, RayNodes, RayProcess, connected
from retinanet.ablation.node import CellOnNode
from retinanet.ablation.placement import Ended
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_folder import log_path, prepare_study, study_file
from retinanet.errors import ConfigError, DataError, ResourceError
from retinanet.model.backbone import build_backbone
from retinanet.run.checkpoint import load_checkpoint

STUDY = """
base: {base}
overrides: {{log.pictures: 0, log.save_every: 2, schedule.ema: 0.9}}
arms:
  - {{name: FL}}
  - {{name: CE, overrides: {{loss.classification.kind: cross_entropy}}}}
reference: FL
seeds: [0]
budget: {{iterations: {steps}}}
output: {output}
"""
STEPS = 16
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(steps) writes a study of two cells and returns its file."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))

    def make(steps: int = STEPS) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(STUDY.format(base=tiny_yaml, steps=steps, output=tmp_path / "out"), encoding="utf-8")
        return path

    return make


def wait_for(what: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


# With Ray


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed; needs `pip install -e .[cluster]`"
)


@contextmanager
def ray_nodes(*cpus: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """(address, kill): a cluster with nodes of these numbers of CPUs; `kill` kills the last one."""
    command = [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), *map(str, cpus)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def kill() -> None:
            assert process.stdin is not None
            process.stdin.write("kill\n")
            process.stdin.flush()

        try:
            yield process.stdout.readline().strip(), kill
        finally:
            process.stdin.close()


def ablate(study: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "retinanet", "ablate", str(study), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def is_training(study: Study, cell: str) -> bool:
    return (study.folder / "cells" / cell / "checkpoints" / "last.pt").exists()


def tables(folder: Path) -> dict[str, str]:
    """The report's tables, without the time that a cell took."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in (folder / "report").glob("*.csv")}
    header = texts["cells.csv"].splitlines()[0].split(",")
    rows = [line.split(",") for line in texts["cells.csv"].splitlines()]
    return texts | {"cells.csv": str([row[: header.index("seconds")] + row[header.index("AP") :] for row in rows])}


@needs_ray
@pytest.mark.slow
def test_a_study_of_which_a_node_dies_ends_with_the_table_of_an_undisturbed_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinanet.build.network.build_backbone", build_backbone)  # nodes have no small network
    path = make()
    study, alone = load_study(path), load_study(path, [f"output={tmp_path / 'alone'}"])
    for cell in list_cells(alone):
        run_one(alone, cell.name)
    report(alone)
    with ray_nodes(1, 1) as (address, kill), ablate(path, "--ray", address) as process:
        wait_for(lambda: is_training(study, "FL-seed0") and is_training(study, "CE-seed0"))
        kill()
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out
    assert "Ray: 2 nodes, room for 2 cells of 1 CPU each" in out
    lost = re.findall(r"(\S+) on \S+: lost the node; the cell continues from its last checkpoint\n", out)
    assert len(lost) == 1
    assert f"continue {lost[0]} on " in out
    assert "Raylet" not in out
    assert tables(study.folder) == tables(alone.folder)
    text = log_path(study.folder, lost[0]).read_text(encoding="utf-8")
    steps = [int(step) for step in re.findall(r"^step +(\d+)/", text, re.MULTILINE)]
    assert len(steps) - len(set(steps)) <= 2, "at most one save interval is trained again"


@needs_ray
@pytest.mark.slow
def test_ctrl_c_saves_the_cells_on_their_nodes(make: Make) -> None:
    path = make(2000)
    study = load_study(path)
    with ray_nodes(1) as (address, _), ablate(path, "--ray", address) as process:
        wait_for(lambda: is_training(study, "FL-seed0"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 130, out
        assert "stopping: waiting for FL-seed0 to save" in out
        assert "Continue with the same command and --resume" in out
        log = log_path(study.folder, "FL-seed0").read_text(encoding="utf-8")
        saved = re.search(r"Interrupted by SIGINT. Saved step (\d+) of", log)
        assert saved is not None, log
        assert load_checkpoint(
            cell_folder(study, list_cells(study)[0]) / "checkpoints" / "last.pt"
        ).progress.step == int(saved[1])
        assert read_record(study.folder, "FL-seed0") is None


# With a stand-in


class TaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class ActorError(Exception):
    actor_init_failed = False


class DiedError(ActorError):
    """The actor is gone."""


class UnavailableError(ActorError):
    """The actor may come back."""


class ImportFailedError(ActorError):
    actor_init_failed = True


class MemoryShortError(Exception):
    """Ray's own, not Python's."""


class Ray:
    """A stand-in: results are put by the test, as values or errors."""

    exceptions = SimpleNamespace(
        RayError=Exception,
        RayTaskError=TaskError,
        RayActorError=ActorError,
        ActorUnavailableError=UnavailableError,
        OutOfMemoryError=MemoryShortError,
    )

    def __init__(self, *nodes: dict[str, float]) -> None:
        self.results: dict[str, Any] = {}
        self.calls: list[str] = []
        self.killed = 0
        self._nodes = nodes

    def nodes(self) -> list[dict[str, Any]]:
        alive = [{"Alive": True, "Resources": node} for node in self._nodes]
        return [*alive, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]

    def cluster_resources(self) -> dict[str, float]:
        return {kind: sum(node.get(kind, 0.0) for node in self._nodes) for kind in ("CPU", "GPU")}

    def wait(self, results: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert timeout == 0
        return [name for name in results if name in self.results], []

    def get(self, name: str) -> Any:
        found = self.results[name]
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def method(self, name: str) -> SimpleNamespace:
        def remote(*arguments: Any) -> str:
            self.calls.append(name)
            return f"{name} {self.calls.count(name)}"

        return SimpleNamespace(remote=remote)

    def process(self) -> RayProcess:
        actor = SimpleNamespace(**{name: self.method(name) for name in ("begin", "wait", "send_signal")})
        return RayProcess(self, actor, {})


def test_a_cell_waits_runs_and_ends() -> None:
    ray = Ray()
    process = ray.process()
    assert (process.location(), process.poll()) == (None, None)
    ray.results["begin 1"] = " on node3"
    assert (process.location(), process.poll()) == (" on node3", None)
    process.send_signal(signal.SIGINT)
    assert ray.calls == ["begin", "wait", "send_signal"]
    assert ray.killed == 0
    ray.results["wait 1"] = 130
    assert process.poll() == Ended(130)
    assert ray.killed == 1, "its share of the node is free again"


def test_a_cell_that_waits_is_withdrawn() -> None:
    ray = Ray()
    process = ray.process()
    process.send_signal(signal.SIGINT)
    assert (ray.killed, process.poll()) == (1, Ended(None))


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (DiedError("first\nThe node died.\n"), Ended(None, "The node died")),
        (TaskError(DataError("node a has no study")), Ended(1, "node a has no study")),
        (
            MemoryShortError(),
            Ended(1, "Ray ended it because its node ran out of memory; give each cell a larger share"),
        ),
    ],
)
def test_what_goes_wrong_on_a_node(error: Exception, ended: Ended) -> None:
    ray = Ray()
    process = ray.process()
    ray.results |= {"begin 1": error, "wait 1": error}
    assert process.location() is None
    assert process.poll() == ended


def test_a_node_without_this_package_is_named() -> None:
    ray = Ray()
    process = ray.process()
    ray.results["wait 1"] = ImportFailedError("trace\nModuleNotFoundError: No module named 'retinanet'")
    ended = process.poll()
    assert ended is not None
    assert ended.code == 1
    assert ended.reason.startswith("a node cannot import retinanet (ModuleNotFoundError: No module named 'retinanet')")
    assert "[cluster]" in ended.reason


def test_a_broken_connection_is_not_a_lost_node() -> None:
    ray = Ray()
    process = ray.process()
    ray.results |= {"begin 1": " on node3", "wait 1": UnavailableError()}
    assert process.poll() is None
    assert process.poll() is None
    ray.results["wait 2"] = 0
    assert process.poll() == Ended(0)


def cluster(*, jobs: int | None = None, cpus: float | None = None, gpus: float | None = None) -> Cluster:
    return Cluster(address="127.0.0.1:1", jobs=jobs, cpus=cpus, gpus=gpus)


def test_shares_of_nodes(make: Make) -> None:
    study = load_study(make(), ["threads=2", "device=auto"])
    gpu_node = {"CPU": 16.0, "GPU": 2.0}
    nodes = RayNodes(Ray({"CPU": 4.0}), study, cluster())
    assert nodes.describe() == "Ray: 1 node, room for 2 cells of 2 CPU each"
    nodes = RayNodes(Ray(gpu_node, gpu_node), study, cluster())
    assert nodes.describe() == "Ray: 2 nodes, room for 4 cells of 2 CPU and 1 GPU each"
    nodes = RayNodes(Ray(gpu_node, {"CPU": 4.0}), study, cluster(cpus=1, gpus=0.2, jobs=3))
    assert nodes.describe() == "Ray: 2 nodes, room for 10 cells of 1 CPU and 0.2 GPU each"
    assert nodes.has_room(2)
    assert not nodes.has_room(3)
    nodes = RayNodes(Ray(gpu_node), load_study(make(), ["device=cpu"]), cluster(cpus=17))
    assert nodes.describe() == "warning: no node of the cluster has 17 CPU for a cell; cells wait until one joins"


def test_a_wrong_share_or_address_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(make())
    for wrong, part in (
        (cluster(jobs=0), "--jobs 0"),
        (cluster(cpus=0.0), "--cell-cpus 0"),
        (cluster(cpus=float("nan")), "--cell-cpus nan"),
        (cluster(gpus=2.0), "--cell-gpus 2"),
    ):
        with pytest.raises(ConfigError, match=part), connected(study, wrong):
            pass
    # Nobody listens at port 1, and any object can be called Ray until then.
    fake = SimpleNamespace(_private=SimpleNamespace(worker=SimpleNamespace()))
    monkeypatch.setitem(sys.modules, "ray", fake)
    with (
        pytest.raises(ResourceError, match=r"no Ray cluster answers \(.*refused\).*ray start"),
        connected(study, cluster()),
    ):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ResourceError, match=r"Ray is not installed.*\[cluster\]"), connected(study, cluster()):
        pass


def test_the_process_on_a_node(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(make())
    prepare_study(study, resume=False, overwrite=False)
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\ntrap "exit 130" INT\necho "$6 $CUDA_VISIBLE_DEVICES $PWD"\nwhile :; do sleep 0.05; done\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.chdir(PROJECT)
    # A shell's background job ignores SIGINT, and so would the script.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as Ray's threads do
    log = log_path(study.folder, "FL-seed0")
    cell = CellOnNode(str(tmp_path), str(study_file(study.folder)), "FL-seed0", str(log))
    assert cell.begin({}) == f" on {os.uname().nodename}, GPU 1"
    wait_for(lambda: log.read_text(encoding="utf-8") == f"FL-seed0 1 {tmp_path}\n")
    cell.send_signal(signal.SIGINT)
    assert cell.wait("") == 130
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    signal.signal(signal.SIGINT, handler)
    monkeypatch.setattr(node_module, "APPEARS_SECONDS", 0.0)
    with pytest.raises(DataError, match=r"has no .*mounts at the same path"):
        CellOnNode(str(tmp_path), "elsewhere/study.yaml", "FL-seed0", str(log)).begin({})
