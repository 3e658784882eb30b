"""A file that cannot be written is named with the space it needs, nothing is left of it, and the run can go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from limited_files import largest_file

from retinanet.config.schema import Config
from retinanet.display.drawing import save_picture
from retinanet.errors import ResourceError
from retinanet.interop.weights_file import write_state
from retinanet.run.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from retinanet.run.metric_rows import read_rows
from retinanet.run.metrics import MetricsLog
from retinanet.run.published import write_inference_checkpoint
from retinanet.structures import Category
from retinanet.training.engine import run_training

WEIGHTS = {"weight": torch.ones(250_000)}


def checkpoint() -> Checkpoint:
    return Checkpoint(config=Config(), categories=(Category(1, "a"),), progress=Progress(step=3), model=WEIGHTS)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "last.pt": lambda path: save_checkpoint(path, checkpoint()),
    "weights.safetensors": lambda path: write_inference_checkpoint(path, checkpoint()),
    "converted.pth": lambda path: write_state(path, WEIGHTS),
}


@pytest.mark.parametrize("most", [0, 100, 600_000, 999_999])
@pytest.mark.parametrize("name", WRITERS)
def test_weights_are_written_whole_or_not_at_all(name: str, most: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with (
        pytest.raises(ResourceError, match=rf"{name}: cannot be written \(File too large\); raise .+$"),
        largest_file(most),
    ):
        WRITERS[name](path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_a_full_disk_is_described_with_the_space_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def save_to_a_full_disk(content: object, _: object) -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            save(content, file)

    monkeypatch.setattr(torch, "save", save_to_a_full_disk)
    with pytest.raises(ResourceError, match=r"on device: the new file needs 1\.0 MB, [\d,.]+ MB are free\); free some"):
        save_checkpoint(tmp_path / "last.pt", checkpoint())
    assert not list(tmp_path.iterdir())


def test_a_picture_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(ResourceError, match=r"a\.png: cannot be written \(File too large\)"), largest_file(1000):
        save_picture(tmp_path / "a.png", noise)
    assert not list(tmp_path.iterdir())


def test_of_a_row_that_does_not_fit_nothing_is_written(tmp_path: Path) -> None:
    """The log is closed without a second error."""
    log = MetricsLog(tmp_path, resume_step=None, tensorboard=False, total_steps=9, terminal=False)
    log.train(1, 0.1, {"loss": 1.0}, {})
    most = (tmp_path / "metrics.jsonl").stat().st_size + 20
    with pytest.raises(ResourceError, match=r"metrics\.jsonl: cannot be written \(File too large\); raise"), log:
        failing(most, lambda: log.train(2, 0.2, {"loss": 1.0}, {}))
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1]


@pytest.mark.slow
def test_events_that_do_not_fit_are_named(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resume_step=None, total_steps=9, terminal=False)
    log.train(1, 0.1, {"loss": 1.0}, {})
    most = next((tmp_path / "tensorboard").iterdir()).stat().st_size + 100
    log.image(1, "noise", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(ResourceError, match=r"tensorboard: cannot be written \(File too large\); raise"), log:
        failing(most, lambda: log.evaluation(1, {"AP": 0.5}, {}))


def failing(most: int, write: Callable[[], None]) -> None:
    with largest_file(most):
        write()


@pytest.mark.slow
def test_a_run_without_space_goes_on_once_there_is_some(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("schedule.iterations=3", "log.save_every=1")
    with pytest.raises(ResourceError, match=r"last\.pt: cannot be .*Nothing had been saved yet"), largest_file(10**6):
        run_training(config, tmp_path / "run")
    run_training(config, tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt").progress.step == 3
    assert not list((tmp_path / "run").rglob("*partial*"))
