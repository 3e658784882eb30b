"""From torchvision's weights to boxes by the command lines, at torchvision's own 800 pixels.

`pytest -s` prints the largest differences; PARITY_IMAGES=3 uses three photographs.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from places import SHARED
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from retinanet.data.images import decode_image

PHOTOGRAPHS = SHARED / "coco144" / "val2017"
IMAGES = int(os.environ.get("PARITY_IMAGES", "1"))
SAME_SCORE = 1e-5
"""Detections whose scores differ by less may change places."""
SAME_BOX = 0.02 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 0.05
"""Pixels; without AVX512 sums are rounded in another order (measured: 0.021)."""


def louder(model: nn.Module) -> nn.Module:
    """Enlarge the last weights: initial random ones score below the threshold everywhere."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_logits.weight", "bbox_reg.weight")):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return model.eval()


def largest_box_difference(ours: list[dict[str, Any]], theirs: dict[str, Tensor]) -> float:
    """Largest distance in pixels of a torchvision box from this project's nearest one of the same class and score."""
    boxes_D4 = torch.tensor([row["bbox"] for row in ours])
    boxes_D4[:, 2:] += boxes_D4[:, :2]
    classes_D, scores_D = (torch.tensor([row[key] for row in ours]) for key in ("category_id", "score"))
    apart = (boxes_D4[None] - theirs["boxes"][:, None]).abs().amax(dim=2)
    alike = (classes_D == theirs["labels"][:, None]) & ((scores_D - theirs["scores"][:, None]).abs() < SAME_SCORE)
    return float(torch.where(alike, apart, torch.inf).amin(dim=1).max())


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="needs photographs that are not part of the project")
@pytest.mark.parametrize(
    ("version", "build"), [("torchvision_v1", retinanet_resnet50_fpn), ("torchvision_v2", retinanet_resnet50_fpn_v2)]
)
def test_converted_weights_detect_what_torchvision_does(
    version: str, build: Callable[..., nn.Module], tmp_path: Path, tool: Callable[..., Any]
) -> None:
    torch.manual_seed(1)
    model = louder(build(weights=None, weights_backbone=None))
    torch.save(model.state_dict(), tmp_path / "in.pth")
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:IMAGES]
    assert tool("convert_weights.py", version, tmp_path / "in.pth", tmp_path / "out.pt").code == 0
    assert tool("predict.py", tmp_path / "out.pt", *files, "--output", tmp_path / "found").code == 0
    rows = json.loads((tmp_path / "found" / "detections.json").read_text(encoding="utf-8"))
    for image_id, file in enumerate(files, start=1):
        with torch.no_grad():
            theirs = model([decode_image(file).float() / 255])[0]
        ours = [row for row in rows if row["image_id"] == image_id]
        assert len(ours) == len(theirs["boxes"]) == 300
        scores = float((torch.tensor([row["score"] for row in ours]) - theirs["scores"]).abs().max())
        boxes = largest_box_difference(ours, theirs)
        print(f"\nparity: {version} {file.name} boxes {boxes:.1e} pixels, scores by rank {scores:.1e}", end="")
        assert scores < SAME_SCORE
        assert boxes < SAME_BOX  # predict.py rounds to 0.001; sides reach 640 pixels
