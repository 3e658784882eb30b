"""The criterion against a slow loop over anchors, torchvision's heads, and the meaning of the normaliser."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetRegressionHead

from retinanet.build.losses import build_box_loss, build_class_loss
from retinanet.config.class_losses import BoxLossKeys, FocalKeys
from retinanet.detection import boxes
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.assign import AssignRule, BatchAssignment, assign, assign_batch
from retinanet.losses.classification import ClassificationLoss
from retinanet.losses.criterion import (
    RUNNING_START,
    Criterion,
    Divisor,
    Losses,
    Normaliser,
    StepPositives,
    criterion,
    image_seeds,
    move_running,
    normaliser,
)
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets, HeadOutputs, Targets

CLASSES = 3
SPEC = AnchorSpec((16.0, 32.0, 64.0, 128.0, 256.0), (1.0,), (0.5, 1.0, 2.0), 0.5, "none", "stride")
PYRAMID = pyramid_anchors((64, 80), SPEC, torch.device("cpu"))
ANCHORS = PYRAMID.boxes_A4
RULE = AssignRule(0.5, 0.4, True, low_quality_min_iou=0.0, low_quality_takes="best_box", crowd_overlap=0.5)
NO_CROWD = torch.zeros((0, 4))


def parts(kind: str = "smooth_l1", class_weight: float = 1.0, box_weight: float = 1.0) -> Criterion:
    box_loss = build_box_loss(BoxLossKeys.model_validate({"kind": kind}))
    return Criterion(build_class_loss(FocalKeys()), class_weight, box_loss, box_weight)


def losses_of(outputs: HeadOutputs, assignment: BatchAssignment, chosen: Criterion, normaliser_B: Tensor) -> Losses:
    """The criterion with ANCHORS, and seeds that no loss here uses."""
    seeds_B = torch.zeros(len(normaliser_B), dtype=torch.int64)
    return criterion(outputs, assignment, ANCHORS, chosen, Divisor(normaliser_B, len(normaliser_B)), seeds_B)


def counted(total: Tensor, images: int = 4) -> StepPositives:
    """A step of one rank."""
    return StepPositives(total[None], None, 0, images)


def image(*objects: tuple[float, float, float, float, int]) -> Targets:
    found = torch.tensor([o[:4] for o in objects]).reshape(-1, 4)
    return Targets(found, torch.tensor([o[4] for o in objects], dtype=torch.int64), NO_CROWD)


TARGETS = [
    image((4, 6, 22, 25, 0), (30, 8, 62, 36, 2)),
    image(),
    image((10, 20, 40, 60, 1)),
    image((50, 40, 66, 57, 1), (0, 0, 70, 60, 0)),
]


def case(targets: list[Targets] = TARGETS, seed: int = 0) -> tuple[HeadOutputs, BatchAssignment]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((len(targets), len(ANCHORS), CLASSES), generator=generator) * 2 - 2
    deltas = torch.randn((len(targets), len(ANCHORS), 4), generator=generator) * 0.3
    return HeadOutputs(logits.requires_grad_(), deltas.requires_grad_()), assign_batch(PYRAMID, targets, RULE)


def gradients(losses: Losses, outputs: HeadOutputs) -> tuple[Tensor, ...]:
    return torch.autograd.grad(losses.total(), outputs)


def loop(outputs: HeadOutputs, targets: list[Targets], divisors: list[float]) -> tuple[list[float], list[float], float]:
    """Class loss and box loss of each image, and the foreground's class loss: focal (0.25, 2), smooth L1 (1/9)."""
    class_B, box_B, foreground = [], [], 0.0
    for b, image_targets in enumerate(targets):
        found = assign(PYRAMID, image_targets, RULE)
        class_sum = box_sum = 0.0
        for a, label in enumerate(found.labels_A.tolist()):
            if label == IGNORE:
                continue
            anchor_loss = 0.0
            for k, x in enumerate(outputs.logits_BAK[b, a].tolist()):
                p = 1 / (1 + math.exp(-x))
                p_t, alpha_t = (p, 0.25) if k == label else (1 - p, 0.75)
                anchor_loss -= alpha_t * (1 - p_t) ** 2 * math.log(p_t)
            class_sum += anchor_loss
            if label == BACKGROUND:
                continue
            foreground += anchor_loss / divisors[b]
            box = image_targets.boxes_G4[found.matched_A[a]]
            wanted = boxes.encode(box[None].double(), ANCHORS[a][None].double())[0].tolist()
            for x, t in zip(outputs.deltas_BA4[b, a].tolist(), wanted, strict=True):
                d = abs(x - t)
                box_sum += d * d * 4.5 if d < 1 / 9 else d - 1 / 18
        class_B.append(class_sum / divisors[b])
        box_B.append(box_sum / divisors[b])
    return class_B, box_B, foreground


