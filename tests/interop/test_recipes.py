"""The named recipes: they load, document themselves and train, and torchvision's give torchvision's numbers."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from places import RECIPES
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from retinanet.build.losses import build_criterion
from retinanet.build.network import build_loss_and_model
from retinanet.build.rules import build_assign_rule, build_resize_rule
from retinanet.config.load import load_config
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.images import decode_image
from retinanet.data.loader import eval_batches
from retinanet.data.transforms import normalise
from retinanet.data.upload import to_device
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import assign_batch
from retinanet.evaluation.detector import build_detector
from retinanet.losses.criterion import Divisor, StepPositives, criterion, normaliser
from retinanet.model.retinanet import RetinaNet
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.metric_rows import read_rows
from retinanet.structures import Batch
from retinanet.training.engine import run_training

PUBLISHED = {
    "paper": 34.0,
    "detectron": 35.7,
    "detectron2": 37.4,
    "mmdetection": 36.5,
    "torchvision_v1": 36.4,
    "torchvision_v2": 41.5,
}
CPU = torch.device("cpu")
CONVENTIONS = {
    "model.backbone": {"weights", "norm", "frozen_stages", "stride_in_1x1"},
    "model.fpn": {"p6_source", "p7_relu"},
    "model.head": {"norm", "prior"},
    "model.anchors": {"offset", "rounding", "spacing"},
    "model.pixels": {"order", "mean", "std"},
    "assign": {"positive_iou", "negative_iou", "low_quality", "crowd_overlap"},
    "loss.classification": {"kind", "alpha", "gamma"},
    "loss.box": {"kind", "weight"},
    "loss": {"normaliser"},
    "data": {"empty_images", "shorter_side", "longer_side", "resize", "canvases", "flip"},
    "schedule": {"milestones", "lr", "weight_decay", "norm_decay", "warmup", "warmup_factor"},
    "eval": {"score_threshold", "topk", "nms_iou", "detections", "empty_boxes"},
}
"""Keys that each file must contain itself, even where its base has the same value."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_states_every_convention_and_starts_with_its_card(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    card = text.split("\nbase:")[0].split("\nmodel:")[0]
    assert all(line.startswith("# ") for line in card.splitlines())
    for part in (f"AP {PUBLISHED[name]}", "# Data ", "# Command ", f"configs/recipes/{name}.yaml", "# Not the same: "):
        assert part in card
    assert "# Measured    not yet, because there was no GPU." in card
    written = yaml.safe_load(text)
    for section, keys in CONVENTIONS.items():
        tree = written
        for key in section.split("."):
            tree = tree[key]
        assert keys <= tree.keys(), section


def test_every_recipe_is_listed_here() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(PUBLISHED)


def small(name: str, root: Path, *more: str) -> Config:
    """The recipe on generated scenes, with images of 128 pixels and narrow heads."""
    sizes = ["data.shorter_side=[96, 128]" if name in ("detectron2", "torchvision_v2") else "data.shorter_side=[128]"]
    data = [f"data.root={root}", "data.longer_side=213", "data.workers=0"]
    data += ["data.train_annotations=annotations/train.json", "data.train_images=train"]
    data += ["data.val_annotations=annotations/val.json", "data.val_images=val"]
    overrides = ["model.backbone.weights=none", "device=cpu", "threads=1", *sizes, *data, *more]
    return load_config(RECIPES / f"{name}.yaml", overrides)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation scenes of a size that is not a multiple of a stride."""
    folder = tmp_path_factory.mktemp("recipes") / "shapes"
    generate_shapes(folder, train_images=4, val_images=2, size=(75, 131), seed=5)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_trains(name: str, scenes: Path, tmp_path: Path) -> None:
    length = ["schedule.epochs=1", "schedule.milestones=[1]"] if name.startswith(("mm", "torch")) else []
    length = length or ["schedule.iterations=2", "schedule.milestones=[1]"]
    settings = [
        "schedule.batch_size=2",
        "schedule.reference_batch=2",
        "schedule.warmup=0",
        "log.pictures=0",
        "eval.every=0",
    ]
    settings.append("schedule.lr=0.0000001")  # random weights under batch norms that do nothing
    narrow = ["model.fpn.channels=32", "model.head.depth=1", "log.every=1"]
    run_training(small(name, scenes, *length, *settings, *narrow), tmp_path / "run")
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    assert len(rows) == 2
    assert all(math.isfinite(row["loss"]) and row["loss_box"] > 0 and row["grad_norm"] > 0 for row in rows)


def copy_weights(theirs: TorchvisionRetinaNet, ours: RetinaNet) -> None:
    """Copy torchvision's tensors, part by part in the order of both state dicts; anchors have the same order."""
    pairs = [
        (theirs.backbone.body, ours.backbone),
        (theirs.backbone.fpn.inner_blocks, ours.fpn.lateral),
        (theirs.backbone.fpn.layer_blocks, ours.fpn.output),
        (theirs.backbone.fpn.extra_blocks.p6, ours.fpn.p6),
        (theirs.backbone.fpn.extra_blocks.p7, ours.fpn.p7),
        (theirs.head.classification_head, ours.class_head),
        (theirs.head.regression_head, ours.box_head),
    ]
    for source, target in pairs:
        values = [v for name, v in source.state_dict().items() if not name.endswith("num_batches_tracked")]
        slots = [v for name, v in target.state_dict().items() if not name.endswith("num_batches_tracked")]
        for value, slot in zip(values, slots, strict=True):
            slot.copy_(value)


