"""A whole detector as `model.backbone.weights` gives its backbone."""

from pathlib import Path

import pytest
import torch
from foreign_weights import mmdetection

from retinanet.build.network import build_loss_and_model, build_model
from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError
from retinanet.interop.backbone_file import read_backbone_weights
from retinanet.model.backbone import build_backbone
from retinanet.run.checkpoint import Checkpoint, Progress
from retinanet.run.published import write_inference_checkpoint
from retinanet.structures import Category


def config(name: str) -> Config:
    sizes = ("model.fpn.channels=8", "model.head.depth=0", "model.backbone.norm=bn", "model.backbone.weights=none")
    return with_overrides(Config(), [f"model.backbone.name={name}", *sizes])


@pytest.fixture(autouse=True)
def _whole_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinanet.build.network.build_backbone", build_backbone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_this_projects_detector_gives_its_backbone(tmp_path: Path, name: str, suffix: str) -> None:
    torch.manual_seed(1)
    _, theirs = build_loss_and_model(config(name), 1)
    path = tmp_path / f"best{suffix}"
    saved = Checkpoint(config(name), (Category(1, "a"),), Progress(step=1), theirs.state_dict())
    write_inference_checkpoint(path, saved)
    weights = read_backbone_weights(name, str(path))
    assert weights is not None
    assert "is a whole detector (this project); its backbone is loaded" in weights.note
    own = build_model(config(name).model, 2, [0.0] * 2, weights).backbone.state_dict()
    counted = [key for key in own if not key.endswith("num_batches_tracked")]
    assert all(torch.equal(own[key], theirs.backbone.state_dict()[key]) for key in counted)


@pytest.mark.slow
def test_another_projects_detector_gives_its_backbone(tmp_path: Path) -> None:
    state = mmdetection(18, classes=2, channels=8).state
    path = tmp_path / "epoch_12.pth"
    torch.save({"state_dict": state, "meta": {}}, path)
    weights = read_backbone_weights("resnet18", str(path))
    assert weights is not None
    assert "(mmdetection)" in weights.note
    model = build_model(config("resnet18").model, 2, [0.0] * 2, weights)
    assert torch.equal(model.backbone.stages[4][1].conv2.weight, state["backbone.layer4.1.conv2.weight"])
    with pytest.raises(CheckpointError, match=r"with the backbone resnet18, but model\.backbone\.name is resnet50"):
        read_backbone_weights("resnet50", str(path))