def test_the_case_holds_every_kind_of_anchor() -> None:
    _, assignment = case()
    assert set(assignment.labels_BA.unique().tolist()) == {IGNORE, BACKGROUND, 0, 1, 2}
    assert assignment.positives().tolist()[1] == 0
    assert (assignment.positives()[[0, 2, 3]] > 0).all()


@pytest.mark.parametrize("divisors", [[7.0] * 4, [1.0, 2.0, 3.0, 4.0]])
def test_equals_a_loop_over_anchors(divisors: list[float]) -> None:
    outputs, assignment = case()
    losses = losses_of(outputs, assignment, parts(), torch.tensor(divisors))
    class_B, box_B, foreground = loop(outputs, TARGETS, divisors)
    assert losses.class_B.tolist() == pytest.approx(class_B, rel=1e-5)
    assert losses.box_B.tolist() == pytest.approx(box_B, rel=1e-5)
    assert losses.foreground.item() == pytest.approx(foreground, rel=1e-5)
    assert losses.total().item() == pytest.approx(sum(class_B) + sum(box_B), rel=1e-5)
    assert losses.sums().tolist() == pytest.approx([sum(class_B), sum(box_B), foreground], rel=1e-5)
    assert not losses.sums().requires_grad
    assert not losses.foreground.requires_grad
    assert losses.finite().tolist() == [True] * 4


def test_weights_multiply_each_loss_and_its_foreground() -> None:
    outputs, assignment = case()
    plain = losses_of(outputs, assignment, parts(), torch.full((4,), 5.0))
    weighted = losses_of(outputs, assignment, parts("smooth_l1", 3.0, 0.5), torch.full((4,), 5.0))
    torch.testing.assert_close(weighted.class_B, 3 * plain.class_B)
    torch.testing.assert_close(weighted.box_B, 0.5 * plain.box_B)
    torch.testing.assert_close(weighted.foreground, 3 * plain.foreground)
    assert losses_of(outputs, assignment, parts("l1", 0.0, 0.0), torch.ones(4)).total().item() == 0


