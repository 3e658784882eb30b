"""Weights of detectron2 and mmdetection: every tensor is mapped, and the network computes what the original does.

The references are written here with torch.nn.functional and the projects' own names.
"""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_weights import BLOCKS, Writer, detectron2, mmdetection
from places import RECIPES
from torch import Tensor

from retinanet.build.network import build_anchor_spec, build_loss_and_model
from retinanet.config.load import load_config
from retinanet.detection.anchors import cell_anchors
from retinanet.errors import CheckpointError, ConfigError
from retinanet.interop.classes import coco_categories
from retinanet.interop.convert import NO_OPTIONS, ConversionOptions, read_foreign
from retinanet.interop.formats import FORMATS, FormatName, build_config
from retinanet.interop.layout import Layout, order_from_scale_major, reorder_anchors, select_outputs
from retinanet.interop.naming import DETECTRON2, MMDETECTION, RETINANET, TORCHVISION, Shape, modules, name_map
from retinanet.interop.state_dicts import rescale_norms, with_current_names
from retinanet.model.retinanet import RetinaNet
from retinanet.run.checkpoint import Checkpoint, load_weights
from retinanet.structures import HeadOutputs


class Converted(NamedTuple):
    theirs: dict[str, Tensor]
    checkpoint: Checkpoint

    def model(self) -> RetinaNet:
        checkpoint = self.checkpoint
        _, model = build_loss_and_model(checkpoint.config, len(checkpoint.categories))
        load_weights(model, checkpoint.model, "converted")
        return model.eval()


def converted(name: FormatName, writer: Writer, folder: Path, options: ConversionOptions = NO_OPTIONS) -> Converted:
    torch.save({"state_dict": writer.state, "meta": {}}, folder / "theirs.pth")
    return Converted(writer.state, read_foreign(name, folder / "theirs.pth", options)[0])


