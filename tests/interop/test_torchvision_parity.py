"""torchvision's RetinaNets and this project's with the same random weights: equal outputs, losses, gradients, boxes.

torchvision's own model is the oracle throughout, its transform and its post-processing included. `pytest -s` prints a
line `parity: NAME LARGEST_DIFFERENCE` for each comparison.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from retinanet.build.losses import build_criterion
from retinanet.build.network import build_loss_and_model
from retinanet.build.rules import build_assign_rule, build_pixel_rule, build_resize_rule
from retinanet.data.coco import ImageRecord
from retinanet.data.transforms import NO_AUGMENT, collate, draw_changes, make_sample, normalise, tight_canvas
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import assign_batch
from retinanet.evaluation.detector import build_detector
from retinanet.interop.convert import NO_OPTIONS, read_foreign
from retinanet.interop.formats import FormatName
from retinanet.interop.naming import TORCHVISION
from retinanet.interop.state_dicts import export_state
from retinanet.interop.torchvision_out import torchvision_shape
from retinanet.losses.criterion import Divisor, StepPositives, criterion, normaliser
from retinanet.run.checkpoint import Checkpoint, load_weights
from retinanet.structures import Batch, Detections, HeadOutputs

CPU = torch.device("cpu")
CLASSES = 80
SHORTER, LONGER = 64, 96
SIZES = [(97, 133), (120, 76), (64, 170)]
"""Heights and widths; their canvases, together or alone, are not multiples of 128."""
VERSIONS: tuple[FormatName, ...] = ("torchvision_v1", "torchvision_v2")


def check(name: str, difference: float, bound: float) -> None:
    """Print a difference and compare it with its bound."""
    print(f"\nparity: {name} {difference:.2e}", end="")
    assert difference <= bound, name


def largest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b| over the whole tensor."""
    assert a.shape == b.shape
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12))


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """The model with every norm, bias and statistic away from its initial value, and scores spread over 0..1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                value.normal_(0, 0.2)
            elif name.endswith("weight") and value.dim() == 1:
                value.uniform_(0.4, 0.9)
            elif name.endswith("bias") and "cls_logits" not in name:
                value.normal_(0, 0.05)
            elif "classification_head.conv" in name or "regression_head.conv" in name:
                value.normal_(0, 0.03)
            elif name.endswith("cls_logits.weight"):
                value.normal_(0, 0.06)
            elif name.endswith("cls_logits.bias"):
                value.normal_(-4.0, 0.5)
            elif name.endswith("bbox_reg.weight"):
                value.normal_(0, 0.01)
    return model


class Pair(NamedTuple):
    """torchvision's model, the checkpoint converted from its state dict, and the model of that; all read only."""

    name: FormatName
    theirs: nn.Module
    checkpoint: Checkpoint
    ours: nn.Module


def make(name: FormatName, min_size: int = SHORTER) -> nn.Module:
    build: Callable[..., nn.Module] = retinanet_resnet50_fpn if name == "torchvision_v1" else retinanet_resnet50_fpn_v2
    return build(weights=None, weights_backbone=None, num_classes=CLASSES, min_size=min_size, max_size=LONGER)