def loud(model: TorchvisionRetinaNet) -> None:
    """Enlarge weights so that scores and boxes differ from anchor to anchor without saturating."""
    with torch.no_grad():
        for name, module in model.backbone.body.named_modules():
            if name.endswith("bn3"):
                module.weight.fill_(0.2)
        for module in (*model.head.modules(), *model.backbone.fpn.modules()):
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(3.0)
        model.head.regression_head.bbox_reg.weight.mul_(0.3)
        model.head.classification_head.cls_logits.bias.fill_(-2.5)


def our_losses(config: Config, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class and box loss of a batch as `engine.train_step` computes them on one rank."""
    detector = build_detector(config, model, CPU)
    pyramid = pyramid_anchors((batch.images.shape[2], batch.images.shape[3]), detector.anchors, CPU)
    assignment = assign_batch(pyramid, batch.targets, build_assign_rule(config))
    outputs = model(normalise(batch.images, batch.sizes_B2, detector.pixels, False))
    step = StepPositives(ranks_R=assignment.positives().sum()[None], running_R=None, rank=0, images=len(batch.targets))
    divisor = Divisor(normaliser(config.loss.normaliser, assignment.positives(), step), len(batch.targets))
    seeds_B = torch.zeros(len(batch.targets), dtype=torch.int64)
    losses = criterion(outputs, assignment, pyramid.boxes_A4, build_criterion(config), divisor, seeds_B)
    return losses.class_B.sum(), losses.box_B.sum()


Maker = Callable[..., TorchvisionRetinaNet]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "maker"), [("torchvision_v1", retinanet_resnet50_fpn), ("torchvision_v2", retinanet_resnet50_fpn_v2)]
)
def test_torchvisions_recipes_give_torchvisions_losses_and_detections(name: str, maker: Maker, scenes: Path) -> None:
    """The same files and weights through both projects, from the image file to the loss and to the boxes."""
    config = small(name, scenes, "eval.score_threshold=0.1")
    dataset: CocoDataset = load_coco(scenes / "annotations/val.json", scenes / "val", "none")
    classes = len(dataset.categories)
    torch.manual_seed(0)
    theirs = maker(
        weights=None, weights_backbone=None, num_classes=classes, min_size=128, max_size=213, score_thresh=0.1
    ).eval()
    loud(theirs)
    _, ours = build_loss_and_model(config, classes)
    copy_weights(theirs, ours.eval())
    batch = next(
        eval_batches(dataset, build_resize_rule(config), batch_size=2, rank=0, world_size=1, workers=0, pin=False)
    )

    images = [decode_image(record.path).float() / 255 for record in dataset.images]
    truth = [
        {"boxes": torch.from_numpy(record.boxes_G4), "labels": torch.from_numpy(record.classes_G)}
        for record in dataset.images
    ]
    with torch.no_grad():
        moved, targets = theirs.transform(images, truth)
        features = list(theirs.backbone(moved.tensors).values())
        outputs = theirs.head(features)
        expected = theirs.compute_loss(targets, outputs, theirs.anchor_generator(moved, features))
        class_loss, box_loss = our_losses(config, ours, batch)
        found, wanted = build_detector(config, ours, CPU)(to_device(batch, CPU)), theirs(images)
    assert tuple(batch.images.shape) == tuple(moved.tensors.shape)
    assert class_loss.item() == pytest.approx(expected["classification"].item(), rel=1e-4)
    assert box_loss.item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-4)
    for ours_found, theirs_found in zip(found, wanted, strict=True):
        assert len(theirs_found["scores"]) > 50
        assert len(theirs_found["scores"].unique()) > 0.9 * len(theirs_found["scores"])
        torch.testing.assert_close(ours_found.scores_D, theirs_found["scores"], rtol=1e-3, atol=1e-4)
        assert (ours_found.classes_D == theirs_found["labels"]).float().mean().item() > 0.97
        near = (ours_found.boxes_D4 - theirs_found["boxes"]).abs().amax(dim=1) < 0.1
        assert near.float().mean().item() > 0.97, "neighbours of one score may swap"
