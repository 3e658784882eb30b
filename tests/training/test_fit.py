"""`schedule.batch_size: auto`: how a batch is split where it does not fit; the trial itself needs a GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retinanet.config.schema import Config
from retinanet.data.coco import ImageRecord
from retinanet.data.transforms import ResizeRule
from retinanet.distributed import Ranks
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.interrupts import StopRequest
from retinanet.training import fit
from retinanet.training.batches import load_data
from retinanet.training.engine import resolve, run_training
from retinanet.training.fit import fewest_parts, fit_accumulation, largest_canvas, random_batch
from retinanet.training.parts import build_step_parts
from retinanet.training.state import build_state
from retinanet.training.step import train_step

Tiny = Callable[..., Config]
ALONE = Ranks(rank=0, local_rank=0, world_size=1)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("batch", "least", "room", "parts"),
    [(16, 1, 16, 1), (16, 1, 15, 2), (16, 1, 3, 8), (16, 1, 0, None), (16, 4, 16, 4), (12, 1, 5, 3), (7, 1, 6, 7)],
)
def test_the_fewest_parts_that_fit(batch: int, least: int, room: int, parts: int | None) -> None:
    assert fewest_parts(batch, least, lambda images: images <= room) == parts


def test_the_largest_canvas_is_that_of_the_largest_draw() -> None:
    rule = ResizeRule((96, 192), 320, None, "antialias", "groups")
    sizes = ((100, 100), (100, 133), (133, 100))
    records = [
        ImageRecord(
            id=number,
            path=Path("x"),
            height=height,
            width=width,
            boxes_G4=None,  # type: ignore[arg-type]
            classes_G=None,  # type: ignore[arg-type]
            crowd_C4=None,  # type: ignore[arg-type]
        )
        for number, (height, width) in enumerate(sizes)
    ]
    assert largest_canvas(records, rule) == (192, 288)
    assert largest_canvas(records[:1], rule) == (224, 224)


def test_a_tried_step_is_a_real_one(tiny: Tiny) -> None:
    config = tiny()
    state = build_state(config, 3, CPU, ALONE)
    before = [parameter.clone() for parameter in state.model.parameters()]
    result = train_step(state, [random_batch(2, (64, 96))], build_step_parts(config, CPU, ALONE), StopRequest())
    assert result.values["positives_per_image"] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, state.model.parameters(), strict=True))


def test_a_cpu_takes_the_batch_in_one_part(tiny: Tiny) -> None:
    config = tiny()
    train_set, _ = load_data(config, ALONE)
    assert fit_accumulation(config, train_set.images, 3, CPU, ALONE) is config


@pytest.mark.slow
def test_a_run_with_auto_saves_numbers_and_a_resumed_one_keeps_its_parts(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("schedule.batch_size=auto", "schedule.warmup=auto", "eval.every=auto", "log.save_every=1")

    def as_a_small_gpu(config: Config, *_: object) -> Config:
        return config.model_copy(update={"schedule": config.schedule.model_copy(update={"accumulation": 2})})

    monkeypatch.setattr("retinanet.training.engine.fit_accumulation", as_a_small_gpu)
    run_training(config, tmp_path)
    saved = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    schedule = saved.config.schedule
    assert (schedule.batch_size, schedule.accumulation, schedule.warmup) == (4, 2, 0)
    assert saved.config.eval.every == 1.0
    monkeypatch.setattr("retinanet.training.engine.fit_accumulation", lambda *_: pytest.fail("tried again"))
    train_set, _ = load_data(config, ALONE)
    assert resolve(config, train_set, CPU, ALONE, saved) == saved.config
    assert fit.RESERVE > 0