@pytest.fixture(scope="module", params=VERSIONS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name: FormatName = request.param
    path = tmp_path_factory.mktemp("parity") / "theirs.pth"
    theirs = perturbed(make(name), seed=5)
    torch.save(theirs.state_dict(), path)
    overrides = [
        f"data.shorter_side=[{SHORTER}]",
        f"data.longer_side={LONGER}",
        "model.backbone.norm=bn",  # weights=None gives torchvision's v1 BatchNorms that train, as v2 has anyway
        "model.backbone.frozen_stages=0",
    ]
    checkpoint, _ = read_foreign(name, path, NO_OPTIONS._replace(overrides=overrides))
    _, ours = build_loss_and_model(checkpoint.config, CLASSES)
    load_weights(ours, checkpoint.model, "the converted weights")
    return Pair(name=name, theirs=theirs.eval(), checkpoint=checkpoint, ours=ours.eval())


def photographs(seed: int = 0) -> list[Tensor]:
    """Random images with some structure, (3, h, w) uint8, of SIZES."""
    torch.manual_seed(seed)
    images = []
    for height, width in SIZES:
        coarse = torch.rand(1, 3, height // 12 + 1, width // 12 + 1)
        image = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0] + 0.1 * torch.rand(
            3, height, width
        )
        images.append((image.clamp(0, 1) * 255).to(torch.uint8))
    return images


def truth(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (G, 4) and classes (G,) for each of SIZES, small and large; the last image has none."""
    rng = np.random.default_rng(seed)
    found = []
    for index, (height, width) in enumerate(SIZES):
        count = 0 if index == len(SIZES) - 1 else 5
        corner = rng.uniform(0, 0.6, (count, 2)) * (width, height)
        side = rng.uniform(0.08, 0.39, (count, 2)) * (width, height)
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        found.append((boxes, rng.integers(0, CLASSES, count)))
    return found


def our_batch(checkpoint: Checkpoint, images: list[Tensor], objects: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    resize_rule = build_resize_rule(checkpoint.config)
    samples = []
    for index, (image, (boxes, classes)) in enumerate(zip(images, objects, strict=True)):
        height, width = int(image.shape[1]), int(image.shape[2])
        record = ImageRecord(
            id=index,
            path=Path("x"),
            height=height,
            width=width,
            boxes_G4=boxes,
            classes_G=classes,
            crowd_C4=np.zeros((0, 4), np.float32),
        )
        fitted = resize_rule.fitted(height, width, SHORTER)
        canvas = resize_rule.image_canvas(fitted, resize_rule.aspect_bucket(height, width), SHORTER)
        rng = np.random.default_rng(0)
        samples.append(make_sample(image, record, fitted, canvas, NO_AUGMENT, draw_changes(rng), resize_rule.resize))
    return collate(samples, tight_canvas(samples))


def our_pixels(checkpoint: Checkpoint, batch: Batch) -> Tensor:
    return normalise(batch.images, batch.sizes_B2, build_pixel_rule(checkpoint.config), channels_last=True)


def unit(images: list[Tensor]) -> list[Tensor]:
    """As torchvision wants them: float in 0..1."""
    return [image.float() / 255 for image in images]


@pytest.mark.slow
@torch.no_grad()
def test_raw_outputs_are_the_same(pair: Pair) -> None:
    ours, theirs = pair.ours, pair.theirs
    batch = our_batch(pair.checkpoint, photographs(), truth())
    transformed, _ = theirs.transform(unit(photographs()))
    assert batch.images.shape == transformed.tensors.shape
    pixels = our_pixels(pair.checkpoint, batch)
    check(f"{pair.name} normalised pixels", largest(pixels, transformed.tensors), 1e-4)
    features = list(theirs.backbone(transformed.tensors).values())
    wanted = theirs.head(features)
    outputs: HeadOutputs = ours(pixels)
    assert wanted["cls_logits"].std() > 0.3, "logits that barely vary would prove nothing"
    assert wanted["bbox_regression"].std() > 0.02
    check(f"{pair.name} logits", largest(outputs.logits_BAK, wanted["cls_logits"]), 1e-4)
    check(f"{pair.name} deltas", largest(outputs.deltas_BA4, wanted["bbox_regression"]), 1e-4)
    anchors = theirs.anchor_generator(transformed, features)[0]
    spec = build_detector(pair.checkpoint.config, ours, CPU).anchors
    canvas = (pixels.shape[2], pixels.shape[3])
    check(f"{pair.name} anchors", largest(pyramid_anchors(canvas, spec, CPU).boxes_A4, anchors), 0)


def our_losses(pair: Pair, model: nn.Module, batch: Batch, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Class and box loss of a batch in the checkpoint's own assignment, losses and normaliser."""
    config = pair.checkpoint.config
    outputs = model(pixels)
    spec = build_detector(config, model, CPU).anchors
    pyramid = pyramid_anchors((pixels.shape[2], pixels.shape[3]), spec, CPU)
    assignment = assign_batch(pyramid, batch.targets, build_assign_rule(config))
    positives = assignment.positives()
    images = len(batch.targets)
    divisors = normaliser(
        config.loss.normaliser,
        positives,
        StepPositives(ranks_R=positives.sum()[None], running_R=None, rank=0, images=images),
    )
    seeds = torch.zeros(images, dtype=torch.int64)
    losses = criterion(outputs, assignment, pyramid.boxes_A4, build_criterion(config), Divisor(divisors, images), seeds)
    return losses.class_B.sum(), losses.box_B.sum()


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["stored_statistics", "batch_statistics"])
def test_losses_and_gradients_are_the_same(pair: Pair, training: bool) -> None:
    """From the same pixels, with both networks in float64, so that norms over few numbers do not amplify rounding.

    This project computes its losses in float32 all the same. In training, BatchNorm takes the batch's own statistics.
    """
    ours, theirs = (deepcopy(model).train(training).double() for model in (pair.ours, pair.theirs))
    targets = [{"boxes": torch.from_numpy(b), "labels": torch.from_numpy(c)} for b, c in truth()]
    batch = our_batch(pair.checkpoint, photographs(), truth())
    pixels = our_pixels(pair.checkpoint, batch).double()

    transformed, resized = theirs.transform(unit(photographs()), targets)
    transformed.tensors = pixels
    features = list(theirs.backbone(pixels).values())
    anchors = theirs.anchor_generator(transformed, features)
    wanted = theirs.compute_loss(resized, theirs.head(features), anchors)
    (wanted["classification"] + wanted["bbox_regression"]).backward()
    class_loss, box_loss = our_losses(pair, ours, batch, pixels)
    (class_loss + box_loss).backward()
    kind = "batch statistics" if training else "stored statistics"
    for mine, key in ((class_loss, "classification"), (box_loss, "bbox_regression")):
        check(f"{pair.name} {key} loss ({kind}), relative", relative(mine.detach(), wanted[key].detach()), 1e-5)
    assert min(wanted["bbox_regression"], wanted["classification"]) > 0.1

    shape = torchvision_shape(pair.checkpoint.config, pair.name)
    gradients = export_state({n: p.grad for n, p in ours.named_parameters() if p.grad is not None}, TORCHVISION, shape)
    parameters = dict(theirs.named_parameters())
    assert gradients.keys() == parameters.keys()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters.values())
    worst = max(relative(gradients[name], p.grad) for name, p in parameters.items())
    check(f"{pair.name} gradients ({kind}), relative, of {len(parameters)} parameters", worst, 1e-4)


