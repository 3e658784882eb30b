"""Fixtures for the tests of exporting: a detector with scores far enough apart to compare, and a small one."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from retinanet.build.network import build_loss_and_model
from retinanet.config.schema import Config
from retinanet.evaluation.detector import Detector, build_detector
from retinanet.evaluation.saved import SavedDetector
from retinanet.model.backbone import Backbone
from retinanet.model.retinanet import RetinaNet
from retinanet.run.checkpoint import load_checkpoint, save_checkpoint
from retinanet.structures import Batch, Category, Detections

Tiny = Callable[..., Config]


def sharpen(source: Path, target: Path) -> Path:
    """A checkpoint with large last weights of the heads: random boxes with scores that do not tie."""
    saved = load_checkpoint(source)
    generator = torch.Generator().manual_seed(1)
    weights = dict(saved.weights())
    for name, spread in (("class_head.predict.weight", 0.15), ("box_head.predict.weight", 0.02)):
        weights[name] = torch.randn(weights[name].shape, generator=generator) * spread
    save_checkpoint(target, saved._replace(model=weights, average={}, optimizer={}, scaler={}))
    return target


def with_short_network(detector: Detector) -> Detector:
    """The detector with one convolution a stage in place of a ResNet's four, and heads that only predict.

    The compiler needs a second for every few layers; pyramid, predictions and all that follows stay as they are.
    """
    network = deepcopy(detector.model)
    assert isinstance(network, RetinaNet)
    widths = (3, *[16] * (5 - len(network.backbone.channels)), *network.backbone.channels)
    generator = torch.Generator().manual_seed(2)
    stages: list[nn.Module] = []
    for given, made in pairwise(widths):
        convolution = nn.Conv2d(given, made, 3, stride=2, padding=1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(convolution.bias)
        stages.append(nn.Sequential(convolution, nn.ReLU()))
    network.backbone = Backbone(stages, network.backbone.channels, frozen_stages=0)
    network.class_head.tower = network.box_head.tower = nn.Sequential()
    # Its features are larger than a ResNet's, and scores near 1 would tie.
    network.class_head.predict.weight.data *= 0.2
    network.box_head.predict.weight.data *= 0.5
    return detector._replace(model=network.eval())


def detector_with_p2(tiny: Tiny) -> SavedDetector:
    """A short network with P2, whose random weights detect something."""
    config = tiny(
        *("model.fpn.finest=p2", "model.anchors.sizes=[4, 8, 16, 32, 64, 128]", "model.channels_last=false"),
        *("eval.score_threshold=0.02", "eval.topk=40"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        _, model = build_loss_and_model(config, 3)
        torch.nn.init.normal_(model.class_head.predict.weight, std=0.03)
    detector = with_short_network(build_detector(config, model, torch.device("cpu")))
    categories = tuple(Category(number, f"class {number}") for number in (1, 2, 3))
    return SavedDetector(detector=detector, config=config, categories=categories, step=3)


def random_batch(count: int, canvas: tuple[int, int], seed: int = 0) -> Batch:
    """Smooth noise; each image smaller than the previous one, and stored at 2 times the height, 3 times the width."""
    generator = torch.Generator().manual_seed(seed)
    height, width = canvas
    coarse = torch.rand((count, 3, height // 8 + 2, width // 8 + 2), generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=canvas, mode="bilinear").to(torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)  # as `collate` makes them
    sizes = torch.tensor([[height - 3 * i, width - 5 * i] for i in range(count)])
    for image, (h, w) in zip(images, sizes.tolist(), strict=True):
        image[:, h:] = 0
        image[:, :, w:] = 0
    return Batch(
        images=images,
        sizes_B2=sizes,
        original_sizes_B2=sizes * torch.tensor([2, 3]),
        image_ids_B=torch.arange(count),
        targets=[],
    )


def assert_same(found: Sequence[Detections], wanted: Sequence[Detections], pixels: float = 1e-2) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert len(theirs.scores_D) > 5
        torch.testing.assert_close(ours.scores_D, theirs.scores_D, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.boxes_D4, theirs.boxes_D4, rtol=0, atol=pixels)
        assert torch.equal(ours.classes_D, theirs.classes_D)
