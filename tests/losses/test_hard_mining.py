"""Hard example mining against a slow reference: Python floats, an IoU and a greedy NMS of its own over all anchors."""

import math
import random
from typing import Any, NamedTuple

import pydantic
import pytest
import torch
from host_reads import HostReads
from torch import Tensor
from torchvision.ops import nms

from retinanet.build.losses import build_ohem_rule
from retinanet.config.class_losses import Ohem13Keys, OhemKeys
from retinanet.detection.boxes import decode
from retinanet.losses import hard_mining
from retinanet.losses.hard_mining import OhemRule, Ranked, mine, nms_survivors, ohem
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

CASES = range(100)
Box = list[float]


class Case(NamedTuple):
    logits_BAK: Tensor
    targets: ClassTargets
    rule: OhemRule


def random_rule(pick: random.Random, ratio: int | None) -> OhemRule:
    return OhemRule(
        batch=pick.choice([4, 5, 8, 16, 200]),
        nms_iou=pick.choice([0.0, 0.3, 0.5, 0.7, 1.0]),
        ranking=pick.choice(["class", "class_and_box"]),
        nms_scope=pick.choice(["agnostic", "class"]),
        normaliser=pick.choice(["positives", "kept"]),
        ignored=pick.choice(["drop", "background"]),
        negatives_per_positive=ratio,
    )


def random_labels(pick: random.Random, images: int, count: int, classes: int) -> list[list[int]]:
    """Some images all ignored, some without positives, some with few and some with many."""
    labels = []
    for _ in range(images):
        p, q = pick.choice([(0.0, 0.2), (0.05, 0.2), (0.4, 0.1), (0.1, 0.0), (0.1, 0.2), (0.0, 1.0)])
        kinds = pick.choices(["positive", "ignored", "background"], [p, q, 1 - p - q], k=count)
        codes = {"ignored": IGNORE, "background": BACKGROUND}
        labels.append([pick.randrange(classes) if kind == "positive" else codes[kind] for kind in kinds])
    return labels


def random_case(number: int, ratio: int | None) -> Case:
    """Every third case has only a few distinct losses, exact in float64; every fourth has easy positives."""
    pick, generator = random.Random(number), torch.Generator().manual_seed(number)
    images, count, classes = pick.randint(1, 3), pick.randint(20, 110), pick.randint(1, 4)
    labels = torch.tensor(random_labels(pick, images, count, classes))
    logits = torch.randn((images, count, classes), generator=generator, dtype=torch.float64) * 3
    if number % 3 == 0:
        levels = torch.tensor([-800.0, -800.0, 750.0, 800.0], dtype=torch.float64)
        logits = levels[torch.randint(0, 4, logits.shape, generator=generator)]
    elif number % 4 == 0:
        positive = (labels >= 0)[..., None]
        mine_too = labels[..., None] == torch.arange(classes)
        logits = torch.where(positive, torch.where(mine_too, 9.0, -9.0) + 0.1 * logits, logits)
    corner = torch.rand((count, 2), generator=generator) * 80
    anchors = torch.cat([corner, corner + 10 + torch.rand((count, 2), generator=generator) * 30], dim=1)
    deltas = torch.randn((images, count, 4), generator=generator) * 0.3
    positives = int((labels >= 0).sum())
    targets = ClassTargets(
        labels_BA=labels,
        normaliser_B=torch.rand(images, generator=generator) * 5 + 1,
        images=pick.randint(images, 5),
        seeds_B=torch.zeros(images, dtype=torch.int64),
        anchors_A4=anchors,
        deltas_BA4=deltas,
        boxes_P4=torch.zeros((positives, 4)),
        box_loss_P=torch.rand(positives, generator=generator) * 4,
    )
    return Case(logits, targets, random_rule(pick, ratio))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def slow_cross_entropy(logits: list[float], label: int) -> float:
    return sum(softplus(-x if k == label else x) for k, x in enumerate(logits))