def matched(mine: Detections, wanted: dict[str, Tensor]) -> tuple[float, float, float]:
    """Largest differences of boxes (pixels), scores, and scores rank by rank, over detections that are the same object.

    Each wanted detection must have its own of the same class, the nearest box. Equal scores may change places, and at
    the end of the list, where it is cut, one with the score of the last may be another.
    """
    assert len(mine.scores_D) == len(wanted["scores"])
    free = torch.ones(len(mine.scores_D), dtype=torch.bool)
    boxes = scores = 0.0
    for box, score, label in zip(wanted["boxes"], wanted["scores"], wanted["labels"], strict=True):
        distance = (mine.boxes_D4 - box).abs().amax(dim=1) + (mine.scores_D - score).abs()
        distance[~free | (mine.classes_D != label)] = torch.inf
        best = int(distance.argmin())
        if distance[best] > 0.1 and score - wanted["scores"][-1] < 1e-5:
            continue
        free[best] = False
        boxes = max(boxes, float((mine.boxes_D4[best] - box).abs().max()))
        scores = max(scores, float((mine.scores_D[best] - score).abs()))
    return boxes, scores, largest(mine.scores_D, wanted["scores"])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True], ids=["one_batch", "image_by_image"])
def test_detections_are_the_same(pair: Pair, alone: bool) -> None:
    ours, theirs = pair.ours, pair.theirs
    detector = build_detector(pair.checkpoint.config, ours, CPU)
    images = photographs(seed=1)
    groups = [[image] for image in images] if alone else [images]
    box_difference = score_difference = 0.0
    count = 0
    for group in groups:
        found = detector(
            our_batch(pair.checkpoint, group, [(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))] * len(group))
        )
        for mine, wanted in zip(found, theirs(unit(group)), strict=True):
            boxes, scores, ranks = matched(mine, wanted)
            box_difference = max(box_difference, boxes)
            score_difference = max(score_difference, scores, ranks)
            count += len(mine.scores_D)
    assert count > 200, "few detections would prove little"
    where = "image by image" if alone else "one batch"
    check(f"{pair.name} boxes of {count} detections ({where}), pixels", box_difference, 0.01)
    check(f"{pair.name} their scores, and scores rank by rank ({where})", score_difference, 1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_exported_weights_load_strictly_into_torchvisions_model_and_detect_the_same(pair: Pair) -> None:
    shape = torchvision_shape(pair.checkpoint.config, pair.name)
    exported = export_state(pair.checkpoint.model, TORCHVISION, shape)
    fresh = make(pair.name)
    fresh.load_state_dict(exported, strict=True)
    for name, value in pair.theirs.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    images = unit(photographs(seed=2))
    for mine, wanted in zip(fresh.eval()(images), pair.theirs(images), strict=True):
        assert torch.equal(mine["boxes"], wanted["boxes"])
        assert torch.equal(mine["scores"], wanted["scores"])
