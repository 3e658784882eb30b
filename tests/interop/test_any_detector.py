"""What `predict` and `eval` take as a detector: runs, files of other projects, names; what a mistyped path means."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import foreign_weights
import pytest
import torch
from torchvision import models

from retinanet.commands.predict import main as predict_main
from retinanet.config.load import load_config
from retinanet.config.model_keys import ModelKeys
from retinanet.diagnostics.doctor.gather import run_folder
from retinanet.errors import CheckpointError, ConfigError
from retinanet.export.runtime import load_any
from retinanet.interop.any_detector import find_checkpoint, open_detector
from retinanet.interop.detector_file import read_detector


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with runs/own."""
    shutil.copytree(trained, tmp_path / "runs" / "own")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def test_the_folder_of_a_run_is_its_best_checkpoint(runs: Path) -> None:
    best = Path("runs/own/checkpoints/best.pt")
    assert [find_checkpoint(word) for word in ("runs/own", "runs/own/checkpoints", best)] == [best] * 3
    shutil.copytree("runs/own/checkpoints", "mine")
    assert find_checkpoint("mine") == Path("mine/best.pt"), "checkpoints that were copied alone"


@pytest.mark.parametrize(
    "word",
    ["runs/own/checkpoint/best.pt", "best.pt", "runs/own/best.pt", "runs/onw/checkpoints/best.pt", "runs", "x.onnx"],
)
def test_a_mistyped_path_is_answered_with_the_nearest(runs: Path, word: str) -> None:
    with pytest.raises(CheckpointError, match=r"(nearest (is|are)|there is) runs/own/checkpoints/(best|last)\.pt"):
        find_checkpoint(word)
    with pytest.raises(CheckpointError, match=r"runs/own/checkpoints/best\.pt"):
        read_detector(ModelKeys(weights="runs/own/checkpoint/best.pt"))


def test_a_path_with_nothing_near_is_only_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("best.pt")
    assert str(caught.value) == "best.pt: no such checkpoint."
    with pytest.raises(CheckpointError, match="did you mean torchvision_v2_coco"):
        find_checkpoint("torchvision_v2")


def test_a_run_without_a_best_checkpoint_names_the_other(runs: Path) -> None:
    (runs / "own" / "checkpoints" / "best.pt").unlink()
    with pytest.raises(
        CheckpointError, match=r"no file runs/own/checkpoints/best\.pt\); there is runs/own/checkp.*last"
    ):
        find_checkpoint("runs/own")
    shutil.rmtree(runs / "own" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"holds no run with a checkpoint"):
        find_checkpoint("runs/own")


@pytest.mark.parametrize("value", ["runs/own", "torchvision_v1_coco"])
def test_a_detector_given_as_an_option_is_to_be_given_alone(runs: Path, value: str) -> None:
    with pytest.raises(CheckpointError, match=f"give the detector alone, as the first word: {value}"):
        find_checkpoint(f"weights={value}")


def test_a_run_without_its_config_names_where_it_is(runs: Path) -> None:
    (runs / "own" / "config.yaml").unlink()
    remedy = r"hold it: retinanet config show runs/own/checkpoints/best\.pt > runs/own/config\.yaml"
    with pytest.raises(ConfigError, match=remedy):
        load_config("runs/own/config.yaml", [])
    with pytest.raises(ConfigError, match=remedy):
        run_folder(Path("runs/own"))


def test_a_published_name_asks_for_the_same_download(offline: Path, shapes: Path) -> None:
    published = models.detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1.url
    with pytest.raises(CheckpointError) as caught:
        predict_main(["torchvision_v2_coco", str(shapes / "val")], "retinanet predict")
    for part in ("torchvision_v2_coco", published, str(offline / published.rsplit("/", 1)[1]), "no network in this"):
        assert part in str(caught.value)


def test_files_of_other_projects_detect_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    classes = (("d2.pth", 80), ("d2_four.pth", 4))
    for name, count in classes:
        content = {"model": foreign_weights.detectron2(classes=count).state, "experiment": "retinanet-1"}
        torch.save(content, tmp_path / name)
    network = models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "v1.pt", _use_new_zipfile_serialization=False)
    with caplog.at_level(logging.WARNING):
        assert open_detector(tmp_path / "d2.pth").categories[0].name == "person"
        assert open_detector(tmp_path / "d2_four.pth").categories[0].name == "class 0"
        categories = load_any(tmp_path / "v1.pt", ["device=cpu"]).categories
    assert (len(categories), categories[0].name) == (80, "person"), "without torchvision's outputs that are no classes"
    assert "80 outputs are taken for COCO's classes" in caplog.text
    assert "; 4 of its 4 classes have no names: `retinanet convert --classes` gives them" in caplog.text


def test_a_file_of_another_architecture_is_named(tmp_path: Path) -> None:
    torch.save({"roi_head.box.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: a two-stage detector such as Faster R-CNN"):
        open_detector(tmp_path / "other.pth")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_half_a_checkpoint_is_called_damaged(trained: Path, tmp_path: Path, suffix: str) -> None:
    from retinanet.run.checkpoint import load_checkpoint
    from retinanet.run.published import write_inference_checkpoint

    best = trained / "checkpoints" / "best.pt"
    if suffix == ".safetensors":
        write_inference_checkpoint(tmp_path / "best.safetensors", load_checkpoint(best))
        best = tmp_path / "best.safetensors"
    data = best.read_bytes()
    (tmp_path / f"half{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        open_detector(tmp_path / f"half{suffix}")
