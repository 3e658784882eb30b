"""Other projects' detectors that are used without a conversion, whole or in parts, wrapped or not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import retinanet
from retinanet.config.model_keys import ModelKeys
from retinanet.export.runtime import load_any
from retinanet.interop.detector_file import read_detector
from retinanet.interop.weights_file import read_weights

PIXELS = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
EVERYTHING = {"eval.score_threshold": 0.0, "eval.detections": 10, "data.shorter_side": [64], "data.longer_side": 64}


def of_torchvision(outputs: int = 3, ratios: tuple[float, ...] = (0.5, 1.0, 2.0)) -> dict[str, Tensor]:
    """A small RetinaNet of torchvision: a ResNet-18 and a pyramid of 16 channels."""
    torch.manual_seed(outputs)
    extra = LastLevelP6P7(256, 256)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, returned_layers=[2, 3, 4], extra_blocks=extra
    )
    sizes = tuple((x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)) for x in (32, 64, 128, 256, 512))
    state: dict[str, Tensor] = RetinaNet(
        backbone, outputs, anchor_generator=AnchorGenerator(sizes, (ratios,) * 5)
    ).state_dict()
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return of_torchvision()


def boxes(path: Path | str) -> np.ndarray:
    return retinanet.load(path, device="cpu", overrides=EVERYTHING)(PIXELS).boxes


def test_a_file_of_torchvision_detects_as_its_conversion(
    state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": state, "epoch": 3}, tmp_path / "model_3.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "model.safetensors")
    detector = retinanet.load(tmp_path / "model_3.pth", device="cpu", overrides=EVERYTHING)
    assert detector.names == ("class 0", "class 1", "class 2")
    assert "file in the format torchvision_v1, converted in memory; 3 of its 3 classes have no names" in caplog.text
    wanted = detector(PIXELS).boxes
    assert len(wanted) == 10
    assert np.array_equal(wanted, boxes(tmp_path / "model.safetensors"))
    assert [one.name for one in load_any(tmp_path / "model_3.pth", ["device=cpu"]).categories] == list(detector.names)


def test_the_91_outputs_of_torchvision_are_the_80_classes_of_coco(tmp_path: Path) -> None:
    torch.save(of_torchvision(91), tmp_path / "a.pth")
    assert retinanet.load(tmp_path / "a.pth", device="cpu").names[:2] == ("person", "bicycle")
    torch.save(of_torchvision(80), tmp_path / "b.pth")
    names = retinanet.load(tmp_path / "b.pth", device="cpu").names
    assert (len(names), names[0]) == (80, "class 0"), "which labels 80 outputs are is not known"
    assert read_detector(ModelKeys(weights=str(tmp_path / "b.pth"))).notes == ()


def test_keys_of_the_network_describe_a_file_of_another_project(tmp_path: Path) -> None:
    torch.save(of_torchvision(ratios=(1.0,)), tmp_path / "a.pth")
    with pytest.raises(retinanet.CheckpointError, match=r"has 3 anchors per cell, model\.anchors has 9"):
        retinanet.load(tmp_path / "a.pth")
    words = {"model.anchors.aspect_ratios": [1.0]}
    assert len(retinanet.load(tmp_path / "a.pth", device="cpu", overrides={**EVERYTHING, **words})(PIXELS)) == 10


@pytest.mark.parametrize(
    ("part", "wrapper"),
    [
        ("backbone.body.", "_orig_mod."),
        ("backbone.body.layer1.", "_checkpoint_wrapped_module."),
        ("backbone.fpn.", "_fsdp_wrapped_module."),
    ],
)
def test_wrappers_of_parts_are_left_out(state: dict[str, Tensor], tmp_path: Path, part: str, wrapper: str) -> None:
    torch.save({name.replace(part, part + wrapper): value for name, value in state.items()}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").tensors.keys() == state.keys()


def test_weights_in_several_files_are_read_from_their_folder_or_their_index(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    names = [f"model.{name}" for name in state]
    files = [f"model-0000{1 + (i >= 50)}-of-00002.safetensors" for i in range(len(names))]
    for file in set(files):
        part = {name: state[name.removeprefix("model.")] for name, own in zip(names, files, strict=True) if own == file}
        save_file(part, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(names, files, strict=True))}), encoding="utf-8")
    for place in (tmp_path, index):
        file = read_weights(place)
        assert file.stripped == "model."
        assert all(torch.equal(file.tensors[name], value) for name, value in state.items())
        assert len(boxes(place)) == 10
    assert len(read_detector(ModelKeys(weights=str(tmp_path))).categories) == 3
    for read in (retinanet.load, lambda path: read_detector(ModelKeys(weights=str(path)))):
        with pytest.raises(retinanet.CheckpointError, match="part 2 of 2 of a detector's weights; give the folder"):
            read(tmp_path / files[-1])
    (tmp_path / files[0]).unlink()
    with pytest.raises(retinanet.CheckpointError, match=f"parts .* are missing[^~]*{files[0]}: no such file"):
        retinanet.load(tmp_path)
    index.write_text("{}", encoding="utf-8")
    with pytest.raises(retinanet.CheckpointError, match="names no files of weights"):
        read_weights(index)


def test_what_is_no_detector_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    backbone = {name.removeprefix("backbone.body."): state[name] for name in state if "body." in name}
    contents: tuple[tuple[object, str], ...] = (
        (backbone, "a backbone alone, not a checkpoint of this project, nor a RetinaNet of torchvision"),
        ({**backbone, "head.classification_head.module_list.0.weight": torch.ones(1)}, "a backbone alone"),
        ({"features.weight": torch.ones(1)}, "something else, not a checkpoint"),
        ({"head.classification_head.module_list.0.weight": torch.ones(1)}, "an SSD, not a checkpoint"),
        ({name: value.numpy() for name, value in backbone.items()}, "such as NumPy arrays; save torch.as_tensor"),
        ([state], "it holds a list; save model.state_dict"),
    )
    for content, message in contents:
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(retinanet.CheckpointError, match=message):
            retinanet.load(tmp_path / "a.pth")
    (tmp_path / ".metadata").touch()
    (tmp_path / "__0_0.distcp").touch()
    with pytest.raises(retinanet.CheckpointError, match="distributed checkpoint of torch; write it as one file first"):
        retinanet.load(tmp_path)
