"""Shared fixtures: a tiny generated data set, a config that trains on it in seconds, and the command lines."""

import gc
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from forked_tools import SMALL_NETWORK, ForkedTool, ToolServer
from places import PROJECT

from retinanet.config.load import load_config
from retinanet.config.schema import Config
from retinanet.prepare.shapes import generate_shapes

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu.numerics import Setting

TINY_YAML = """
data:
  root: {root}
  train_annotations: annotations/train.json
  train_images: train
  val_annotations: annotations/val.json
  val_images: val
  canvas: [64, 64]
  workers: 0
model:
  backbone: {{name: mobilenet_v2, weights: none, norm: gn, frozen_stages: 0}}
  fpn: {{channels: 64}}
  head: {{depth: 1, norm: gn}}
  anchors: {{sizes: [8, 16, 32, 64, 128]}}
schedule:
  iterations: 6
  batch_size: 4
  reference_batch: 4
  optimizer: sgd
  lr: 0.01
  warmup: 2
  shape: constant
eval: {{every: 0, score_threshold: 0.0, detections: 20, topk: 100}}
log: {{every: 1, save_every: 100, pictures: 0}}
device: cpu
threads: 1
"""


class Outcome(NamedTuple):
    """What a command line gave back."""

    code: int
    out: str
    err: str


LONGEST_FIRST = (
    *("export/test_onnx.py", "export/test_pt2.py", "benchmarks/test_benchmarks_run.py", "training/test_lost_ranks.py"),
    *("training/test_ranks.py", "training/test_resume.py", "ablation/test_runner.py", "test_notebook.py"),
    *("test_compile.py", "interop/test_torchvision_parity.py", "benchmarks/test_gpu_scripts.py", "test_site.py"),
    *("commands/test_command.py", "training/test_engine.py", "commands/test_tools.py", "scoring/test_real_pairs.py"),
    *("diagnostics/compare/test_compare_brute_force.py", "interop/test_converted_detections.py"),
    *("losses/test_fused.py", "interop/test_recipes.py", "training/test_starting.py"),
)
"""Files of many seconds, in the order in which they start, so that no process of several works alone at the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {PROJECT / "tests" / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not visit torch's objects again and again, nor run often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def cheap_runs() -> Iterator[None]:
    """Within this process, runs draw no curves.png, a third of what a short one costs (see `real_curves`), the network
    of the tiny config is small, and writing does not wait for the disk."""
    from small_networks import small_if_tiny

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        patch.setattr("retinanet.build.network.build_backbone", small_if_tiny)
        patch.setattr("retinanet.training.loop.draw_run_curves", lambda _folder: None)
        yield


@pytest.fixture(scope="module")
def real_curves() -> Iterator[None]:
    """Runs draw curves.png, as a user's do."""
    from retinanet.run.pictures import draw_run_curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinanet.training.loop.draw_run_curves", draw_run_curves)
        yield


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """Within this process, backbones have five convolutions, whatever a config names.

    Not together with `trained_resnet`, which could be made meanwhile.
    """
    from small_networks import small_backbone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinanet.build.network.build_backbone", small_backbone)
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 training and 6 validation scenes of 64 x 64 pixels; read only."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    generate_shapes(folder, train_images=12, val_images=6, size=(64, 64), seed=3)
    return folder


@pytest.fixture(scope="session")
def tiny_yaml(shapes: Path) -> Path:
    """A config file that trains six steps on `shapes` in half a second; its network is `small_networks`' here."""
    path = shapes.parent / "tiny.yaml"
    path.write_text(TINY_YAML.format(root=shapes), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny(tiny_yaml: Path) -> Callable[..., Config]:
    """tiny("key=value", ...) is the tiny config with overrides."""
    return lambda *overrides: load_config(tiny_yaml, list(overrides))


@pytest.fixture(scope="session")
def trained(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two steps with a moving average; read only."""
    from retinanet.training.engine import run_training

    folder = tmp_path_factory.mktemp("trained") / "run"
    run_training(tiny("schedule.iterations=2", "schedule.ema=0.9"), folder)
    return folder


@pytest.fixture(scope="session")
def trained_resnet(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `trained`, but a ResNet-18, which has found an object after two steps; read only."""
    from retinanet.training.engine import run_training

    folder = tmp_path_factory.mktemp("trained_resnet") / "run"
    run_training(tiny("schedule.iterations=2", "schedule.ema=0.9", "model.backbone.name=resnet18"), folder)
    return folder


@pytest.fixture
def device() -> Iterator["torch.device"]:
    """The GPU, for tests/gpu, which are skipped without one.

    RETINANET_GPU_TESTS=cpu gives the CPU instead: that finds mistakes in these tests, not in the CUDA path.
    """
    import torch

    if os.environ.get("RETINANET_GPU_TESTS") != "cpu" and not torch.cuda.is_available():
        pytest.skip("no GPU here; RETINANET_GPU_TESTS=cpu tries these tests' own code on the CPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # is read at the first product
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    yield torch.device("cpu") if os.environ.get("RETINANET_GPU_TESTS") == "cpu" else torch.device("cuda", 0)
    cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before
    torch.use_deterministic_algorithms(was_deterministic, warn_only=True)


@pytest.fixture
def setting(device: "torch.device") -> "Setting":
    """What `benchmarks.gpu.numerics` compares with the CPU."""
    from benchmarks.gpu.numerics import Checks, Setting

    return Setting(device=device, canvas=(64, 96), images=2, checks=Checks())


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """tool("train.py", argument, ...) runs a command line within this process, which saves importing torch."""

    def call(name: str, *arguments: object) -> Outcome:
        path = PROJECT / "tools" / name
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        out, err = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture(scope="session")
def tool_environment() -> dict[str, str]:
    """What a tool's process sees: one thread, this source tree, from whatever folder it runs in, a small network."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "COLUMNS": "120", SMALL_NETWORK: "1"}


@pytest.fixture(scope="session")
def tool_server(tool_environment: dict[str, str]) -> Iterator[ToolServer]:
    """Processes that have imported torch; see ToolServer."""
    server = ToolServer(tool_environment)
    yield server
    server.close()


@pytest.fixture
def start_tool(tool_server: ToolServer) -> Callable[..., ForkedTool]:
    """start_tool("train.py", argument, ...) starts retinanet train in a process of its own; see ToolServer.start."""
    return tool_server.start


@pytest.fixture
def warm_python(tool_server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python that has imported torch, as sys.executable, for what starts processes itself; see ToolServer.python."""
    monkeypatch.setattr(sys, "executable", tool_server.python)
    return tool_server.python
