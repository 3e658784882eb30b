"""This project's detector with torchvision's rules, built and run by the functions that a training run uses."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.utils.deterministic

from benchmarks.contest import Precision
from retinanet.config.load import config_from_dict
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.model.processor import computes_bfloat16
from retinanet.run.interrupts import StopRequest
from retinanet.structures import Batch
from retinanet.training.parts import build_step_parts
from retinanet.training.state import TrainState, build_state
from retinanet.training.step import StepParts, train_step

ONE_PROCESS = Ranks(rank=0, local_rank=0, world_size=1)

LEARNING_RATE = 1e-8
"""So small that random weights on random pixels neither grow nor overflow, however many steps are timed."""

Result = TypeVar("Result")


def own_precisions(device: torch.device) -> tuple[Precision, ...]:
    """The precisions that this project is timed in: float32, then bfloat16 if `device` computes in it."""
    return ("float32", "bfloat16") if computes_bfloat16(device) else ("float32",)


def build_config(backbone: str, precision: Precision, batch: int) -> Config:
    """Torchvision's rules for assignment, anchors, pyramid, losses and detections, with random weights."""
    return config_from_dict(
        {
            "model": {
                "backbone": {"name": backbone, "weights": "none", "norm": "frozen_bn", "frozen_stages": 2},
                "fpn": {"p6_source": "p5"},
                "anchors": {"offset": 0.0, "rounding": "truncate", "spacing": "canvas_over_cells"},
            },
            "assign": {"low_quality": True},
            "loss": {"box": {"kind": "l1"}, "normaliser": "image_positives"},
            "schedule": {
                "iterations": 1_000_000,
                "batch_size": batch,
                "reference_batch": batch,
                "lr": LEARNING_RATE,
                "warmup": 0,
                "milestones": [],
            },
            "eval": {"score_threshold": 0.05, "topk": 1000, "nms_iou": 0.5, "detections": 100},
            "precision": precision,
        },
        "the benchmarks",
    )


def build_training(
    backbone: str, precision: Precision, batch: int, classes: int, device: torch.device
) -> tuple[TrainState, StepParts]:
    """A run's state and the fixed parts of its step, as `training.engine.train` makes them."""
    torch.manual_seed(0)
    return build_training_of(build_config(backbone, precision, batch), classes, device)


def build_training_of(config: Config, classes: int, device: torch.device) -> tuple[TrainState, StepParts]:
    """The same for any config; no data set is read, and nothing is written."""
    return build_state(config, classes, device, ONE_PROCESS), build_step_parts(config, device, ONE_PROCESS)


def one_update(state: TrainState, parts: StepParts) -> Callable[[Batch], float]:
    """A training step on a batch; returns its loss."""
    stop = StopRequest()
    return lambda batch: train_step(state, [batch], parts, stop).values["loss"]


def as_in_a_run(step: Callable[[], Result]) -> Callable[[], Result]:
    """`step` under the global settings of a training run (build.prepare_torch), and torch's own afterwards."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def within() -> Result:
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            return step()
        finally:
            torch.use_deterministic_algorithms(False)

    return within