@pytest.fixture(scope="module")
def from_detectron2(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return converted("detectron2", detectron2(classes=80, channels=32), tmp_path_factory.mktemp("d2"))


@pytest.fixture(scope="module")
def from_mmdetection(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return converted("mmdetection", mmdetection(classes=80, channels=32), tmp_path_factory.mktemp("mm"))


def frozen_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2)


def detectron2_block(state: dict[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    def step(part: str, y: Tensor, s: int = 1) -> Tensor:
        return frozen_norm(state, f"{name}.{part}.norm", conv(state, f"{name}.{part}", y, s))

    y = F.relu(step("conv1", x, stride))  # Caffe's: the stride is here
    y = step("conv3", F.relu(step("conv2", y)))
    return F.relu(y + (step("shortcut", x, stride) if f"{name}.shortcut.weight" in state else x))


def mmdetection_block(state: dict[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    def step(index: int, y: Tensor, s: int = 1) -> Tensor:
        return frozen_norm(state, f"{name}.bn{index}", conv(state, f"{name}.conv{index}", y, s))

    y = F.relu(step(1, x))
    y = step(3, F.relu(step(2, y, stride)))
    if f"{name}.downsample.0.weight" in state:
        x = frozen_norm(state, f"{name}.downsample.1", conv(state, f"{name}.downsample.0", x, stride))
    return F.relu(y + x)


def reference(
    state: dict[str, Tensor],
    x: Tensor,
    stem: tuple[str, str],
    block: Callable[[dict[str, Tensor], str, Tensor, int], Tensor],
    names: Callable[[str, int, int], str],
    p7_relu: bool,
) -> list[tuple[Tensor, Tensor]]:
    """A foreign RetinaNet-50: class and box maps of P3 to P7, each (B, channels, h, w)."""
    x = F.max_pool2d(F.relu(frozen_norm(state, stem[1], conv(state, stem[0], x, 2))), 3, 2, 1)
    features = []
    for stage, count in enumerate(BLOCKS[50], start=1):
        for index in range(count):
            x = block(state, names("block", stage, index), x, 2 if stage > 1 and index == 0 else 1)
        features.append(x)
    merged = [conv(state, names("lateral", level, 0), features[level + 1]) for level in range(3)]
    for level in (1, 0):
        merged[level] = merged[level] + F.interpolate(merged[level + 1], scale_factor=2, mode="nearest")
    levels = [conv(state, names("output", level, 0), merged[level]) for level in range(3)]
    p6 = conv(state, names("p6", 0, 0), features[-1], 2)
    levels += [p6, conv(state, names("p7", 0, 0), F.relu(p6) if p7_relu else p6, 2)]
    found = []
    for level in levels:
        maps = []
        for subnet in ("class", "box"):
            y = level
            for index in range(4):
                y = F.relu(conv(state, names(f"{subnet}_conv", index, 0), y))
            maps.append(conv(state, names(f"{subnet}_predict", 0, 0), y))
        found.append((maps[0], maps[1]))
    return found


def detectron2_names(kind: str, a: int, b: int) -> str:
    return {
        "block": f"backbone.bottom_up.res{a + 1}.{b}",
        "lateral": f"backbone.fpn_lateral{a + 3}",
        "output": f"backbone.fpn_output{a + 3}",
        "p6": "backbone.top_block.p6",
        "p7": "backbone.top_block.p7",
        "class_conv": f"head.cls_subnet.{2 * a}",
        "box_conv": f"head.bbox_subnet.{2 * a}",
        "class_predict": "head.cls_score",
        "box_predict": "head.bbox_pred",
    }[kind]


def mmdetection_names(kind: str, a: int, b: int) -> str:
    return {
        "block": f"backbone.layer{a}.{b}",
        "lateral": f"neck.lateral_convs.{a}.conv",
        "output": f"neck.fpn_convs.{a}.conv",
        "p6": "neck.fpn_convs.3.conv",
        "p7": "neck.fpn_convs.4.conv",
        "class_conv": f"bbox_head.cls_convs.{a}.conv",
        "box_conv": f"bbox_head.reg_convs.{a}.conv",
        "class_predict": "bbox_head.retina_cls",
        "box_predict": "bbox_head.retina_reg",
    }[kind]


def their_cell(size: float, ratio_outermost: bool) -> list[list[float]]:
    """Anchors of a cell in the two projects' orders, by plain loops."""
    scales, ratios = [2 ** (i / 3) for i in range(3)], [0.5, 1.0, 2.0]
    pairs = [(s, r) for r in ratios for s in scales] if ratio_outermost else [(s, r) for s in scales for r in ratios]
    boxes = []
    for scale, ratio in pairs:
        width = math.sqrt((size * scale) ** 2 / ratio)
        boxes.append([-width / 2, -ratio * width / 2, width / 2, ratio * width / 2])
    return boxes


def assert_outputs_are_theirs(outputs: HeadOutputs, maps: list[tuple[Tensor, Tensor]], ratio_outermost: bool) -> None:
    """Compare each cell's numbers, matched by their anchor box."""
    spec = build_anchor_spec(build_config("detectron2", LAYOUT, None, None).model)
    start = 0
    for level, (class_map, box_map) in enumerate(maps):
        ours = cell_anchors(32.0 * 2**level, 8 * 2**level, spec)
        theirs = torch.tensor(their_cell(32.0 * 2**level, ratio_outermost))
        place = torch.cdist(ours, theirs).argmin(dim=1).tolist()
        assert sorted(place) == list(range(9))
        rows, columns = class_map.shape[-2:]
        cells = rows * columns
        logits = outputs.logits_BAK[:, start : start + 9 * cells].reshape(1, rows, columns, 9, -1)
        deltas = outputs.deltas_BA4[:, start : start + 9 * cells].reshape(1, rows, columns, 9, 4)
        classes = logits.shape[-1]
        for anchor, there in enumerate(place):
            wanted = class_map[:, there * classes : (there + 1) * classes].permute(0, 2, 3, 1)
            torch.testing.assert_close(logits[..., anchor, :], wanted, atol=2e-4, rtol=1e-4)
            wanted = box_map[:, there * 4 : there * 4 + 4].permute(0, 2, 3, 1)
            torch.testing.assert_close(deltas[..., anchor, :], wanted, atol=2e-4, rtol=1e-4)
        start += 9 * cells
    assert start == outputs.logits_BAK.shape[1]


LAYOUT = Layout(
    shape=Shape(blocks=(3, 4, 6, 3), bottleneck=True, depth=4, head_gn=False),
    backbone="resnet50",
    channels=256,
    head_channels=256,
    p6_source="c5",
    anchors=9,
    outputs=80,
)


@torch.no_grad()
def test_detectron2s_network_computes_the_same_with_every_anchor_in_place(from_detectron2: Converted) -> None:
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 64, 128)
    names = ("backbone.bottom_up.stem.conv1", "backbone.bottom_up.stem.conv1.norm")
    maps = reference(from_detectron2.theirs, pixels, names, detectron2_block, detectron2_names, p7_relu=True)
    assert maps[0][0].std() > 0.1
    assert_outputs_are_theirs(from_detectron2.model()(pixels), maps, ratio_outermost=False)


@torch.no_grad()
def test_mmdetections_network_computes_the_same_with_every_anchor_in_place(from_mmdetection: Converted) -> None:
    torch.manual_seed(1)
    pixels = torch.randn(1, 3, 64, 128)
    state = from_mmdetection.theirs
    maps = reference(state, pixels, ("backbone.conv1", "backbone.bn1"), mmdetection_block, mmdetection_names, False)
    assert maps[0][0].std() > 0.1
    assert_outputs_are_theirs(from_mmdetection.model()(pixels), maps, ratio_outermost=True)


def test_all_numbers_arrive_and_no_others(from_detectron2: Converted, from_mmdetection: Converted) -> None:
    for one in (from_detectron2, from_mmdetection):
        floats = [v for v in one.theirs.values() if v.is_floating_point()]
        ours = [v for v in one.checkpoint.model.values() if v.is_floating_point()]
        assert len(floats) == len(ours)
        sums = sorted(round(float(v.double().sum()), 6) for v in floats)
        assert sums == sorted(round(float(v.double().sum()), 6) for v in ours)


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_config_is_that_of_the_recipe(name: FormatName) -> None:
    """Network, assignment, losses and inference of configs/recipes, without initial weights and schedule."""
    second = name == "torchvision_v2"
    layout = LAYOUT._replace(
        shape=LAYOUT.shape._replace(head_gn=second), p6_source="p5" if name == "torchvision_v1" else "c5"
    )
    built = build_config(name, layout, None, None).model_dump()
    recipe = load_config(RECIPES / f"{name}.yaml", []).model_dump()
    for config in (built, recipe):
        del config["model"]["backbone"]["weights"], config["eval"]["every"], config["eval"]["unit"]
    for section in ("model", "assign", "loss", "eval"):
        assert built[section] == recipe[section], section
    for key in ("shorter_side", "longer_side", "canvas", "resize", "canvases", "flip", "scale_jitter", "color_jitter"):
        assert built["data"][key] == recipe["data"][key], key


@pytest.mark.parametrize("naming", [TORCHVISION, DETECTRON2, MMDETECTION])
@pytest.mark.parametrize("head_gn", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_maps_of_names_are_bijections_and_invert(naming: Any, head_gn: bool, bottleneck: bool) -> None:
    shape = Shape(blocks=(2, 3, 4, 2), bottleneck=bottleneck, depth=3, head_gn=head_gn)
    there, back = name_map(RETINANET, naming, shape), name_map(naming, RETINANET, shape)
    assert {back[theirs]: theirs for theirs in there.values()} == there
    assert len(set(modules(naming, shape))) == len(modules(naming, shape)) == len(there)
    assert not any("{" in name for name in there.values())


def test_the_order_of_anchors_by_hand() -> None:
    """Two scales a, b and three ratios x, y, z: detectron2 ax ay az bx by bz, this project ax bx ay by az bz."""
    assert order_from_scale_major(ratios=3, scales=2) == [0, 3, 1, 4, 2, 5]
    channels = torch.arange(12.0)
    assert reorder_anchors(channels, [0, 3, 1, 4, 2, 5]).tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    assert select_outputs(torch.arange(6.0), anchors=2, rows=[2, 0]).tolist() == [2, 0, 5, 3]


@pytest.mark.slow
def test_depth_classes_and_anchors_are_read_off_the_tensors(tmp_path: Path) -> None:
    for depth, name in ((18, "resnet18"), (34, "resnet34"), (101, "resnet101")):
        writer = mmdetection(depth, classes=5, anchors=6, channels=16)
        options = NO_OPTIONS._replace(overrides=["model.anchors.aspect_ratios=[0.5,1]"])
        checkpoint = converted("mmdetection", writer, tmp_path, options).checkpoint
        config = checkpoint.config.model
        assert (config.backbone.name, config.fpn.channels, config.head.depth) == (name, 16, 4)
        assert len(checkpoint.categories) == 5
    with pytest.raises(CheckpointError, match=r"has 6 anchors per cell, model.anchors has 9.*key=value"):
        converted("mmdetection", writer, tmp_path)


@pytest.mark.slow
def test_resnexts_are_recognised_by_their_groups(tmp_path: Path) -> None:
    writer = mmdetection(50, classes=3, channels=8)
    width = 128
    for name, value in list(writer.state.items()):
        found = re.fullmatch(r"backbone\.layer(\d)\.(\d+)\.(conv\d|bn[12])\.(\w+)", name)
        if found:
            middle = width * 2 ** (int(found[1]) - 1)
            match found[3]:
                case "conv1":
                    shape = (middle, *value.shape[1:])
                case "conv2":
                    shape = (middle, middle // 32, 3, 3)
                case "conv3":
                    shape = (value.shape[0], middle, 1, 1)
                case _:
                    shape = (middle,) if value.dim() else ()
            writer.state[name] = torch.ones(shape, dtype=value.dtype)
    checkpoint = converted("mmdetection", writer, tmp_path).checkpoint
    assert checkpoint.config.model.backbone.name == "resnext50_32x4d"
    writer.state["backbone.layer1.0.conv2.weight"] = torch.ones(128, 8, 3, 3)
    with pytest.raises(CheckpointError, match="is not supported; supported are resnet18"):
        converted("mmdetection", writer, tmp_path)


def test_missing_extra_and_misshapen_tensors_are_all_listed(tmp_path: Path) -> None:
    writer = mmdetection(18, classes=4, channels=16)
    state = writer.state
    gone = [
        name
        for name in state
        if name.startswith(("backbone.layer3.0.", "bbox_head.cls_convs.2.")) and "num_" not in name
    ]
    for name in gone:
        del state[name]
    del state["backbone.bn1.running_var"], state["neck.fpn_convs.4.conv.bias"]
    state["neck.lateral_convs.1.conv.bias"] = torch.zeros(17)
    state["bbox_head.retina_reg.bias"] = torch.zeros(35)
    state["rpn_head.conv.weight"] = torch.zeros(1)
    state["neck.fpn_convs.5.conv.bias"] = torch.zeros(16)
    state["bbox_head.retina_cls.scale"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as caught:
        converted("mmdetection", writer, tmp_path)
    message = str(caught.value)
    assert len(gone) == 17
    wanted = [
        *(f"missing {name} " for name in gone),
        "missing backbone.bn1.running_var (64,)",
        "missing neck.fpn_convs.4.conv.bias (16,)",
        "neck.lateral_convs.1.conv.bias is (17,), wanted (16,)",
        "bbox_head.retina_reg.bias is (35,), wanted (36,)",
        "unexpected rpn_head.conv.weight (1,)",
        "unexpected neck.fpn_convs.5.conv.bias (16,)",
        "unexpected bbox_head.retina_cls.scale (2,)",
    ]
    assert [line for line in wanted if line not in message] == []
    assert f"({len(wanted)} errors)" in message


def test_tensors_that_are_not_finite_are_listed_with_the_other_errors(tmp_path: Path) -> None:
    writer = mmdetection(18, classes=4, channels=16)
    writer.state["bbox_head.retina_reg.bias"][[0, 7]] = torch.tensor([float("nan"), float("-inf")])
    writer.state["backbone.bn1.running_var"][5] = float("inf")
    del writer.state["neck.fpn_convs.4.conv.bias"]
    with pytest.raises(CheckpointError) as caught:
        converted("mmdetection", writer, tmp_path)
    message = str(caught.value)
    for line in (
        "(3 errors)",
        "missing neck.fpn_convs.4.conv.bias (16,)",
        "bbox_head.retina_reg.bias has 2 of 36 values NaN or infinite",
        "backbone.bn1.running_var has 1 of 64 values NaN or infinite",
    ):
        assert line in message


@pytest.mark.slow
def test_names_of_distributed_training_lose_their_prefix(tmp_path: Path) -> None:
    plain = mmdetection(18, classes=4, channels=16).state
    torch.save({"state_dict": plain}, tmp_path / "a.pth")
    torch.save({"state_dict": {f"module.{name}": value for name, value in plain.items()}}, tmp_path / "b.pth")
    (bare, lines), (wrapped, other_lines) = (
        read_foreign("mmdetection", tmp_path / file, NO_OPTIONS) for file in ("a.pth", "b.pth")
    )
    assert bare.model.keys() == wrapped.model.keys()
    assert all(torch.equal(value, wrapped.model[name]) for name, value in bare.model.items())
    assert not any("prefix" in line for line in lines)
    assert any("the prefix 'module.' of the training program was removed" in line for line in other_lines)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no head\.cls_score\.weight.*Is the format right"):
        converted("detectron2", mmdetection(18, channels=8), tmp_path)


@pytest.mark.slow
def test_counts_of_batches_may_be_missing_or_there(tmp_path: Path) -> None:
    writer = mmdetection(18, classes=2, channels=8)
    with_counts = converted("mmdetection", writer, tmp_path).checkpoint.model
    for name in [name for name in writer.state if name.endswith("num_batches_tracked")]:
        del writer.state[name]
    without = converted("mmdetection", writer, tmp_path).checkpoint.model
    assert with_counts.keys() == without.keys()
    assert int(with_counts["backbone.stages.0.1.num_batches_tracked"]) == 90_000
    frozen = NO_OPTIONS._replace(overrides=["model.backbone.norm=frozen_bn"])
    writer = mmdetection(18, classes=2, channels=8)
    assert not any("num_batches" in n for n in converted("mmdetection", writer, tmp_path, frozen).checkpoint.model)


@pytest.mark.slow
def test_group_norm_heads_have_no_biases_or_zero_ones(tmp_path: Path) -> None:
    writer = mmdetection(18, classes=2, channels=32, head_gn=True)
    assert converted("mmdetection", writer, tmp_path).checkpoint.config.model.head.norm == "gn"
    writer.state["bbox_head.cls_convs.1.conv.bias"] = torch.zeros(32)
    converted("mmdetection", writer, tmp_path)
    writer.state["bbox_head.reg_convs.3.conv.bias"] = torch.full((32,), 0.5)
    with pytest.raises(CheckpointError, match=r"bbox_head\.reg_convs\.3\.conv\.bias is not zero"):
        converted("mmdetection", writer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "std", "order", "caffe"),
    [
        ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "bgr", True),
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb", False),
        ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "bgr", False),
    ],
)
def test_detectron2s_pixels_and_anchors_are_read_off_the_file(
    tmp_path: Path, mean: tuple[float, ...], std: tuple[float, ...], order: str, caffe: bool
) -> None:
    writer = detectron2(classes=2, channels=8)
    writer.state["pixel_mean"] = torch.tensor(mean).view(3, 1, 1)
    writer.state["pixel_std"] = torch.tensor(std).view(3, 1, 1)
    for level in range(5):
        writer.state[f"anchor_generator.cell_anchors.{level}"] = torch.tensor(their_cell(32.0 * 2**level, False))
    model = converted("detectron2", writer, tmp_path).checkpoint.config.model
    assert model.pixels.order == order
    assert model.pixels.mean == pytest.approx(mean)
    assert model.pixels.std == pytest.approx(std)
    assert model.backbone.stride_in_1x1 is caffe
    writer.state["pixel_mean"][1] = float("nan")
    with pytest.raises(CheckpointError, match="pixel_mean has 1 of 3 values NaN or infinite"):
        converted("detectron2", writer, tmp_path)
    writer.state["pixel_mean"] = torch.tensor(mean).view(3, 1, 1)
    writer.state["anchor_generator.cell_anchors.2"] *= 1.1
    with pytest.raises(CheckpointError, match="its anchors on P5 are not"):
        converted("detectron2", writer, tmp_path)


@pytest.mark.slow
def test_a_zoos_pickle_becomes_the_same_checkpoint(tmp_path: Path, from_detectron2: Converted) -> None:
    arrays = {name: value.numpy() for name, value in from_detectron2.theirs.items()}
    zoo = {"model": arrays, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(zoo, protocol=2))
    checkpoint, lines = read_foreign("detectron2", tmp_path / "zoo.pkl", NO_OPTIONS)
    assert checkpoint.config == from_detectron2.checkpoint.config
    assert checkpoint.categories == coco_categories()
    assert all(torch.equal(v, from_detectron2.checkpoint.model[n]) for n, v in checkpoint.model.items())
    assert "strides in 1x1 convolutions" in "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(("style", "caffe"), [("caffe", True), ("pytorch", False)])
def test_mmdetections_meta_names_classes_and_style(tmp_path: Path, style: str, caffe: bool) -> None:
    """Its files contain numpy scalars."""
    writer = mmdetection(50, classes=2, channels=8)
    meta = {
        "dataset_meta": {"CLASSES": ("cat", "dog")},
        "cfg": f"model = dict(style='{style}')",
        "lr": np.float64(0.02),
    }
    torch.save({"state_dict": writer.state, "meta": {**meta, "iter": np.int64(3)}}, tmp_path / "a.pth")
    checkpoint, _ = read_foreign("mmdetection", tmp_path / "a.pth", NO_OPTIONS)
    assert [tuple(c) for c in checkpoint.categories] == [(1, "cat"), (2, "dog")]
    model = checkpoint.config.model
    assert model.backbone.stride_in_1x1 is caffe
    assert (model.pixels.order, model.pixels.std[0]) == (("bgr", 1.0) if caffe else ("rgb", 58.395))


def test_torchvisions_first_names_are_known() -> None:
    old = {
        "head.classification_head.conv.6.bias": torch.zeros(1),
        "head.regression_head.conv.2.weight": torch.zeros(2),
        "backbone.fpn.inner_blocks.1.weight": torch.zeros(3),
        "backbone.fpn.layer_blocks.2.bias": torch.zeros(4),
        "backbone.body.conv1.weight": torch.zeros(5),
    }
    assert list(with_current_names(old)) == [
        "head.classification_head.conv.3.0.bias",
        "head.regression_head.conv.1.0.weight",
        "backbone.fpn.inner_blocks.1.0.weight",
        "backbone.fpn.layer_blocks.2.0.bias",
        "backbone.body.conv1.weight",
    ]
    new = with_current_names(old)
    assert with_current_names(new) == new


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_norms_of_another_eps_compute_the_same(eps: float) -> None:
    torch.manual_seed(0)
    state = {
        "n.weight": torch.randn(6),
        "n.bias": torch.randn(6),
        "n.running_mean": torch.randn(6),
        "n.running_var": torch.tensor([1.0, 2.0, 1e-3, 1e-7, 1e-12, 30.0]),
    }
    ours = rescale_norms(state, eps)
    x = torch.randn(2, 6, 3, 3) * 1e-3 + state["n.running_mean"].view(1, 6, 1, 1)
    added = max(eps, 1e-30)  # torch 2.11 refuses 0, and no variance here changes by this
    wanted = F.batch_norm(x, *(state[f"n.{k}"] for k in ("running_mean", "running_var", "weight", "bias")), eps=added)
    torch.testing.assert_close(frozen_norm(ours, "n", x), wanted, rtol=1e-4, atol=1e-4)
    assert rescale_norms(state, 1e-5) == state
    assert set(ours) == set(state)


def test_overrides_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    writer = mmdetection(18, classes=2, channels=8)
    with pytest.raises(ConfigError, match=r"model\.backbone\.nam"):
        converted("mmdetection", writer, tmp_path, NO_OPTIONS._replace(overrides=["model.backbone.nam=x"]))
    with pytest.raises(CheckpointError, match=r"missing backbone\.layer1\.2"):
        converted("mmdetection", writer, tmp_path, NO_OPTIONS._replace(overrides=["model.backbone.name=resnet34"]))
