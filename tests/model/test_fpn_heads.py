"""The pyramid's wiring and sizes, the subnets' order of outputs and their initialisation."""

import math
from functools import partial
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.retinanet import RetinaNetClassificationHead

from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.model.fpn import Fpn
from retinanet.model.heads import Head

CPU = torch.device("cpu")


def features(canvas: tuple[int, int], channels: tuple[int, int, int] = (4, 6, 8)) -> list[Tensor]:
    """Random C3, C4, C5 of a canvas."""
    generator = torch.Generator().manual_seed(0)
    sizes = [[-(-side // stride) for side in canvas] for stride in (8, 16, 32)]
    return [torch.randn((2, c, *size), generator=generator) for c, size in zip(channels, sizes, strict=True)]


@pytest.mark.parametrize("canvas", [(64, 96), (97, 131), (33, 200), (8, 8)])
@pytest.mark.parametrize("source", ["c5", "p5"])
def test_levels_have_the_cells_of_the_anchors(canvas: tuple[int, int], source: Literal["c5", "p5"]) -> None:
    levels = Fpn((4, 6, 8), 5, source, True)(features(canvas))
    spec = AnchorSpec((32.0, 64.0, 128.0, 256.0, 512.0), (1.0,), (1.0,), 0.5, "none", "stride")
    assert tuple(level.shape[2] * level.shape[3] for level in levels) == pyramid_anchors(canvas, spec, CPU).level_sizes
    assert all(level.shape[:2] == (2, 5) for level in levels)


def test_the_pyramid_is_top_down_sums_of_laterals() -> None:
    c3, c4, c5 = features((97, 131))
    fpn = Fpn((4, 6, 8), 5, "p5", True)
    m5 = fpn.lateral[2](c5)
    m4 = fpn.lateral[1](c4) + F.interpolate(m5, size=c4.shape[-2:], mode="nearest")
    m3 = fpn.lateral[0](c3) + F.interpolate(m4, size=c3.shape[-2:], mode="nearest")
    p3, p4, p5, p6, p7 = fpn([c3, c4, c5])
    for level, output, merged in zip((p3, p4, p5), fpn.output, (m3, m4, m5), strict=True):
        torch.testing.assert_close(level, output(merged))
    torch.testing.assert_close(p6, fpn.p6(p5))
    torch.testing.assert_close(p7, fpn.p7(p6.relu()))
    assert (p6 < 0).any()


def test_p2_is_one_more_sum_and_changes_no_other_level() -> None:
    canvas = (97, 131)
    c2 = torch.randn((2, 3, 25, 33), generator=torch.Generator().manual_seed(1))
    fpn = Fpn((4, 6, 8), 5, "c5", True)
    coarser = fpn(features(canvas))
    fpn.add_p2(3)
    p2, *others = fpn([c2, *features(canvas)])
    assert all(torch.equal(a, b) for a, b in zip(others, coarser, strict=True))
    assert fpn.p2 is not None
    c3, c4, c5 = features(canvas)
    m4 = fpn.lateral[1](c4) + F.interpolate(fpn.lateral[2](c5), size=c4.shape[-2:], mode="nearest")
    m3 = fpn.lateral[0](c3) + F.interpolate(m4, size=c3.shape[-2:], mode="nearest")
    merged = fpn.p2.lateral(c2) + F.interpolate(m3, size=c2.shape[-2:], mode="nearest")
    torch.testing.assert_close(p2, fpn.p2.output(merged))
    spec = AnchorSpec((16.0, 32.0, 64.0, 128.0, 256.0, 512.0), (1.0,), (1.0,), 0.5, "none", "stride")
    assert spec.levels == ("P2", "P3", "P4", "P5", "P6", "P7")
    cells = tuple(level.shape[2] * level.shape[3] for level in (p2, *others))
    assert cells == pyramid_anchors(canvas, spec, CPU).level_sizes


@pytest.mark.parametrize(("source", "reaches_output"), [("c5", False), ("p5", True)])
def test_p6_comes_from_its_source(source: Literal["c5", "p5"], reaches_output: bool) -> None:
    fpn = Fpn((4, 6, 8), 5, source, True)
    maps = features((128, 128))
    before = fpn(maps)
    with torch.no_grad():
        fpn.output[2].weight.mul_(2.0)
    after = fpn(maps)
    assert fpn.p6.in_channels == (5 if reaches_output else 8)
    assert not torch.equal(before[2], after[2])
    assert torch.equal(before[3], after[3]) is not reaches_output
    torch.testing.assert_close(after[3], fpn.p6(after[2] if reaches_output else maps[2]))


def test_fpn_biases_start_at_zero() -> None:
    biases = [module.bias for module in Fpn((4, 6, 8), 5, "c5", True).modules() if isinstance(module, nn.Conv2d)]
    assert len(biases) == 8
    assert all(bias is not None and not bias.any() for bias in biases)


def test_outputs_are_ordered_as_the_anchors() -> None:
    """Levels that hold their cells' centres and a bias of each cell anchor's shape give the anchors themselves."""
    canvas = (150, 220)
    spec = AnchorSpec((16.0, 32.0, 64.0, 128.0, 256.0), (1.0, 1.5), (0.5, 1.0, 2.0), 0.5, "none", "stride")
    pyramid = pyramid_anchors(canvas, spec, CPU)
    centres = []
    for stride in spec.strides:
        rows, columns = (-(-side // stride) for side in canvas)
        y, x = torch.meshgrid(
            (torch.arange(rows) + 0.5) * stride, (torch.arange(columns) + 0.5) * stride, indexing="ij"
        )
        centres.append(torch.stack([x, y])[None].repeat(2, 1, 1, 1))
    head = Head(2, 2, 0, "none", spec.per_cell, [0.0] * 4, 4)
    shapes = [(scale / math.sqrt(ratio), scale * math.sqrt(ratio)) for ratio in (0.5, 1.0, 2.0) for scale in (1.0, 1.5)]
    with torch.no_grad():
        head.predict.weight.zero_()
        for anchor, (width, height) in enumerate(shapes):
            head.predict.weight[4 * anchor, 0, 1, 1] = 1.0
            head.predict.weight[4 * anchor + 1, 1, 1, 1] = 1.0
            head.predict.bias[4 * anchor + 2] = width
            head.predict.bias[4 * anchor + 3] = height
        outputs = head(centres)
    size_A = torch.cat([torch.full((n,), size) for n, size in zip(pyramid.level_sizes, spec.sizes, strict=True)])
    low, high = pyramid.boxes_A4[:, :2], pyramid.boxes_A4[:, 2:]
    expected = torch.cat([(low + high) / 2, (high - low) / size_A[:, None]], dim=1)
    assert outputs.shape == (2, len(expected), 4)
    for image in outputs:
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-4)


def test_outputs_of_images_do_not_mix() -> None:
    torch.manual_seed(0)
    head = Head(3, 4, 2, "none", 2, [0.0] * 5, 5)
    levels = [torch.randn(3, 3, 6, 7), torch.randn(3, 3, 3, 4)]
    together = head(levels)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], head([level[index : index + 1] for level in levels]))


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("norm", ["none", "gn"])
def test_depth_norm_and_width(depth: int, norm: Literal["none", "gn"]) -> None:
    head = Head(8, 16, depth, norm, 3, [0.0] * 2, 2)
    convolutions = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in head.modules() if isinstance(module, nn.GroupNorm)]
    assert len(convolutions) == depth + 1
    assert len(norms) == (depth if norm == "gn" else 0)
    assert convolutions[0].in_channels == 8
    assert head.predict.in_channels == (16 if depth else 8)
    assert head([torch.randn(1, 8, 5, 4)]).shape == (1, 5 * 4 * 3, 2)


def test_weights_start_gaussian_and_biases_at_zero_or_the_prior() -> None:
    torch.manual_seed(0)
    head = Head(128, 128, 4, "none", 9, [-4.595] * 20, 20)
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.02)
            assert abs(module.weight.mean().item()) < 1e-4
            assert module.bias is not None
            assert module.bias.unique().tolist() == pytest.approx([-4.595 if module is head.predict else 0.0])


