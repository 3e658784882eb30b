"""MSRA's ResNets: every blob is mapped, and the backbone computes what Caffe's does, written here by hand."""

import math
import pickle
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_weights import bottlenecks
from places import RECIPES
from torch import Tensor
from torchvision.models import resnet50

from retinanet.config.load import load_config
from retinanet.errors import CheckpointError
from retinanet.interop.msra import to_torchvision
from retinanet.interop.weights_file import read_weights
from retinanet.model.backbone import Backbone, InitialWeights, NormKind, build_backbone

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def published(depth: int = 50, statistics: bool = False) -> dict[str, Tensor]:
    """A new dict of the tensors of `random_blobs`, which are not to be changed."""
    return dict(random_blobs(depth, statistics))


@lru_cache(maxsize=2)  # 100 to 180 MB each
def random_blobs(depth: int, statistics: bool) -> dict[str, Tensor]:
    """Blobs as Detectron names them, or with statistics as detectron2 does: all random except zero biases.

    Detectron's converter gave every convolution a bias; of detectron2's only conv1 has one.
    """
    random = torch.Generator().manual_seed(0)
    blobs: dict[str, Tensor] = {}

    def conv(name: str, norm: str, out: int, inside: int, size: int) -> None:
        blobs[f"{name}_w"] = torch.randn(out, inside, size, size, generator=random) / math.sqrt(inside * size**2)
        blobs[f"{norm}_{'gamma' if statistics else 's'}"] = torch.rand(out, generator=random) * 0.5 + 0.5
        blobs[f"{norm}_{'beta' if statistics else 'b'}"] = torch.randn(out, generator=random) * 0.1
        if not statistics or name == "conv1":
            blobs[f"{name}_b"] = torch.zeros(out)
        if statistics:
            blobs[f"{norm}_running_mean"] = torch.randn(out, generator=random) * 0.1
            blobs[f"{norm}_running_var"] = torch.rand(out, generator=random) + 0.5

    conv("conv1", "res_conv1_bn", 64, 3, 7)
    for stage, block, inside, middle, out in bottlenecks(depth):
        name = f"res{stage + 1}_{block}_branch"
        if block == 0:
            conv(f"{name}1", f"{name}1_bn", out, inside, 1)
        conv(f"{name}2a", f"{name}2a_bn", middle, inside, 1)
        conv(f"{name}2b", f"{name}2b_bn", middle, middle, 3)
        conv(f"{name}2c", f"{name}2c_bn", out, middle, 1)
    blobs["fc1000_w"] = torch.randn(1000, 2048, generator=random) * 0.02
    blobs["fc1000_b"] = torch.randn(1000, generator=random)
    return blobs


