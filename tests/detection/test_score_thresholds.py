"""Detections at a low score threshold contain those at a higher one, whatever limits apply."""

import pytest
import torch

from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.postprocess import GIVEN, DetectRule, detect


@pytest.mark.parametrize(("topk", "detections"), [(5, 100), (1000, 4), (7, 3), (1000, 1000)])
def test_a_higher_threshold_keeps_the_beginning(topk: int, detections: int) -> None:
    generator = torch.Generator().manual_seed(topk)
    anchors = AnchorSpec(
        sizes=(16.0, 32.0, 64.0, 128.0, 256.0),
        scales=(1.0,),
        aspect_ratios=(1.0,),
        offset=0.5,
        rounding="none",
        spacing="stride",
    )
    spec = pyramid_anchors((64, 64), anchors, torch.device("cpu"))
    count = len(spec.boxes_A4)
    scores = torch.rand((2, count, 3), generator=generator) ** 6
    deltas = 0.3 * torch.randn((2, count, 4), generator=generator)
    sizes = torch.tensor([[64, 64], [64, 50]])
    rule = DetectRule(
        score_threshold=0.001,
        topk=topk,
        nms_iou=0.5,
        detections=detections,
        class_agnostic=False,
        empty_boxes="drop_last",
    )
    low = detect(scores, deltas, spec, sizes, sizes, rule, GIVEN)
    high = detect(scores, deltas, spec, sizes, sizes, rule._replace(score_threshold=0.05), GIVEN)
    for all_of_them, few in zip(low, high, strict=True):
        above = all_of_them.scores_D > 0.05
        assert int(above.sum()) > 0
        for column, expected in zip(all_of_them, few, strict=True):
            assert torch.equal(column[above], expected)