def test_micro_batches_with_the_shared_total_equal_one_batch() -> None:
    outputs, assignment = case()
    total = assignment.positives().sum()
    whole = losses_of(
        outputs, assignment, parts(), normaliser("batch_positives", assignment.positives(), counted(total))
    )
    summed = 0.0
    micro_gradients: list[tuple[Tensor, ...]] = []
    for start, stop in ((0, 1), (1, 4)):
        some, found = case(TARGETS)
        some = HeadOutputs(*(o.detach()[start:stop].clone().requires_grad_() for o in some))
        found = assign_batch(PYRAMID, TARGETS[start:stop], RULE)
        losses = losses_of(some, found, parts(), normaliser("batch_positives", found.positives(), counted(total)))
        summed += losses.total().item()
        micro_gradients.append(gradients(losses, some))
    assert summed == pytest.approx(whole.total().item(), rel=1e-6)
    for ours, pieces in zip(gradients(whole, outputs), zip(*micro_gradients, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(pieces), ours, rtol=1e-6, atol=1e-9)


def test_per_image_is_the_mean_over_images_of_torchvisions_heads() -> None:
    outputs, assignment = case()
    divisor_B = normaliser("image_positives", assignment.positives(), counted(assignment.positives().sum()))
    losses = losses_of(outputs, assignment, parts("l1"), divisor_B)
    matched = []
    for image_targets in TARGETS:
        found = assign(PYRAMID, image_targets, RULE)
        matched.append(torch.where(found.labels_A >= 0, found.matched_A, found.labels_A))
    oracle_targets = [{"boxes": t.boxes_G4, "labels": t.classes_G} for t in TARGETS]
    oracle_outputs = {"cls_logits": outputs.logits_BAK, "bbox_regression": outputs.deltas_BA4}
    class_oracle = RetinaNetClassificationHead(4, 3, CLASSES).compute_loss(oracle_targets, oracle_outputs, matched)
    box_oracle = RetinaNetRegressionHead(4, 3).compute_loss(oracle_targets, oracle_outputs, [ANCHORS] * 4, matched)
    torch.testing.assert_close(losses.class_B.sum(), class_oracle)
    torch.testing.assert_close(losses.box_B.sum(), box_oracle)
    oracle_gradients = torch.autograd.grad(class_oracle + box_oracle, outputs)
    for ours, oracle in zip(gradients(losses, outputs), oracle_gradients, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["rank_positives", "running_positives"])
def test_ranks_with_their_own_divisors_sum_to_the_peers_mean_over_gpus(kind: Normaliser) -> None:
    """Detectron, mmdetection and detectron2: each GPU divides its sum by its own number, gradients are averaged."""
    parts_of_ranks = TARGETS[:3], TARGETS[3:]
    positives_R = torch.tensor([int(case(targets)[1].positives().sum()) for targets in parts_of_ranks])
    running_R = move_running(torch.full((2,), RUNNING_START), positives_R)
    ours = expected = 0.0
    for rank, targets in enumerate(parts_of_ranks):
        outputs, assignment = case(targets, seed=rank)
        step = StepPositives(positives_R, running_R, rank, images=4)
        losses = losses_of(outputs, assignment, parts(), normaliser(kind, assignment.positives(), step))
        ours += losses.total().item()
        class_B, box_B, _ = loop(outputs, targets, [1.0] * len(targets))
        own = int(positives_R[rank])
        expected += (sum(class_B) + sum(box_B)) / (own if kind == "rank_positives" else 90 + own / 10) / 2
    assert positives_R.min() > 0
    assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "of_rank_0", "of_rank_1"),
    [
        ("batch_positives", [20, 20, 20], [20, 20, 20]),
        ("image_positives", [18, 6, 30], [18, 6, 30]),
        ("rank_positives", [16, 16, 16], [24, 24, 24]),
        ("running_positives", [100, 100, 100], [9, 9, 9]),
    ],
)
def test_normaliser_by_hand(kind: Normaliser, of_rank_0: list[float], of_rank_1: list[float]) -> None:
    """Six images on two ranks: 3, 0 and 5 positives on this one, 8 or 12 on it according to its number."""
    for rank, expected in enumerate((of_rank_0, of_rank_1)):
        step = StepPositives(torch.tensor([8, 12]), torch.tensor([50.0, 4.5]), rank, images=6)
        divisor_B = normaliser(kind, torch.tensor([3, 0, 5]), step)
        assert divisor_B.tolist() == expected
        assert divisor_B.dtype == torch.float32


@pytest.mark.parametrize(("kind", "least"), [("batch_positives", 1), ("image_positives", 6), ("rank_positives", 2)])
def test_a_batch_without_positives_divides_as_if_there_were_one(kind: Normaliser, least: float) -> None:
    step = StepPositives(torch.tensor([0, 0]), None, 1, images=6)
    assert normaliser(kind, torch.tensor([0, 0, 0]), step).tolist() == [least] * 3