def test_without_its_relu_p7_sees_all_of_p6() -> None:
    maps = features((97, 131))
    torch.manual_seed(0)
    with_relu = Fpn((4, 6, 8), 5, "c5", True)
    torch.manual_seed(0)
    without = Fpn((4, 6, 8), 5, "c5", False)
    p6 = without(maps)[3]
    assert torch.equal(with_relu(maps)[3], p6)
    torch.testing.assert_close(without(maps)[4], F.conv2d(p6, without.p7.weight, without.p7.bias, stride=2, padding=1))
    assert not torch.equal(with_relu(maps)[4], without(maps)[4])


def test_a_group_norm_head_is_torchvisions_v2_head() -> None:
    """The same tensors in the same order, and the same outputs of the same weights, levels of odd sizes included."""
    torch.manual_seed(0)
    ours = Head(64, 64, 4, "gn", 9, [-4.595] * 7, 7)
    theirs = RetinaNetClassificationHead(64, 9, 7, norm_layer=partial(nn.GroupNorm, 32))
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]
    with torch.no_grad():
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(parameter.normal_(std=0.1))
        levels = [torch.randn(2, 64, 5, 7), torch.randn(2, 64, 3, 4), torch.randn(2, 64, 1, 1)]
        expected = torch.cat(
            [out.reshape(2, 9, 7, h, w).permute(0, 3, 4, 1, 2).reshape(2, -1, 7) for out, h, w in (
                (theirs.cls_logits(theirs.conv(level)), *level.shape[2:]) for level in levels
            )],
            dim=1,
        )  # fmt: skip
        torch.testing.assert_close(ours(levels), expected)
        torch.testing.assert_close(ours(levels), theirs(levels))


@pytest.mark.parametrize("canvas", [(32, 32), (64, 64), (128, 64), (64, 128)])
@pytest.mark.parametrize("source", ["c5", "p5"])
def test_small_canvases_have_gradients_in_bfloat16(canvas: tuple[int, int], source: Literal["c5", "p5"]) -> None:
    """torch leaves the weight gradient of a stride-2 convolution on one column as it finds the memory."""
    torch.manual_seed(0)
    fpn, inputs = Fpn((4, 6, 64), 64, source, p7_relu=True).train(), features(canvas, (4, 6, 64))

    def gradients(dtype: torch.dtype) -> dict[str, Tensor]:
        fpn.zero_grad()
        litter = [torch.full((64, 64, 3, 3), float("nan")) for _ in range(20)]
        del litter
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            levels = fpn(inputs)
        sum(level.float().square().sum() for level in levels).backward()
        return {name: p.grad.clone() for name, p in fpn.named_parameters() if p.grad is not None}

    for _ in range(3):
        exact, half = gradients(torch.float32), gradients(torch.bfloat16)
        for name, gradient in exact.items():
            torch.testing.assert_close(half[name], gradient, rtol=0, atol=0.05 * float(gradient.abs().max()))


def test_a_column_padded_by_hand_gives_the_same_levels() -> None:
    fpn, inputs = Fpn((4, 6, 8), 16, "c5", p7_relu=True), features((64, 64))
    for trained, evaluated in zip(fpn.train()(inputs), fpn.eval()(inputs), strict=True):
        torch.testing.assert_close(trained, evaluated)
