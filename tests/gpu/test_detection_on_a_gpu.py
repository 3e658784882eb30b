"""Detections of the GPU compared with those of the CPU from the same outputs, and from the same weights."""

import pytest
import torch

from benchmarks.gpu.numerics import Setting, compare_detections
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.postprocess import DetectRule, detect
from retinanet.detection.scores import SIGMOID

SPEC = AnchorSpec((16.0, 32.0, 64.0, 128.0, 256.0), (1.0, 1.4), (0.5, 1.0, 2.0), 0.5, "none", "stride")
RULE = DetectRule(
    score_threshold=0.05, topk=1000, nms_iou=0.5, detections=100, class_agnostic=False, empty_boxes="keep"
)
CANVAS, CLASSES = (96, 128), 3
SIZES = [(96, 128), (80, 101), (40, 128), (96, 60), (17, 90)]


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        RULE._replace(score_threshold=0.0, topk=60, nms_iou=0.3, detections=300),
        RULE._replace(class_agnostic=True, detections=10, empty_boxes="drop_before_nms"),
        RULE._replace(empty_boxes="drop_last"),
    ],
    ids=["usual", "many", "agnostic", "no empty boxes"],
)
def test_post_processing_equals_the_cpus(rule: DetectRule, images: int, device: torch.device) -> None:
    """The GPU takes all images together, the CPU one by one."""
    generator = torch.Generator().manual_seed(images)
    anchors = len(pyramid_anchors(CANVAS, SPEC, torch.device("cpu")).boxes_A4)
    logits = torch.randn((images, anchors, CLASSES), generator=generator) * 2 - 3
    logits[images // 2] -= 3 * (images > 2)  # one image with few candidates
    deltas = torch.randn((images, anchors, 4), generator=generator) * 0.4
    sizes, originals = torch.tensor(SIZES[:images]), torch.tensor(SIZES[:images]) * 3
    found = []
    for where in (torch.device("cpu"), device):
        own_sizes = sizes.to(where), originals.to(where)
        pyramid = pyramid_anchors(CANVAS, SPEC, where)
        found.append(detect(logits.to(where), deltas.to(where), pyramid, *own_sizes, rule=rule, scoring=SIGMOID))
    assert sum(len(image.scores_D) for image in found[0]) > 5 * images
    for own, wanted in zip(found[1], found[0], strict=True):
        assert {tensor.device.type for tensor in own} == {device.type}
        assert torch.equal(own.classes_D.cpu(), wanted.classes_D)
        torch.testing.assert_close(own.scores_D.cpu(), wanted.scores_D, rtol=0, atol=1e-6)
        torch.testing.assert_close(own.boxes_D4.cpu(), wanted.boxes_D4, rtol=1e-5, atol=1e-3)


def test_detections_of_a_network_equal_the_cpus(setting: Setting) -> None:
    compare_detections(setting)
    assert not setting.checks.bad
