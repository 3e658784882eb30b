"""From config sections to values: every field arrives where it belongs."""

import math
import random
from typing import Any

import pytest
import torch

from retinanet.build import network
from retinanet.build.losses import build_criterion
from retinanet.build.network import (
    build_channels_last,
    build_loss_and_model,
    build_precision,
    choose_channels_last,
    prepare_torch,
)
from retinanet.build.rules import build_assign_rule, build_augment, build_resize_rule, build_view_rule
from retinanet.config.schema import Config
from retinanet.data.views import WHOLE_IMAGES
from retinanet.distributed import Ranks
from retinanet.evaluation.detector import build_detector
from retinanet.losses.box import giou
from retinanet.losses.focal import focal
from retinanet.model import processor
from retinanet.model.processor import computes_bfloat16
from retinanet.structures import ClassTargets
from retinanet.training.parts import build_step_parts
from retinanet.training.state import build_state

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "backbone": {"name": "resnet18", "weights": "none", "frozen_stages": 0},
    "fpn": {"channels": 8},
    "head": {"depth": 1, "prior": 0.2},
    "anchors": {"scales": (1.0,), "offset": 0.0, "rounding": "truncate"},
    "pixels": {"order": "bgr", "mean": (103.53, 116.28, 123.675), "std": (1.0, 1.0, 1.0)},
}


def config(**sections: Any) -> Config:
    return Config.model_validate({"model": SMALL, **sections})


def test_assign_rule() -> None:
    keys = {"positive_iou": 0.7, "negative_iou": 0.3, "low_quality": True, "low_quality_min_iou": 0.1}
    assert tuple(build_assign_rule(config(assign={**keys, "low_quality_takes": "own_box", "crowd_overlap": 0.9}))) == (
        0.7,
        0.3,
        True,
        0.1,
        "own_box",
        0.9,
    )


def test_the_defaults_are_the_papers_assignment() -> None:
    assert build_assign_rule(Config())[:3] == (0.5, 0.4, False)


def test_criterion() -> None:
    parts = build_criterion(
        config(
            loss={
                "classification": {"kind": "focal", "alpha": 0.4, "gamma": 3.0, "weight": 2.0},
                "box": {"kind": "giou", "weight": 0.5},
            }
        )
    )
    logits, labels = torch.randn(1, 6, 3), torch.tensor([[0, 1, 2, -1, -2, 0]])
    seeds, anchors, deltas = torch.zeros(1, dtype=torch.int64), torch.zeros(6, 4), torch.zeros(1, 6, 4)
    targets = ClassTargets(labels, torch.tensor([4.0]), 1, seeds, anchors, deltas, torch.zeros(4, 4), torch.zeros(4))
    assert (parts.class_weight, parts.box_weight) == (2.0, 0.5)
    assert torch.equal(parts.class_loss.value(logits, targets), focal(logits, labels, 0.4, 3.0) / 4)
    assert parts.box_loss is giou


def test_loss_and_model_fit_together() -> None:
    torch.manual_seed(0)
    loss, model = build_loss_and_model(config(), classes=4)
    assert model.class_head.outputs == len(loss.prior_bias(0.01, 4)) == 4
    assert model.box_head.outputs == 4
    bias = model.class_head.predict.bias
    assert bias is not None
    assert loss.scoring.scores(bias).tolist() == pytest.approx([0.2] * 12)


def test_residual_branches_start_as_the_config_says() -> None:
    for zero in (True, False):
        backbone = {**SMALL["backbone"], "norm": "bn", "zero_init_residual": zero}
        _, model = build_loss_and_model(Config.model_validate({"model": {**SMALL, "backbone": backbone}}), 1)
        assert {bool(block.bn2.weight.any()) for block in model.backbone.stages[4]} == {not zero}


def test_sizing_and_augment() -> None:
    data = {"shorter_side": (480, 600), "longer_side": 900, "scale_jitter": (0.5, 1.5), "color_jitter": 0.3}
    built = config(data={**data, "flip": 0.25, "vertical_flip": 0.125})
    assert tuple(build_resize_rule(built)) == ((480, 600), 900, None, "antialias", "groups", math.inf)
    assert tuple(build_augment(built)) == ((0.5, 1.5), 0.3, 0.25, 0.125)
    assert build_resize_rule(config(data={"canvas": (320, 256)})).canvas == (320, 256)
    tiles = config(data={"tile": 1024, "tile_overlap": 0.3}, eval={"tta_flip": True, "tta_scales": (1.0, 0.5)})
    assert (build_resize_rule(tiles).canvas, build_resize_rule(tiles).max_factor) == ((1024, 1024), 1.0)
    assert build_view_rule(tiles) == (1024, 0.3, True, (1.0, 0.5))
    assert build_view_rule(built) == WHOLE_IMAGES._replace(overlap=0.2)
    exact = build_resize_rule(config(data={"resize": "float_bilinear", "canvases": "tight"}))
    assert (exact.resize, exact.canvases) == ("float_bilinear", "tight")


