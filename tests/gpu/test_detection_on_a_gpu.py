"""Detections of the GPU compared with those of the CPU from the same outputs, and from the same weights."""

import pytest
import torch

from benchmarks.gpu.numerics import Setting, compare_detections
from retinanet.build.network import build_loss_and_model, in_memory_order, prepare_torch
from retinanet.config.load import config_from_dict
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.postprocess import DetectRule, detect
from retinanet.detection.scores import SIGMOID
from retinanet.evaluation.detector import build_detector
from retinanet.model.epilogue import ConvRelu
from retinanet.model.folding import inference_copy

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_fused_epilogues_compute_what_plain_operators_do(precision: str, name: str, device: torch.device) -> None:
    config = config_from_dict(
        {"precision": precision, "deterministic": False, "model": {"backbone": {"name": name}}}, "test"
    )
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    prepare_torch(config)
    try:
        model = build_loss_and_model(config, 3)[1].to(device).eval()
        detector = build_detector(config, model, device)
        plain = in_memory_order(inference_copy(model, detector.precision), channels_last=detector.channels_last)
        images = torch.rand(2, 3, 192, 256, device=device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device.type, detector.precision):
            found, wanted = detector.model(images), plain(images)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=True)
        torch.backends.cudnn.benchmark = before[1]
    layers = [layer for layer in detector.model.modules() if isinstance(layer, ConvRelu)]
    assert bool(layers) == (device.type == "cuda")
    assert all(layer.fused for layer in layers), "cuDNN has no kernel for some"
    for own, expected in zip(found, wanted, strict=True):
        error = (own.float() - expected.float()).abs().max() / expected.float().abs().max()
        assert error < 0.05
