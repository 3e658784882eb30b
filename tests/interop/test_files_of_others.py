"""Files that users give as weights: of other keys, prefixes and architectures, packed, or not the file at all."""

import gzip
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retinanet.config.model_keys import ModelKeys
from retinanet.errors import CheckpointError
from retinanet.files import wrong_download
from retinanet.interop.backbone_file import read_backbone_weights
from retinanet.interop.detector_file import read_detector
from retinanet.interop.naming import TORCHVISION
from retinanet.interop.weights_file import read_weights
from retinanet.run.published import open_checkpoint

STATE = {f"{TORCHVISION.class_predict}.weight": torch.ones(9, 4, 3, 3), "backbone.body.conv1.weight": torch.ones(2, 2)}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_detector(ModelKeys(weights=str(path)))
    return str(caught.value)


@pytest.mark.parametrize("key", ["model_state_dict", "net", "weights", "anything"])
def test_the_only_state_dict_of_a_file_is_found_under_any_key(tmp_path: Path, key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    path = saved(tmp_path / "w.pth", {"epoch": 3, key: STATE, "optimizer_state_dict": optimizer, "loss": 0.1})
    assert read_weights(path).tensors.keys() == STATE.keys()


def test_without_exactly_one_state_dict_the_keys_are_named(tmp_path: Path) -> None:
    two = {"generator": STATE, "critic": STATE}
    assert "2 state dicts (generator, critic)" in refusal(saved(tmp_path / "two.pth", two))
    assert "it holds lr, epoch" in refusal(saved(tmp_path / "none.pth", {"lr": 0.1, "epoch": 2}))
    assert "it holds a list" in refusal(saved(tmp_path / "list.pth", [STATE]))


@pytest.mark.parametrize("prefix", ["model.", "net.detector.", "module."])
def test_a_detector_is_found_under_a_prefix_among_other_tensors(tmp_path: Path, prefix: str) -> None:
    state = {"n_averaged": torch.tensor(3), **{prefix + name: value for name, value in STATE.items()}}
    file = read_weights(saved(tmp_path / "w.ckpt", {"state_dict": state}))
    assert (file.tensors.keys(), file.stripped) == (STATE.keys(), prefix)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("roi_heads.box_head.fc6.weight", "Faster R-CNN"),
        ("head.regression_head.bbox_ctrness.weight", "FCOS"),
        ("head.classification_head.conv.0.0.weight", "class output is missing"),
    ],
)
def test_other_architectures_are_named(tmp_path: Path, name: str, what: str) -> None:
    class_output = STATE if "ctrness" in name else {}
    path = saved(tmp_path / "w.pth", {**class_output, "backbone.body.conv1.weight": torch.ones(2), name: torch.ones(2)})
    assert what in refusal(path)


def test_the_backbone_of_another_architecture_is_found_below_its_prefix(tmp_path: Path) -> None:
    body: dict[str, Tensor] = {"conv1.weight": torch.ones(2), "layer1.0.conv1.weight": torch.ones(3)}
    state = {**{f"backbone.body.{name}": value for name, value in body.items()}, "roi_heads.x": torch.ones(1)}
    weights = read_backbone_weights("resnet50", str(saved(tmp_path / "w.pth", state)))
    assert weights is not None
    assert weights.tensors.keys() == body.keys()
    assert "below 'backbone.body.' are loaded (2 of 3)" in weights.note


def test_packed_files_name_the_command_that_unpacks_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", STATE)
    with gzip.open(tmp_path / "w.pth.gz", "wb") as file:
        file.write(path.read_bytes())
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        tar.add(path, "w.pth")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.write(path, "w.pth")
    assert "gunzip --keep" in refusal(tmp_path / "w.pth.gz")
    assert "tar xf" in refusal(tmp_path / "w.tar")
    assert "a zip archive, of w.pth" in refusal(tmp_path / "w.zip")


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty (0 bytes)"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    ],
)
def test_what_was_saved_in_place_of_the_file_is_named(tmp_path: Path, suffix: str, content: bytes, part: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert part in refusal(path)
    with pytest.raises(CheckpointError, match=part.replace("(", r"\(").replace(")", r"\)")):
        open_checkpoint(path)


def test_real_content_is_no_wrong_download() -> None:
    assert not any(
        wrong_download(start) for start in (b"PK\x03\x04", b"\x80\x02}", b'[{"image_id": 1', b"\xff\xd8\xff")
    )


def test_a_folder_of_weights_names_the_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert f"here {tmp_path / 'model.safetensors'}" in refusal(tmp_path)
