"""Trainings that start from a detector, and runs that are continued for another length."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from retinanet.config.load import load_config
from retinanet.config.schema import Config
from retinanet.errors import ConfigError
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.metric_rows import read_rows
from retinanet.training.continuation import describe_new_length
from retinanet.training.engine import run_training
from retinanet.training.optim import build_plan, lr_at

Tiny = Callable[..., Config]
LAST = Path("checkpoints") / "last.pt"


def weights(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / LAST).model


@pytest.fixture
def detector(trained: Path, tmp_path: Path) -> Path:
    """A copy of a trained detector, which a test may delete."""
    path = tmp_path / "detector.pt"
    path.write_bytes((trained / LAST).read_bytes())
    return path


@pytest.mark.slow
def test_a_training_starts_from_a_detector_and_goes_on_without_its_file(
    tiny: Tiny, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"model.weights={detector}", "model.frozen=[backbone, fpn]", "schedule.iterations=1")
    theirs = load_checkpoint(detector).weights()
    run_training(tiny(*words), tmp_path / "run")
    out = capsys.readouterr().out
    assert f"start from {detector}" in out
    for row in ("backbone", "class subnet", "class output", "box subnet"):
        assert f"\n  {row} " in out
    assert "3 of 3 classes  loaded: " in out
    kept = [name for name in theirs if name.startswith(("backbone.", "fpn."))]
    assert all(torch.equal(weights(tmp_path / "run")[name], theirs[name]) for name in kept)
    assert not torch.equal(weights(tmp_path / "run")["box_head.predict.bias"], theirs["box_head.predict.bias"])
    saved = load_config(tmp_path / "run" / "config.yaml", [])
    assert saved.model.weights == str(detector)
    detector.unlink()
    run_training(tiny(*words[:2], "schedule.iterations=2"), tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run" / LAST).progress.step == 2


@pytest.mark.slow
def test_a_detector_that_cannot_be_used_leaves_the_old_run(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_training(tiny("schedule.iterations=1"), run)
    before = (run / LAST).read_bytes()
    with pytest.raises(ConfigError, match=r"model\.fpn\.channels: 64 in the detector, 32 in the config"):
        run_training(tiny(f"model.weights={trained / LAST}", "model.fpn.channels=32"), run, overwrite=True)
    assert (run / LAST).read_bytes() == before


@pytest.mark.slow
def test_a_finished_run_goes_on_for_a_longer_schedule(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ("schedule.shape=cosine", "schedule.ema=0.9")
    run_training(tiny(*words, "schedule.iterations=4"), run)
    capsys.readouterr()
    run_training(tiny(*words, "schedule.iterations=8"), run, resume=True)
    lr = lr_at(4, build_plan(tiny(*words, "schedule.iterations=8").schedule, 12))
    assert f"the learning rate here was 0 and is now {lr:.3g} (its cosine is recomputed" in capsys.readouterr().out
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == [*range(1, 9)]
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [4, 8], "that of the old end is kept"
    rates = [row["lr"] for row in rows if row["kind"] == "train"]
    assert rates[4] == lr > rates[3]
    with pytest.raises(ConfigError, match=r"5 steps, but the run in .* has already made 8"):
        run_training(tiny(*words, "schedule.iterations=5"), run, resume=True)


def test_other_differences_name_the_way_to_a_new_run(tiny: Tiny, trained: Path) -> None:
    words = ("schedule.ema=0.9", "schedule.iterations=3")
    with pytest.raises(ConfigError) as caught:
        run_training(tiny(*words, "schedule.momentum=0.5"), trained, resume=True)
    assert "(1 error)" in str(caught.value)
    assert f"A new run can start from its weights: model.weights={trained / LAST}" in str(caught.value)


def described(before: Config, after: Config, step: int) -> str | None:
    return describe_new_length(before, after, (build_plan(before.schedule, 12), build_plan(after.schedule, 12)), step)


def test_what_the_learning_rate_does_is_described(tiny: Tiny) -> None:
    short, long = (tiny(f"schedule.iterations={steps}", "schedule.warmup=0") for steps in (4, 1))
    assert described(short, short, 4) is None
    assert described(long, short, 1) == (
        "continued at step 1 for 4 steps instead of 1 step; the learning rate here stays 0.01 (it is constant)"
    )
    steps = tiny("schedule.epochs=2", "schedule.shape=steps", "schedule.milestones=[1]", "schedule.warmup=0")
    later = tiny("schedule.epochs=4", "schedule.shape=steps", "schedule.milestones=[3]", "schedule.warmup=0")
    text = described(steps, later, 6)
    assert text is not None
    assert "for 4 epochs (12 steps) instead of 2 epochs (6 steps)" in text
    assert "was 0.001 and is now 0.01 (0 of its milestones [9] are passed)" in text


@pytest.mark.slow
def test_torchvisions_v2_with_91_outputs_starts_a_training_of_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = torchvision.models.detection.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "model_3.pth")
    root = tmp_path / "shapes"
    generate_shapes(root, train_images=2, val_images=1, size=(64, 64), seed=3)
    path = tmp_path / "own.yaml"
    lines = [f"{split}_annotations: annotations/{split}.json, {split}_images: {split}" for split in ("train", "val")]
    path.write_text(
        f"data: {{root: {root}, {', '.join(lines)}, canvas: [64, 64], workers: 0}}\n"
        "schedule: {iterations: 1, batch_size: 2, reference_batch: 2, warmup: 0, lr: 0.0001, milestones: []}\n"
        "device: cpu\nthreads: 1\nlog: {pictures: 0}\n",
        encoding="utf-8",
    )
    words = [f"model.weights={tmp_path / 'model_3.pth'}", "model.backbone.norm=frozen_bn"]
    run_training(load_config(path, words), tmp_path / "run")
    out = capsys.readouterr().out
    assert "format torchvision_v2" in out
    assert "0 of 3 classes" in out
    assert "new, from the prior: " in out
    assert load_checkpoint(tmp_path / "run" / LAST).config.model.head.norm == "gn"
