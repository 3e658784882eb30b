"""Steps and runs on the GPU: equal to the CPU's up to rounding, and equal to themselves, resumed or not, to the bit."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._dynamo

from benchmarks.gpu.numerics import KINDS, Setting, build, compare_step, compare_two_runs, take_steps
from benchmarks.gpu.resume import compare
from retinanet.config.schema import Config
from retinanet.errors import StoppedByCaller
from retinanet.run.metric_rows import read_rows
from retinanet.training.engine import run_training

Tiny = Callable[..., Config]
# torch names operators that have no deterministic kernel; whether that matters is what these tests find out.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*deterministic")]

STEPS = ("schedule.iterations=4", "schedule.warmup=0", "log.save_every=2", "schedule.ema=0.9")
SMALL = ("model.fpn.channels=32", "model.head.norm=none", "model.head.depth=0", "data.canvas=[64,64]")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_equals_the_cpus(kind: str, setting: Setting) -> None:
    compare_step(setting, kind)
    assert not setting.checks.bad


@pytest.mark.parametrize(("norm", "frozen"), [("frozen_bn", 2), ("bn", 0), ("gn", 0)])
def test_two_runs_are_equal_to_the_bit(norm: str, frozen: int, setting: Setting) -> None:
    compare_two_runs(setting, norm, frozen)
    assert not setting.checks.bad


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-3), ("tf32", 1e-2), ("bfloat16", 5e-2), ("float16", 1e-2)]
)
def test_every_precision_computes_the_loss_of_float32_and_trains(
    precision: str, tolerance: float, setting: Setting
) -> None:
    exact = take_steps(setting, *build(setting, "focal", torch.device("cpu"))[1:])
    _, state, parts = build(setting, "focal", setting.device, precision)  # type: ignore[arg-type]
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    first = take_steps(setting, state, parts)
    assert first["loss"] == pytest.approx(exact["loss"], rel=tolerance)
    later = take_steps(setting, state, parts, 5)
    assert math.isfinite(later["loss"])
    assert later["loss"] < first["loss"]
    assert state.scaler.is_enabled() == (precision == "float16" and setting.device.type == "cuda")
    assert not state.skipped


def train(config: Config, folder: Path, stop_at: int | None = None, resume: bool = False) -> None:
    """A run, which saves and stops after the step `stop_at`."""
    torch._dynamo.reset()  # as in a new process
    if stop_at is None:
        run_training(config, folder, resume=resume)
        return
    with pytest.raises(StoppedByCaller):
        run_training(config, folder, on_row=lambda row: not (row["kind"] == "train" and row["step"] == stop_at))


@pytest.mark.parametrize(
    "words",
    [
        ("precision=bfloat16",),
        ("precision=float16",),
        ("model.backbone.norm=frozen_bn", "model.backbone.frozen_stages=2"),
        ("loss.classification.kind=ohem",),
        ("loss.classification.kind=sampled",),
    ],
    ids=["bfloat16", "float16", "frozen", "ohem", "sampled"],
)
def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(
    words: tuple[str, ...], tiny: Tiny, tmp_path: Path, device: torch.device
) -> None:
    config = tiny(*STEPS, *SMALL, f"device={device.type}", *words)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "resumed", stop_at=3)
    train(config, tmp_path / "resumed", resume=True)
    same, text = compare(tmp_path / "whole", tmp_path / "resumed")
    assert same, text


@pytest.mark.parametrize("words", [("compile=true",), ("compile=true", "precision=bfloat16"), ("compile=graphs",)])
def test_a_compiled_run_equals_the_plain_one_and_itself_resumed(
    words: tuple[str, ...], tiny: Tiny, tmp_path: Path, device: torch.device
) -> None:
    """Replayed CUDA graphs too: a step that read memory of another replay would have another loss or gradient."""
    if device.type == "cpu" and "compile=graphs" in words:
        pytest.skip("CUDA graphs need a GPU")
    config = tiny(*STEPS, *SMALL, f"device={device.type}", "schedule.iterations=8", *words)
    train(config.model_copy(update={"compile": False}), tmp_path / "plain")
    train(config, tmp_path / "whole")
    train(config, tmp_path / "resumed", stop_at=3)
    train(config, tmp_path / "resumed", resume=True)
    same, text = compare(tmp_path / "whole", tmp_path / "resumed")
    assert same, text
    plain, whole = (
        [row for row in read_rows(tmp_path / name / "metrics.jsonl") if row["kind"] == "train"]
        for name in ("plain", "whole")
    )
    tolerance = 5e-2 if config.precision == "bfloat16" else 1e-3
    for row, expected in zip(whole, plain, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=tolerance)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=5 * tolerance)


def test_a_run_of_the_cpu_continues_on_the_gpu(tiny: Tiny, tmp_path: Path, device: torch.device) -> None:
    train(tiny(*STEPS, *SMALL, "device=cpu"), tmp_path / "run", stop_at=2)
    train(tiny(*STEPS, *SMALL, f"device={device.type}"), tmp_path / "run", resume=True)
    train(tiny(*STEPS, *SMALL, "device=cpu"), tmp_path / "whole")
    assert not compare(tmp_path / "run", tmp_path / "whole")[0] or device.type == "cpu"