def test_the_running_mean_is_detectron2s() -> None:
    """Its own rule in double precision: 0.9 old + 0.1 max(positives, 1), from 100, for each rank by itself."""
    running_R = torch.full((2,), RUNNING_START)
    expected = [100.0, 100.0]
    for positives in ([37, 210], [0, 5], [64, 0], [1, 9000]):
        running_R = move_running(running_R, torch.tensor(positives))
        expected = [old * 0.9 + max(new, 1) * (1 - 0.9) for old, new in zip(expected, positives, strict=True)]
        assert running_R.tolist() == pytest.approx(expected, rel=1e-6)
    assert running_R.dtype == torch.float32


@pytest.mark.parametrize("normal", ["batch_positives", "image_positives"])
@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_without_positives_only_the_class_loss_counts(kind: str, normal: Normaliser) -> None:
    outputs, assignment = case([image(), image()])
    positives_B = assignment.positives()
    losses = losses_of(outputs, assignment, parts(kind), normaliser(normal, positives_B, counted(positives_B.sum(), 2)))
    assert torch.isfinite(losses.class_B).all()
    assert (losses.class_B > 0).all()
    assert losses.box_B.tolist() == [0.0, 0.0]
    assert losses.foreground.item() == 0
    logit_gradient, delta_gradient = gradients(losses, outputs)
    assert logit_gradient.abs().sum().item() > 0
    assert delta_gradient.abs().sum().item() == 0


def test_an_image_with_a_nan_is_named() -> None:
    outputs, assignment = case()
    logits = outputs.logits_BAK.detach().clone()
    logits[2, 5, 1] = math.nan
    losses = losses_of(HeadOutputs(logits, outputs.deltas_BA4), assignment, parts(), torch.full((4,), 5.0))
    assert losses.finite().tolist() == [True, True, False, True]


def test_half_precision_outputs_under_autocast_give_float32_losses() -> None:
    outputs, assignment = case()
    half = HeadOutputs(*(o.detach().bfloat16() for o in outputs))
    expected = losses_of(HeadOutputs(*(o.float() for o in half)), assignment, parts(), torch.full((4,), 5.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(half, assignment, parts(), torch.full((4,), 5.0))
    for ours, wanted in zip(losses, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, wanted)


def test_seeds_depend_on_seed_step_and_image_and_not_on_the_batch() -> None:
    together = image_seeds(0, 7, [5, 9, -1])
    assert together.dtype == torch.int64
    assert (together >= 0).all()
    assert torch.equal(together[1:2], image_seeds(0, 7, [9]))
    others = [image_seeds(1, 7, [5]), image_seeds(0, 8, [5]), image_seeds(0, 7, [6]), together[1:2], together[2:]]
    assert len({together[0].item(), *(int(other) for other in others)}) == 6


def test_class_losses_see_boxes_without_gradient() -> None:
    """What the class loss receives besides the logits: detached deltas and box losses, in the order of positives."""
    outputs, assignment = case()
    seen: list[ClassTargets] = []

    def value(logits_BAK: Tensor, targets: ClassTargets) -> Tensor:
        seen.append(targets)
        return logits_BAK.sum(dim=2) * 0

    chosen = parts(box_weight=3.0)._replace(class_loss=ClassificationLoss(value))
    losses = losses_of(outputs, assignment, chosen, torch.full((4,), 5.0))
    (targets,) = seen
    assert not any(field.requires_grad for field in targets if isinstance(field, Tensor))
    assert torch.equal(targets.deltas_BA4, outputs.deltas_BA4)
    assert targets.images == 4
    image_P = (targets.labels_BA >= 0).nonzero()[:, 0]
    summed = torch.zeros(4).index_add(0, image_P, targets.box_loss_P) / 5
    torch.testing.assert_close(summed, losses.box_B.detach())