def stored(path: Path, blobs: dict[str, Tensor], wrapped: bool = False) -> Path:
    arrays = {name: value.numpy() for name, value in blobs.items()}
    content = {"blobs": arrays, "cfg": "MODEL: {}"} if wrapped else arrays
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def affine(blobs: dict[str, Tensor], name: str, norm: str, x: Tensor, stride: int) -> Tensor:
    """Caffe2's Conv and AffineChannel, or SpatialBN, in float64."""
    b = {end: blobs[f"{norm}_{end}"].double() for end in ("s", "b") if f"{norm}_{end}" in blobs}
    weight, bias = blobs[f"{name}_w"].double(), blobs.get(f"{name}_b")
    x = F.conv2d(x, weight, None if bias is None else bias.double(), stride, padding=weight.shape[-1] // 2)
    if b:
        return x * b["s"].view(-1, 1, 1) + b["b"].view(-1, 1, 1)
    gamma, beta, mean, var = (blobs[f"{norm}_{end}"].double().view(-1, 1, 1) for end in STATISTICS)
    return gamma * (x - mean) / (var + 1e-5).sqrt() + beta


STATISTICS = ("gamma", "beta", "running_mean", "running_var")


def caffes_features(blobs: dict[str, Tensor], x: Tensor, depth: int) -> list[Tensor]:
    """C2 to C5 with every stride in the first 1x1 convolution of a stage and its shortcut."""
    x = F.max_pool2d(F.relu(affine(blobs, "conv1", "res_conv1_bn", x.double(), 2)), 3, 2, 1)
    features = []
    for stage, count in enumerate(BLOCKS[depth], start=2):
        for block in range(count):
            name, stride = f"res{stage}_{block}_branch", 2 if stage > 2 and block == 0 else 1
            y = F.relu(affine(blobs, f"{name}2a", f"{name}2a_bn", x, stride))
            y = F.relu(affine(blobs, f"{name}2b", f"{name}2b_bn", y, 1))
            y = affine(blobs, f"{name}2c", f"{name}2c_bn", y, 1)
            x = F.relu(y + (affine(blobs, f"{name}1", f"{name}1_bn", x, stride) if block == 0 else x))
        features.append(x)
    return features


def backbone_of(blobs: dict[str, Tensor], depth: int = 50, norm: NormKind = "frozen_bn") -> Backbone:
    return build_backbone(
        name=f"resnet{depth}",
        weights=InitialWeights(to_torchvision(blobs, "here").state, "here"),
        norm=norm,
        frozen_stages=2,
        stride_in_1x1=True,
        fold=False,
    ).eval()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("depth", "statistics", "norm"), [(50, False, "frozen_bn"), (50, True, "eval_bn"), (101, False, "frozen_bn")]
)
@pytest.mark.parametrize("biased", [(), ("conv1",), ("conv1", "res3_1_branch2b", "res5_0_branch1")])
def test_the_backbone_computes_what_caffes_does(
    depth: int, statistics: bool, norm: NormKind, biased: tuple[str, ...]
) -> None:
    blobs = published(depth, statistics)
    for name in biased:
        blobs[f"{name}_b"] = torch.linspace(-0.5, 0.5, blobs[f"{name}_w"].shape[0])
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 64, 96)
    ours = backbone_of(blobs, depth, norm).double()(pixels.double())
    for found, wanted in zip(ours, caffes_features(blobs, pixels, depth)[1:], strict=True):
        assert wanted.std() > 0.1
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@torch.no_grad()
def test_a_bottleneck_by_hand() -> None:
    """C4's first block: its stride takes every second pixel before the 3x3 convolution."""
    blobs = published()
    stage = backbone_of(blobs).stages[3]
    assert isinstance(stage, torch.nn.Sequential)
    x = torch.rand(1, 512, 4, 6)
    name = "res4_0_branch"
    w = {part: blobs[f"{name}{part}_w"] for part in ("1", "2a", "2b", "2c")}

    def scaled(part: str, y: Tensor) -> Tensor:
        return y * blobs[f"{name}{part}_bn_s"].view(-1, 1, 1) + blobs[f"{name}{part}_bn_b"].view(-1, 1, 1)

    even = x[:, :, ::2, ::2]
    y = scaled("2a", torch.einsum("oi,bihw->bohw", w["2a"][:, :, 0, 0], even)).relu()
    padded = F.pad(y, (1, 1, 1, 1))
    shifted = [padded[:, :, r : r + 2, c : c + 3] for r in range(3) for c in range(3)]
    y = sum(torch.einsum("oi,bihw->bohw", w["2b"][:, :, k // 3, k % 3], part) for k, part in enumerate(shifted))
    assert isinstance(y, Tensor)
    y = scaled("2c", torch.einsum("oi,bihw->bohw", w["2c"][:, :, 0, 0], scaled("2b", y).relu()))
    y = y + scaled("1", torch.einsum("oi,bihw->bohw", w["1"][:, :, 0, 0], even))
    torch.testing.assert_close(stage[0](x), y.relu(), rtol=1e-4, atol=1e-5)


def test_scale_and_shift_are_exact_in_float32() -> None:
    """The frozen norm is x * scale + shift exactly."""
    blobs = published()
    norm = backbone_of(blobs).stages[0][1]  # type: ignore[index]
    assert torch.equal((norm.running_var + norm.eps).rsqrt(), torch.ones(64))
    x = torch.randn(2, 64, 3, 3)
    scale, shift = (blobs[f"res_conv1_bn_{end}"].view(1, 64, 1, 1) for end in ("s", "b"))
    assert torch.equal(norm(x), x * scale + shift)


@torch.no_grad()
def test_channels_stay_in_the_order_of_both_recipes() -> None:
    """conv1's first input channel is blue; both recipes give the network blue first."""
    blobs = published()
    assert torch.equal(to_torchvision(blobs, "here").state["conv1.weight"], blobs["conv1_w"])
    for recipe in ("detectron", "detectron2"):
        model = load_config(RECIPES / f"{recipe}.yaml", []).model
        assert model.pixels.order == "bgr"
        assert model.pixels.mean[0] < model.pixels.mean[2], "blue's mean over ImageNet is the smallest"
        assert (model.pixels.std, model.backbone.stride_in_1x1) == ((1.0, 1.0, 1.0), True)
        assert (model.backbone.name, model.backbone.weights) == ("resnet50", "data/weights/msra_resnet50.pth")


@torch.no_grad()
@pytest.mark.parametrize("statistics", [False, True])
def test_torchvisions_whole_network_loads_it_with_the_classifier(statistics: bool) -> None:
    blobs = published(statistics=statistics)
    state = to_torchvision(blobs, "here").state
    network = resnet50()
    network.load_state_dict(state)
    assert torch.equal(network.fc.weight, blobs["fc1000_w"])
    without = {name: value for name, value in blobs.items() if not name.startswith("fc")}
    assert state.keys() - to_torchvision(without, "here").state.keys() == {"fc.weight", "fc.bias"}


@pytest.mark.slow
def test_a_detectors_wrapper_is_opened_and_training_state_ignored(tmp_path: Path) -> None:
    blobs = published()
    plain = to_torchvision(read_weights(stored(tmp_path / "a.pkl", blobs)).tensors, "a").state
    left = {"conv1_w_momentum": torch.zeros(64, 3, 7, 7), "lr": torch.ones(1), "model_iter": torch.tensor([9])}
    file = stored(tmp_path / "b.pkl", {**left, **blobs}, wrapped=True)
    wrapped = to_torchvision(read_weights(file).tensors, "b").state
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(value, wrapped[name]) for name, value in plain.items())


@pytest.mark.parametrize("statistics", [False, True])
def test_missing_extra_and_misshapen_blobs_are_all_listed(statistics: bool) -> None:
    blobs = published(statistics=statistics)
    gone = [name for name in blobs if name.startswith("res5_2_")] + ["conv1_w", "fc1000_b"]
    for name in gone:
        del blobs[name]
    shift = "beta" if statistics else "b"
    blobs |= {f"res3_1_branch2a_bn_{shift}": torch.zeros(127), "res2_0_branch2a_w": torch.zeros(64, 64, 3, 3)}
    blobs |= {
        "res4_5_branch2c_b": torch.zeros(4),
        "fpn_res5_2_sum_w": torch.zeros(2, 2),
        "res3_4_branch2a_w": torch.ones(1),
    }
    blobs["fc1000_w"] = torch.full_like(blobs["fc1000_w"], float("nan"))
    with pytest.raises(CheckpointError) as caught:
        to_torchvision(blobs, "R-50.pkl")
    wanted = [
        *(f"missing {name} (" for name in gone if not re.fullmatch(r"res5_2_branch2[abc]_b", name)),
        f"res3_1_branch2a_bn_{shift} is (127,), wanted (128,)",
        "res2_0_branch2a_w is (64, 64, 3, 3), wanted (64, 64, 1, 1)",
        "res4_5_branch2c_b is (4,), wanted (1024,)",
        "unexpected fpn_res5_2_sum_w (2, 2)",
        "unexpected res3_4_branch2a_w (1,)",
        "fc1000_w has 2,048,000 of 2,048,000 values NaN or infinite",
    ]
    message = str(caught.value)
    assert [line for line in wanted if line not in message] == []
    assert f"R-50.pkl: does not fit the ResNet that it appears to be ({len(wanted)} errors)" in message


def test_a_file_of_something_else_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"not a ResNet of Caffe2: .*It holds 1: layer1\.0\.conv1\.weight"):
        to_torchvision({"layer1.0.conv1.weight": torch.zeros(1)}, "here")


@pytest.mark.slow
def test_the_command_line_writes_the_file_that_the_recipes_name(tool: Callable[..., Any], tmp_path: Path) -> None:
    blobs = published()
    blobs["conv1_b"] = torch.where(torch.arange(64) == 3, -0.25, 0.0)
    source, target = stored(tmp_path / "R-50.pkl", blobs), tmp_path / "weights" / "msra_resnet50.pth"
    outcome = tool("convert_weights.py", "msra_resnet", source, target)
    assert outcome.code == 0, outcome.err
    for words in ("MSRA's resnet50, with its classifier", "conv1_b is not zero (up to 0.25)", "267 tensors"):
        assert words in outcome.out
    state = torch.load(target, weights_only=True)
    assert float(state["bn1.running_mean"][3]) == 0.25
    assert float(state["bn1.running_mean"].abs().sum()) == 0.25
    assert read_weights(target).tensors.keys() == state.keys()
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("target", "more", "code", "words"),
    [
        ("R-50.pkl", (), 2, "the output would replace the input"),
        ("a.safetensors", (), 2, "written as .pth or .pt"),
        ("a.pth", ("seed=3",), 2, "for RetinaNets of other projects"),
        ("a.pth", (), 4, "not a ResNet of Caffe2"),
    ],
)
def test_its_errors_have_a_message_and_an_exit_code(
    tool: Callable[..., Any], tmp_path: Path, target: str, more: tuple[str, ...], code: int, words: str
) -> None:
    source = stored(tmp_path / "R-50.pkl", {"w": torch.from_numpy(np.zeros(3, np.float32))})
    outcome = tool("convert_weights.py", "msra_resnet", source, tmp_path / target, *more)
    assert (outcome.code, "Traceback" in outcome.err) == (code, False)
    assert words in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["R-50.pkl"]
