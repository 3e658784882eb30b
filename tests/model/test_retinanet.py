"""The whole network: shapes, agreement with the anchors, start of training as the paper says."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from retinanet.build.losses import build_box_loss, build_class_loss
from retinanet.build.network import build_anchor_spec, build_model, in_memory_order
from retinanet.config.class_losses import BoxLossKeys, FocalKeys
from retinanet.config.model_keys import ModelKeys
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import AssignRule, assign_batch
from retinanet.losses.criterion import Criterion, Divisor, criterion
from retinanet.model.retinanet import RetinaNet
from retinanet.structures import HeadOutputs, Targets

CPU = torch.device("cpu")
NO_SEEDS = torch.zeros(1, dtype=torch.int64)


def small(**sections: dict[str, Any]) -> ModelKeys:
    """A ResNet-18 with GroupNorm and 32 channels; `sections` replace keys."""
    tree: dict[str, dict[str, Any]] = {
        "backbone": {"name": "resnet18", "weights": "none", "norm": "gn", "frozen_stages": 0},
        "fpn": {"channels": 32},
        "head": {"depth": 2},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    return ModelKeys.model_validate(tree)


def build(config: ModelKeys, outputs: int = 3, bias: float = -4.595) -> RetinaNet:
    torch.manual_seed(0)
    return build_model(config, outputs, [bias] * outputs)


@pytest.mark.parametrize("canvas", [(64, 96), (97, 131)])
def test_outputs_agree_with_the_anchors_in_training_and_evaluation(canvas: tuple[int, int]) -> None:
    config = small()
    model = build(config)
    pyramid = pyramid_anchors(canvas, build_anchor_spec(config), CPU)
    images = torch.randn(2, 3, *canvas)
    with torch.no_grad():
        trained, evaluated = model.train()(images), model.eval()(images)
    for outputs in (trained, evaluated):
        assert isinstance(outputs, HeadOutputs)
        assert outputs.logits_BAK.shape == (2, len(pyramid.boxes_A4), 3)
        assert outputs.deltas_BA4.shape == (2, len(pyramid.boxes_A4), 4)
    assert torch.equal(trained.logits_BAK, evaluated.logits_BAK)


def test_a_single_anchor_a_cell_and_another_head_width() -> None:
    config = small(anchors={"scales": (1.0,), "aspect_ratios": (1.0,)}, head={"depth": 1, "channels": 8})
    model = build(config)
    assert model.class_head.predict.out_channels == 3
    assert model.box_head.predict.out_channels == 4
    assert model.box_head.predict.in_channels == 8
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).deltas_BA4.shape == (1, 64 + 16 + 4 + 1 + 1, 4)


def test_memory_order_changes_no_output() -> None:
    model, images = build(small()).eval(), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(images)
        assert model.fpn.output[0].weight.is_contiguous()
        outputs = in_memory_order(model, channels_last=True)(images)
    assert model.fpn.output[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outputs.logits_BAK, wanted.logits_BAK, rtol=1e-4, atol=1e-5)


def test_building_reads_no_weights_file() -> None:
    """The caller reads it and passes its content."""
    config = small(backbone={"weights": "/nowhere/weights.pth"})
    assert isinstance(build_model(config, 3, [0.0] * 3), RetinaNet)


def test_the_same_seed_gives_the_same_backbone_and_pyramid_whatever_the_class_count() -> None:
    few, many = build(small(), 1).state_dict(), build(small(), 9).state_dict()
    shared = [name for name in few if name.startswith(("backbone.", "fpn."))]
    assert len(shared) > 60
    assert all(torch.equal(few[name], many[name]) for name in shared)


def test_outputs_that_one_loss_adds_change_no_weight_of_the_classes() -> None:
    """A softmax head has a background besides the K classes: every arm of a study starts from the same weights."""
    torch.manual_seed(0)
    plain = build_model(small(), 3, [-4.0] * 3)
    torch.manual_seed(0)
    extra = build_model(small(), 3, [-5.0, -5.0, -5.0, 2.0])
    state, other = plain.state_dict(), extra.state_dict()
    assert {name for name in state if not torch.equal(state[name], other[name])} == {
        "class_head.predict.weight",
        "class_head.predict.bias",
    }
    per_cell = build_anchor_spec(small()).per_cell
    ours = plain.class_head.predict.weight.reshape(per_cell, 3, -1)
    theirs = extra.class_head.predict.weight.reshape(per_cell, 4, -1)
    assert torch.equal(ours, theirs[:, :3])
    assert theirs[:, 3].std().item() == pytest.approx(0.01, rel=0.1)
    bias = extra.class_head.predict.bias
    assert bias is not None
    assert bias.tolist() == [-5.0, -5.0, -5.0, 2.0] * per_cell


def test_p2_changes_no_other_initial_weight() -> None:
    """An arm with P2 starts from the weights of the arms without it."""
    finer = small(fpn={"channels": 32, "finest": "p2"}, anchors={"sizes": (16.0, 32.0, 64.0, 128.0, 256.0, 512.0)})
    plain, with_p2 = build(small()).state_dict(), build(finer).state_dict()
    assert all(torch.equal(value, with_p2[name]) for name, value in plain.items())
    added = [name for name in with_p2 if name not in plain]
    assert added == [f"fpn.p2.{layer}.{kind}" for layer in ("lateral", "output") for kind in ("weight", "bias")]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_p2_has_cells_of_stride_4_for_every_kind_of_backbone(name: str) -> None:
    config = small(
        backbone={"name": name},
        fpn={"channels": 16, "finest": "p2"},
        anchors={"sizes": (16.0, 32.0, 64.0, 128.0, 256.0, 512.0)},
    )
    outputs = build(config)(torch.zeros(1, 3, 70, 64))
    pyramid = pyramid_anchors((70, 64), build_anchor_spec(config), CPU)
    assert pyramid.level_sizes[0] == 18 * 16 * build_anchor_spec(config).per_cell
    assert outputs.logits_BAK.shape[1] == outputs.deltas_BA4.shape[1] == len(pyramid.boxes_A4)


def background_loss(model: RetinaNet, config: ModelKeys, images: Tensor) -> float:
    """Focal loss of an empty image, normaliser 1."""
    pyramid = pyramid_anchors((images.shape[2], images.shape[3]), build_anchor_spec(config), CPU)
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    assignment = assign_batch(pyramid, [empty], AssignRule(0.5, 0.4, False, 0.0, "best_box", 0.5))
    parts = Criterion(build_class_loss(FocalKeys()), 1.0, build_box_loss(BoxLossKeys()), 1.0)
    with torch.no_grad():
        return criterion(
            model(images), assignment, pyramid.boxes_A4, parts, Divisor(torch.ones(1), 1), NO_SEEDS
        ).class_B.item()


def test_the_prior_bounds_the_initial_class_loss() -> None:
    """Section 4.1: each output starts at pi, so an empty image costs A K 0.75 pi^2 (-log(1 - pi)), not A K 0.13."""
    config, pi, classes = small(), 0.01, 5
    bias = build_class_loss(FocalKeys()).prior_bias(pi, classes)[0]
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    outputs = classes * len(pyramid_anchors((96, 96), build_anchor_spec(config), CPU).boxes_A4)
    model = build(config, classes, bias)
    expected = outputs * 0.75 * pi**2 * -math.log(1 - pi)
    assert background_loss(model, config, images) == pytest.approx(expected, rel=0.05)
    assert build_class_loss(FocalKeys()).scoring.scores(model(images).logits_BAK).mean().item() == pytest.approx(
        pi, rel=0.02
    )
    even = background_loss(build(config, classes, 0.0), config, images)
    assert even == pytest.approx(outputs * 0.75 * 0.25 * math.log(2), rel=0.05)


def test_the_deltas_start_near_zero() -> None:
    model = build(small())
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 64)).deltas_BA4.abs().max().item() < 0.1


def test_bfloat16_autocast_runs_and_stays_close() -> None:
    model = build(small(), bias=0.0).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(images)
    assert rough.logits_BAK.dtype == torch.bfloat16
    assert (rough.logits_BAK.float() - exact.logits_BAK).abs().max().item() < 0.02


def test_every_trainable_parameter_gets_a_gradient() -> None:
    model = build(small(backbone={"frozen_stages": 2}))
    outputs = model(torch.randn(1, 3, 64, 64))
    (outputs.logits_BAK.square().sum() + outputs.deltas_BA4.square().sum()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("backbone.stages.0.", "backbone.stages.1."))
        assert (parameter.grad is None) is frozen, name
        assert parameter.requires_grad is not frozen, name


def test_frozen_parts_keep_their_weights_and_statistics_in_either_mode() -> None:
    keys = {"backbone": {"norm": "bn"}, "head": {"norm": "none"}}
    config = small(**keys).model_copy(update={"frozen": ("backbone", "box_head")})
    model = build(config)
    model.train()
    training = {name.partition(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert training == {"fpn", "class_head"}
    before = model.backbone.stages[0][1].running_mean.clone()
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(model.backbone.stages[0][1].running_mean, before)
    assert not model.backbone.training
    assert model.fpn.training