def slow_decode(deltas: Box, anchor: Box) -> Box:
    w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = anchor[0] + w / 2 + deltas[0] * w, anchor[1] + h / 2 + deltas[1] * h
    w, h = w * math.exp(deltas[2]), h * math.exp(deltas[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def slow_iou(a: Box, b: Box) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def slow_nms(order: list[int], boxes: list[Box], groups: list[int], threshold: float) -> list[int]:
    survivors: list[int] = []
    for i in order:
        if not any(groups[i] == groups[j] and slow_iou(boxes[i], boxes[j]) > threshold for j in survivors):
            survivors.append(i)
    return survivors


def slow_image(case: Case, image: int, box_loss: dict[tuple[int, int], float]) -> tuple[list[int], list[int]]:
    """The kept anchors of one image, and the labels they are trained to."""
    targets, rule = case.targets, case.rule
    logits, labels = case.logits_BAK[image].tolist(), targets.labels_BA[image].tolist()
    if rule.ignored == "background":
        labels = [BACKGROUND if label == IGNORE else label for label in labels]
    hardness = [slow_cross_entropy(x, label) for x, label in zip(logits, labels, strict=True)]
    if rule.ranking == "class_and_box":
        hardness = [value + box_loss.get((image, a), 0.0) for a, value in enumerate(hardness)]
    pairs = zip(targets.deltas_BA4[image].tolist(), targets.anchors_A4.tolist(), strict=True)
    boxes = [slow_decode(deltas, anchor) for deltas, anchor in pairs]
    groups = [x.index(max(x)) if rule.nms_scope == "class" else 0 for x in logits]
    order = sorted((a for a, label in enumerate(labels) if label != IGNORE), key=lambda a: (-hardness[a], a))
    survivors = slow_nms(order, boxes, groups, rule.nms_iou)
    if rule.negatives_per_positive is None:
        return survivors[: rule.batch], labels
    positives = [a for a in survivors if labels[a] >= 0][: rule.batch // (1 + rule.negatives_per_positive)]
    negatives = [a for a in survivors if labels[a] < 0][: rule.negatives_per_positive * len(positives)]
    return positives + negatives, labels


def slow_ohem(case: Case) -> tuple[Tensor, Tensor]:
    """Value (B, A) and gradient (B, A, K) in float64."""
    targets, rule = case.targets, case.rule
    value, gradient = torch.zeros(targets.labels_BA.shape, dtype=torch.float64), torch.zeros_like(case.logits_BAK)
    positives = (targets.labels_BA >= 0).nonzero().tolist()
    box_loss = {(b, a): loss for (b, a), loss in zip(positives, targets.box_loss_P.tolist(), strict=True)}
    for image in range(len(value)):
        kept, labels = slow_image(case, image, box_loss)
        divisor = targets.normaliser_B[image].item()
        if rule.normaliser == "kept":
            divisor = max(len(kept), 1) * targets.images
        for a in kept:
            logits = case.logits_BAK[image, a].tolist()
            value[image, a] = slow_cross_entropy(logits, labels[a]) / divisor
            for k, x in enumerate(logits):
                gradient[image, a, k] = (sigmoid(x) - (k == labels[a])) / divisor
    return value, gradient


def value_and_gradient(case: Case) -> tuple[Tensor, Tensor]:
    leaf = case.logits_BAK.clone().requires_grad_()
    value = ohem(leaf, case.targets, case.rule)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("ratio", [None, 3], ids=["ohem", "ohem_1_3"])
@pytest.mark.parametrize("number", CASES)
def test_equals_the_slow_reference(number: int, ratio: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(number, ratio)
    value, gradient = slow_ohem(case)
    for first_prefix in (1, hard_mining.FIRST_PREFIX):
        monkeypatch.setattr(hard_mining, "FIRST_PREFIX", first_prefix)
        found = value_and_gradient(case)
        # torch's softplus is linear from 20 on, 2e-9 off.
        torch.testing.assert_close(found[0], value, rtol=1e-9, atol=1e-8)
        torch.testing.assert_close(found[1], gradient, rtol=1e-9, atol=1e-8)
        assert torch.equal(found[1].any(dim=-1), gradient.any(dim=-1))
        assert not found[0][(case.targets.labels_BA == IGNORE) & (case.rule.ignored == "drop")].any()


def test_the_cases_contain_the_hard_situations() -> None:
    """So that the comparison above cannot pass by never meeting these."""
    met = dict.fromkeys(["no positives", "all ignored", "tied at the cut", "fewer survivors", "deep positive"], 0)
    for number in CASES:
        case = random_case(number, 3)
        for image, labels_A in enumerate(case.targets.labels_BA):
            met["no positives"] += not (labels_A >= 0).any()
            met["all ignored"] += bool((labels_A == IGNORE).all())
            survivors = slow_image(case._replace(rule=case.rule._replace(negatives_per_positive=None)), image, {})[0]
            met["fewer survivors"] += 0 < len(survivors) < case.rule.batch
            kept, labels = slow_image(case, image, {})
            hardness = [slow_cross_entropy(x, y) for x, y in zip(case.logits_BAK[image].tolist(), labels, strict=True)]
            rivals = {hardness[a] for a in range(len(labels)) if a not in kept and labels[a] != IGNORE}
            met["tied at the cut"] += any(hardness[a] in rivals for a in kept)
            harder = [sum(h > hardness[a] for h in hardness) for a in kept if labels[a] >= 0]
            met["deep positive"] += any(rank > hard_mining.FIRST_PREFIX * case.rule.batch for rank in harder)
    assert min(met.values()) >= 5, met


@pytest.mark.parametrize("scope", ["agnostic", "class"])
@pytest.mark.parametrize("ratio", [None, 3])
@pytest.mark.parametrize("seed", range(3))
def test_mining_a_growing_prefix_equals_nms_of_everything(seed: int, ratio: int | None, scope: str) -> None:
    """4,000 boxes of 20 objects and clutter; positives lie anywhere in the order, also at its end."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((4000, 2), generator=generator) * 400
    boxes_C4 = torch.cat([corner, corner + 20 + torch.rand((4000, 2), generator=generator) * 40], dim=1)
    positive_C = torch.rand(4000, generator=generator) < 0.03
    positive_C[-30:] = True
    groups_C = torch.randint(0, 3, (4000,), generator=generator) if scope == "class" else None
    rule = build_ohem_rule(OhemKeys())._replace(batch=64 << (2 * seed), negatives_per_positive=ratio)
    offset = 0 if groups_C is None else groups_C[:, None] * 1000.0
    survivors = nms(boxes_C4 + offset, torch.arange(4000, 0, -1.0), rule.nms_iou)
    if ratio is None:
        expected = survivors[: rule.batch]
    else:
        positives = survivors[positive_C[survivors]][: rule.batch // 4]
        expected = torch.cat([positives, survivors[~positive_C[survivors]][: 3 * len(positives)]])
    assert mine(Ranked(boxes_C4, groups_C, positive_C), rule).tolist() == expected.tolist()


def test_nms_drops_over_the_threshold_and_not_at_it() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 10.0]])
    assert nms_survivors(boxes, None, 0.5).tolist() == [0, 1]
    assert nms_survivors(boxes, None, 0.49).tolist() == [0]
    assert nms_survivors(boxes, None, 1.0).tolist() == [0, 1, 2]
    assert nms_survivors(boxes, torch.tensor([0, 0, 1]), 0.49).tolist() == [0, 2]
    assert nms_survivors(boxes[:0], torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []


def plain(logits: list[float], labels: list[int], spread: float = 100.0, **changes: Any) -> Case:
    """One image, one class; anchors that do not meet unless `spread` is small; minibatch of 4."""
    count = len(logits)
    corner = torch.arange(count)[:, None] * torch.tensor([spread, 0.0])
    anchors = torch.cat([corner, corner + 10], dim=1)
    nothing_P4 = torch.zeros((sum(label >= 0 for label in labels), 4))
    fixed = (torch.tensor([labels]), torch.ones(1), 1, torch.zeros(1, dtype=torch.int64), anchors)
    targets = ClassTargets(*fixed, torch.zeros((1, count, 4)), nothing_P4, nothing_P4[:, 0])
    return Case(torch.tensor(logits)[None, :, None], targets, build_ohem_rule(OhemKeys())._replace(batch=4, **changes))


def kept(case: Case) -> list[int]:
    return value_and_gradient(case)[1][0, :, 0].nonzero().flatten().tolist()


def test_by_hand() -> None:
    logits, labels = [2.0, 3.0, 1.0, -9.0, 0.0, -1.5, 5.0], [BACKGROUND] * 3 + [0, BACKGROUND, 0, IGNORE]
    assert kept(plain(logits, labels)) == [0, 1, 3, 5]  # losses 2.1 3.0 1.3 9.0 0.7 1.7
    assert kept(plain(logits, labels, ignored="background")) == [0, 1, 3, 6]
    assert kept(plain(logits, labels, negatives_per_positive=3)) == [0, 1, 2, 3]
    assert kept(plain(logits, [BACKGROUND] * 7, negatives_per_positive=3)) == []
    assert kept(plain(logits, labels, spread=0.1)) == [3]
    assert kept(plain(logits, labels, spread=0.1, nms_iou=1.0)) == [0, 1, 3, 5]


def test_ties_go_to_the_first_anchor() -> None:
    """At 25 torch's softplus is the identity, so that no vector lane rounds otherwise than another."""
    assert kept(plain([25.0] * 10, [BACKGROUND] * 10)) == [0, 1, 2, 3]
    assert kept(plain([25.0] * 10, [BACKGROUND] * 9 + [0], negatives_per_positive=3)) == [0, 1, 2, 9]


def test_the_box_loss_can_decide() -> None:
    case = plain([0.0, -1.0, -1.0, -1.0, -1.0, 4.0], [BACKGROUND] * 5 + [0])
    case = case._replace(targets=case.targets._replace(box_loss_P=torch.tensor([5.0])))
    assert 5 not in kept(case)
    assert 5 in kept(case._replace(rule=case.rule._replace(ranking="class_and_box")))


@pytest.mark.parametrize("ratio", [None, 3])
def test_float32_is_right_to_a_millionth_where_it_chooses_the_same(ratio: int | None) -> None:
    for number in (1, 2, 5, 7):
        case = random_case(number, ratio)
        case = case._replace(logits_BAK=case.logits_BAK.float().double())
        value, gradient = slow_ohem(case)
        found = value_and_gradient(case._replace(logits_BAK=case.logits_BAK.float()))
        assert found[0].dtype == torch.float32
        torch.testing.assert_close(found[0].double(), value, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found[1].double(), gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ratio", [None, 3])
@pytest.mark.parametrize("normaliser", ["positives", "kept"])
def test_finite_at_large_logits_and_where_nothing_is_kept(ratio: int | None, normaliser: str) -> None:
    signs = [100.0, -100.0, 100.0, -100.0, 100.0]
    for labels in ([0, 0, BACKGROUND, BACKGROUND, IGNORE], [BACKGROUND] * 5, [IGNORE] * 5):
        case = plain(signs, labels, negatives_per_positive=ratio, normaliser=normaliser)
        value, gradient = value_and_gradient(case)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        assert not value[case.targets.labels_BA == IGNORE].any()
        assert not gradient[case.targets.labels_BA == IGNORE].any()
    assert not value.any()


def test_an_image_counts_the_same_alone_and_in_a_batch() -> None:
    """What micro-batches and ranks rely on."""
    for number in range(0, 40, 2):
        case = random_case(number, 3 if number % 4 else None)
        together = ohem(case.logits_BAK, case.targets, case.rule)
        positives_B = (case.targets.labels_BA >= 0).sum(dim=1).tolist()
        box_losses = case.targets.box_loss_P.split(positives_B)
        for image in range(len(together)):
            own = slice(image, image + 1)
            targets = case.targets._replace(
                labels_BA=case.targets.labels_BA[own],
                normaliser_B=case.targets.normaliser_B[own],
                deltas_BA4=case.targets.deltas_BA4[own],
                box_loss_P=box_losses[image],
            )
            torch.testing.assert_close(ohem(case.logits_BAK[own], targets, case.rule)[0], together[image])


@pytest.mark.parametrize("ratio", [None, 3], ids=["ohem", "ohem_1_3"])
def test_the_host_reads_a_batch_once_or_twice_however_deep_its_positives_lie(ratio: int | None) -> None:
    counts = set()
    for number in range(40):
        case = random_case(number, ratio)
        with HostReads() as reads:
            ohem(case.logits_BAK, case.targets, case.rule)
        assert set(reads.found) == {"cpu"}
        counts.add(len(reads.found))
    assert counts == ({1} if ratio else {1, 2})


def test_half_precision_is_computed_in_float32() -> None:
    case = random_case(2, None)
    half = case.logits_BAK.bfloat16()
    targets = case.targets._replace(deltas_BA4=case.targets.deltas_BA4.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ohem(half, targets, case.rule)
    assert value.dtype == torch.float32
    assert torch.equal(value, ohem(half.float(), targets._replace(deltas_BA4=targets.deltas_BA4.float()), case.rule))


def test_a_broken_network_is_not_hidden() -> None:
    case = plain([0.0, 1.0, math.nan, 2.0, 3.0, 4.0], [BACKGROUND] * 6)
    assert not torch.isfinite(ohem(case.logits_BAK, case.targets, case.rule)).all()


def test_predicted_boxes_are_what_is_suppressed() -> None:
    """Two anchors far apart, one of which predicts the other's box."""
    case = plain([2.0, 1.0], [BACKGROUND] * 2)
    deltas = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [-10.0, 0.0, 0.0, 0.0]]])
    assert decode(deltas[0], case.targets.anchors_A4)[1].tolist() == [0, 0, 10, 10]
    assert kept(case) == [0, 1]
    assert kept(case._replace(targets=case.targets._replace(deltas_BA4=deltas))) == [0]


def test_sections() -> None:
    assert build_ohem_rule(OhemKeys()) == OhemRule(128, 0.5, "class", "agnostic", "positives", "drop", None)
    assert build_ohem_rule(Ohem13Keys()) == OhemRule(128, 0.5, "class", "agnostic", "positives", "drop", 3)
    options = {"batch": 512, "nms_iou": 0.7, "ranking": "class_and_box", "nms_scope": "class"}
    rule = build_ohem_rule(Ohem13Keys.model_validate({**options, "normaliser": "kept", "ignored": "background"}))
    assert rule == OhemRule(512, 0.7, "class_and_box", "class", "kept", "background", 3)
    assert all(field.description for section in (OhemKeys, Ohem13Keys) for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("section", "options"),
    [
        (Ohem13Keys, {"batch": 3}),
        (OhemKeys, {"batch": 0}),
        (OhemKeys, {"nms_iou": 1.5}),
        (OhemKeys, {"nms_scope": "image"}),
    ],
)
def test_sections_refuse(section: type[OhemKeys] | type[Ohem13Keys], options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        section.model_validate(options)
