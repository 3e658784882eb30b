"""`--dry-run` and the measured pace that it and a study's estimate rest on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from retinanet.config.schema import Config
from retinanet.diagnostics.dry_run import count_flops, count_parameters, describe_count, describe_disk, report_dry_run
from retinanet.diagnostics.pace import (
    Pace,
    build_short_config,
    count_images,
    estimate_duration,
    measure_pace,
)
from retinanet.errors import DataError, ResourceError

Tiny = Callable[..., Config]
PACE = Pace(step=0.5, image=0.1, memory_mb=100.0, checkpoint_bytes=3_000_000, positives_per_image=4.0)


@pytest.mark.parametrize(
    ("overrides", "steps", "evaluations"),
    [
        (("schedule.iterations=100", "eval.every=0"), 100, 1),
        (("schedule.iterations=100", "eval.every=30", "eval.unit=steps"), 100, 4),
        (("schedule.epochs=10", "eval.every=2"), 30, 5),
        (("schedule.epochs=10", "eval.every=3"), 30, 4),
    ],
)
def test_a_duration_by_hand(tiny: Tiny, overrides: tuple[str, ...], steps: int, evaluations: int) -> None:
    found = estimate_duration(tiny(*overrides), PACE, train_images=12, val_images=6)
    assert found.steps == steps
    assert found.training == pytest.approx(0.5 * steps)
    assert found.evaluation == pytest.approx(0.1 * 6 * evaluations)
    assert found.total() == pytest.approx(found.training + found.evaluation)


def test_a_short_run_keeps_the_batch_and_the_rate_of_the_whole(tiny: Tiny) -> None:
    config = tiny("schedule.batch_size=2", "schedule.epochs=9", "schedule.early_stop=2", "output=x")
    short = build_short_config(config)
    assert (short.schedule.batch_size, short.schedule.lr) == (2, config.schedule.lr)
    assert (short.schedule.epochs, short.schedule.iterations, short.schedule.early_stop) == (None, 6, None)
    assert (short.data.limit, short.output, short.log.every) == (32, None, 1)


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="no list `images`"):
        count_images(tmp_path / "a.json", None)


def test_flops_and_parameters_of_a_network_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False))
    assert count_parameters(network) == 3 * 8 * 9 + 8 + 8 * 4
    assert count_flops(network, (32, 64)) == 2 * (16 * 32) * (3 * 8 * 9 + 8 * 4)


@pytest.mark.parametrize(("count", "text"), [(950, "950"), (12_345, "12.3 k"), (37_900_000, "37.9 M")])
def test_counts_as_text(count: int, text: str) -> None:
    assert describe_count(count) == text


def test_a_full_disk_is_called_one(tmp_path: Path) -> None:
    assert "3 MB for checkpoints" in describe_disk(PACE, tmp_path / "runs" / "x")
    assert describe_disk(PACE._replace(checkpoint_bytes=10**18), tmp_path).endswith("output=PATH")


@pytest.mark.slow
def test_the_measured_pace_is_that_of_real_steps(tiny: Tiny, tmp_path: Path) -> None:
    pace = measure_pace(tiny("schedule.batch_size=2"), tmp_path / "run")
    assert 0 < pace.step < 10
    assert 0 < pace.image < 10
    assert pace.positives_per_image > 0
    last, best = (tmp_path / "run" / "checkpoints" / f"{name}.pt" for name in ("last", "best"))
    assert pace.checkpoint_bytes == 2 * last.stat().st_size + 2 * best.stat().st_size


@pytest.mark.slow
def test_a_dry_run_prints_what_fits_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    config = tiny("schedule.epochs=auto", "schedule.warmup=5000", "eval.every=auto")
    monkeypatch.chdir(tmp_path)
    report_dry_run(config, Path("run"))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for name in ("network", "FLOPs", "anchors", "positives", "step", "time", "memory", "disk"):
        assert f"\n{name} " in f"\n{out}"
    flat = " ".join(out.split())
    assert "12 training images, 6 validation images" in flat
    assert "1,038 steps (346 epochs)" in flat, "12 + 4000 / 12 epochs of three steps"
    assert "auto for 12 images: epochs=346" in flat
    assert "warmup takes 5000 of the 1038 steps" in flat
    assert not (tmp_path / "run").exists()
    assert torch.is_grad_enabled()


def test_a_full_temporary_folder_is_answered_with_the_variable_that_moves_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_config: Config, folder: Path) -> Pace:
        raise ResourceError(f"{folder}/last.pt: cannot be written (No space left on device); write to output=FOLDER.")

    monkeypatch.setattr("retinanet.diagnostics.dry_run.measure_pace", full)
    with pytest.raises(ResourceError, match=r"No space left on device\)\. Set .*TMPDIR") as caught:
        report_dry_run(tiny(), tmp_path)
    assert "output=" not in str(caught.value)