def test_detector() -> None:
    keys = {"score_threshold": 0.1, "topk": 50, "nms_iou": 0.6, "detections": 7, "class_agnostic": True}
    built = config(eval=keys, precision="bfloat16")
    _, model = build_loss_and_model(built, classes=2)
    detector = build_detector(built, model, CPU)
    assert tuple(detector.rule) == (0.1, 50, 0.6, 7, True, "keep")
    assert tuple(detector.anchors)[1:] == ((1.0,), (0.5, 1.0, 2.0), 0.0, "truncate", "stride")
    assert detector.pixels == ("bgr", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
    assert detector.model is not model
    assert not detector.model.training
    assert detector.precision == torch.bfloat16
    assert detector.scoring.scores(torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_precision(name: str) -> None:
    assert build_precision(config(precision=name), CPU) == getattr(torch, name)


@pytest.mark.parametrize(
    ("key", "nchw_trains_faster", "training", "inference"),
    [
        ("auto", False, True, True),
        ("auto", True, False, True),
        (True, True, True, True),
        (False, False, False, False),
        ("inference", False, False, True),
    ],
)
def test_memory_order(
    key: object, nchw_trains_faster: bool, training: bool, inference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "trains_faster_in_nchw", lambda device: nchw_trains_faster)
    keys = config(model={**SMALL, "channels_last": key}).model
    for order in (keys, choose_channels_last(keys, CPU)):
        assert build_channels_last(order, CPU, training=True) is training
        assert build_channels_last(order, CPU, training=False) is inference
    assert choose_channels_last(keys, CPU).channels_last != "auto"


def test_training_and_detector_have_their_memory_orders() -> None:
    built = config(model={**SMALL, "channels_last": "inference"})
    state, parts = build_state(built, 2, CPU, Ranks(0, 0, 1)), build_step_parts(built, CPU, Ranks(0, 0, 1))
    detector = build_detector(built, state.model, CPU)
    weights = [network.fpn.output[0].weight for network in (state.model, detector.model)]
    in_nhwc = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights]
    assert in_nhwc == [parts.channels_last, detector.channels_last] == [False, True]


def test_the_same_seed_builds_the_same_network_whatever_was_drawn_before() -> None:
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    states = []
    try:
        for draws in (0, 7):
            torch.rand(draws)
            random.random()
            prepare_torch(config(seed=5))
            states.append(build_loss_and_model(config(), classes=3)[1].state_dict())
        prepare_torch(config(seed=6))
        other = build_loss_and_model(config(), classes=3)[1].state_dict()
        assert torch.get_num_threads() == threads
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(other["fpn.p6.weight"], states[0]["fpn.p6.weight"])


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("precision", ["auto", "float32", "tf32", "bfloat16"])
def test_only_tf32_rounds_float32_and_only_determinism_keeps_cudnn_from_searching(
    precision: str, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.are_deterministic_algorithms_enabled(), cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    try:
        prepare_torch(config(precision=precision, deterministic=deterministic))
        assert cudnn.allow_tf32 is matmul.allow_tf32 is (precision == "tf32")
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert cudnn.benchmark is not deterministic
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before[1:]
    assert build_precision(config(precision="tf32"), CPU) == torch.float32


def test_automatic_precision_is_bfloat16_exactly_where_the_device_computes_in_it() -> None:
    expected = torch.bfloat16 if computes_bfloat16(CPU) else torch.float32
    assert build_precision(config(precision="auto"), CPU) == expected
    assert build_precision(config(precision="auto"), torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("slowdown", "expected"), [(0.6, torch.bfloat16), (17.0, torch.float32)])
def test_automatic_precision_of_depthwise_convolutions_is_measured(
    slowdown: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(processor, "depthwise_slowdown", lambda device: slowdown)
    keys = {**SMALL, "backbone": {"name": "mobilenet_v2", "weights": "none"}}
    assert build_precision(config(precision="auto", model=keys), CPU) == expected
    assert build_precision(config(precision="auto"), CPU) == torch.bfloat16
    assert build_precision(config(precision="bfloat16", model=keys), CPU) == torch.bfloat16
