"""Assignment: hand-made cases of each rule, and torchvision's Matcher as oracle."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.detection import assign as assigning
from retinanet.detection.anchors import Pyramid
from retinanet.detection.assign import AssignRule, BatchAssignment, padded_pairs, pair_limit
from retinanet.detection.grouping import group_neighbours
from retinanet.structures import BACKGROUND, IGNORE, Assignment, Targets

PAPER = AssignRule(
    0.5, 0.4, low_quality=False, low_quality_min_iou=0.0, low_quality_takes="best_box", crowd_overlap=0.5
)
LOW = PAPER._replace(low_quality=True)
NONE = torch.zeros((0, 4))


def assign(anchors_A4: Tensor, targets: Targets, rule: AssignRule) -> Assignment:
    """By IoU, where levels do not matter."""
    return assigning.assign(Pyramid(anchors_A4, (len(anchors_A4),)), targets, rule)


def assign_batch(anchors_A4: Tensor, targets: list[Targets], rule: AssignRule) -> BatchAssignment:
    return assigning.assign_batch(Pyramid(anchors_A4, (len(anchors_A4),)), targets, rule)


def column(*heights: float) -> Tensor:
    """Anchors 10 wide that share the corner (0, 0): IoU with the box (0, 0, 10, 10) is height / 10 up to 10."""
    return torch.tensor([[0.0, 0.0, 10.0, height] for height in heights])


def targets(boxes: list[list[float]], classes: list[int], crowd: list[list[float]] | None = None) -> Targets:
    as_boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in (boxes, crowd or [])]
    return Targets(as_boxes[0], torch.tensor(classes, dtype=torch.int64), as_boxes[1])


ONE = targets([[0, 0, 10, 10]], [7])


def test_positive_ignored_and_background_with_thresholds_hit_exactly() -> None:
    heights = (10, 5.1, 5, 4.99, 4.5, 4, 3.99, 1)
    expected = [7, 7, 7, IGNORE, IGNORE, IGNORE, BACKGROUND, BACKGROUND]
    assert assign(column(*heights), ONE, PAPER).labels_A.tolist() == expected


def test_equal_thresholds_leave_no_ignored_band() -> None:
    rule = PAPER._replace(negative_iou=0.5)
    assert assign(column(6, 5, 4.9), ONE, rule).labels_A.tolist() == [7, 7, BACKGROUND]


def test_an_anchor_takes_the_box_it_overlaps_most() -> None:
    two = targets([[0, 0, 10, 6], [0, 0, 10, 9], [50, 50, 60, 60]], [1, 2, 0])
    found = assign(torch.cat([column(10, 6, 5), torch.tensor([[50.0, 50, 60, 60]])]), two, PAPER)
    assert found.labels_A.tolist() == [2, 1, 1, 0]
    assert found.matched_A.tolist() == [1, 0, 0, 2]
    assert found.labels_A.dtype == found.matched_A.dtype == torch.int64


def test_a_tie_between_boxes_gives_one_of_them_consistently() -> None:
    twins = targets([[0, 0, 10, 10], [0, 0, 10, 10]], [3, 4])
    found = assign(column(10, 8), twins, PAPER)
    assert found.labels_A.tolist() == twins.classes_G[found.matched_A].tolist()
    assert found.matched_A.tolist() == [0, 0]


def test_without_boxes_all_is_background() -> None:
    found = assign(column(10, 5), targets([], []), LOW)
    assert found.labels_A.tolist() == [BACKGROUND, BACKGROUND]
    assert found.matched_A.tolist() == [0, 0]


def test_no_anchor_reaches_the_threshold() -> None:
    assert assign(column(3, 2), ONE, PAPER).labels_A.tolist() == [BACKGROUND, BACKGROUND]


def test_match_is_zero_where_it_means_nothing() -> None:
    two = targets([[50, 50, 60, 60], [0, 0, 10, 10]], [1, 2])
    assert assign(column(10, 4.5, 1), two, PAPER).matched_A.tolist() == [1, 0, 0]


def test_low_quality_makes_the_best_anchors_of_a_box_positive_with_ties() -> None:
    anchors = column(3, 2, 3)
    assert assign(anchors, ONE, LOW).labels_A.tolist() == [7, BACKGROUND, 7]
    assert assign(anchors, ONE, PAPER).labels_A.tolist() == [BACKGROUND] * 3


@pytest.mark.parametrize(("least", "expected"), [(0.2, 7), (0.25, 7), (0.26, BACKGROUND)])
def test_low_quality_min_iou(least: float, expected: int) -> None:
    rule = LOW._replace(low_quality_min_iou=least)
    assert assign(column(2.5, 1), ONE, rule).labels_A.tolist() == [expected, BACKGROUND]


def test_low_quality_lifts_an_ignored_anchor_too() -> None:
    assert assign(column(4.5, 4.2), ONE, LOW).labels_A.tolist() == [7, IGNORE]


def test_a_box_that_no_anchor_touches_makes_nothing_positive() -> None:
    assert assign(column(10, 3), targets([[80, 80, 90, 90]], [1]), LOW).labels_A.tolist() == [BACKGROUND] * 2


def test_a_low_quality_anchor_still_takes_its_own_best_box() -> None:
    """The one anchor is the best of both boxes; it is matched to the one with IoU 0.6, not 0.2."""
    both = targets([[0, 0, 10, 2], [0, 0, 10, 6]], [1, 2])
    found = assign(column(10), both, LOW)
    assert (found.labels_A.tolist(), found.matched_A.tolist()) == ([2], [1])


def test_crowd_turns_background_into_ignored_and_leaves_positives() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 3], [50, 50, 60, 60], [45, 50, 55, 60], [44, 50, 54, 60]])
    with_crowd = targets([[0, 0, 10, 10]], [5], crowd=[[50, 0, 100, 100], [0, 0, 20, 20]])
    expected = [5, IGNORE, IGNORE, BACKGROUND, BACKGROUND]
    assert assign(anchors, with_crowd, PAPER).labels_A.tolist() == expected
    looser = PAPER._replace(crowd_overlap=0.45)
    assert assign(anchors, with_crowd, looser).labels_A.tolist() == [5, IGNORE, IGNORE, IGNORE, BACKGROUND]


def test_crowd_without_boxes() -> None:
    only_crowd = targets([], [], crowd=[[0, 0, 10, 10]])
    assert assign(column(10, 30), only_crowd, PAPER).labels_A.tolist() == [IGNORE, BACKGROUND]


def random_scene(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors on a grid of whole pixels, so that ties are many, 1 to 8 boxes and their classes."""
    y, x = torch.meshgrid(torch.arange(0, 40, 4.0), torch.arange(0, 40, 4.0), indexing="ij")
    corner = torch.stack([x, y], dim=-1).reshape(-1, 2)
    anchors = torch.cat([torch.cat([corner, corner + side], dim=1) for side in (8, 16)])
    count = int(torch.randint(1, 9, (), generator=generator))
    low = torch.randint(0, 30, (count, 2), generator=generator).float()
    gt = torch.cat([low, low + torch.randint(3, 18, (count, 2), generator=generator)], dim=1)
    return anchors, gt, torch.randint(0, 5, (count,), generator=generator)


@pytest.mark.parametrize("low_quality", [False, True])
def test_equals_torchvisions_matcher(low_quality: bool) -> None:
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    generator = torch.Generator().manual_seed(0)
    kinds: set[int] = set()
    for _ in range(50):
        anchors, gt, classes = random_scene(generator)
        oracle = matcher(box_iou(gt, anchors))
        found = assign(anchors, Targets(gt, classes, NONE), PAPER._replace(low_quality=low_quality))
        expected = torch.where(oracle >= 0, classes[oracle.clamp(min=0)], oracle)
        assert torch.equal(found.labels_A, expected)
        assert torch.equal(found.matched_A, oracle.clamp(min=0))
        kinds |= set(expected.tolist())
    assert kinds == {BACKGROUND, IGNORE, 0, 1, 2, 3, 4}


def mmdetections_rule(iou_GA: np.ndarray, least: float) -> list[int]:
    """MaxIoUAssigner at 0.5 and 0.4: for each anchor the index of its box, or BACKGROUND or IGNORE."""
    found = []
    for column in iou_GA.T:
        best = int(column.argmax())
        found.append(best if column[best] >= 0.5 else BACKGROUND if column[best] < 0.4 else IGNORE)
    for box, row in enumerate(iou_GA):
        if row.max() >= least:
            for anchor in np.flatnonzero(row == row.max()):
                found[anchor] = box
    return found


def detectrons_rule(iou_GA: np.ndarray) -> list[int]:
    """Detectron's _get_retinanet_blobs: low-quality matches, then whatever is below 0.4 becomes background."""
    best_A, which_A = iou_GA.max(axis=0), iou_GA.argmax(axis=0)
    found = [IGNORE] * iou_GA.shape[1]
    for row in iou_GA:
        for anchor in np.flatnonzero(row == row.max()):
            found[anchor] = which_A[anchor]
    for anchor, best in enumerate(best_A):
        if best >= 0.5:
            found[anchor] = which_A[anchor]
        elif best < 0.4:
            found[anchor] = BACKGROUND
    return found


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_own_box_equals_mmdetections_assigner(least: float) -> None:
    generator = torch.Generator().manual_seed(2)
    rule = LOW._replace(low_quality_takes="own_box", low_quality_min_iou=least)
    taken_from_a_better_box = 0
    for _ in range(60):
        anchors, gt, classes = random_scene(generator)
        iou_GA = box_iou(gt, anchors)
        expected = torch.tensor(mmdetections_rule(iou_GA.numpy(), least))
        found = assign(anchors, Targets(gt, classes, NONE), rule)
        assert torch.equal(found.matched_A, expected.clamp(min=0))
        assert torch.equal(found.labels_A, torch.where(expected >= 0, classes[expected.clamp(min=0)], expected))
        learned_A = iou_GA[expected.clamp(min=0), torch.arange(len(anchors))]
        taken_from_a_better_box += int(((expected >= 0) & (learned_A < iou_GA.max(dim=0).values)).sum())
    assert taken_from_a_better_box > 5


def test_a_least_iou_of_0_4_with_the_best_box_equals_detectron() -> None:
    generator = torch.Generator().manual_seed(3)
    rule = LOW._replace(low_quality_min_iou=0.4)
    lifted_by_a_worse_box = 0
    for _ in range(200):
        anchors, gt, classes = random_scene(generator)
        iou_GA = box_iou(gt, anchors)
        expected = torch.tensor(detectrons_rule(iou_GA.numpy()))
        found = assign(anchors, Targets(gt, classes, NONE), rule)
        assert torch.equal(found.matched_A, expected.clamp(min=0))
        assert torch.equal(found.labels_A, torch.where(expected >= 0, classes[expected.clamp(min=0)], expected))
        between_A = (iou_GA.max(dim=0).values < 0.5) & (expected >= 0)
        own_best_A = (iou_GA == iou_GA.max(dim=1, keepdim=True).values) & (iou_GA >= 0.4)
        lifted_by_a_worse_box += int((between_A & ~own_best_A.any(dim=0)).sum())
    assert lifted_by_a_worse_box > 0


def test_own_box_by_hand() -> None:
    """The one anchor is the best of both boxes: the later takes it, although the anchor overlaps the first by more."""
    both = targets([[0, 0, 10, 6], [0, 0, 10, 2]], [1, 2])
    rule = LOW._replace(low_quality_takes="own_box")
    found = assign(column(10), both, rule)
    assert (found.labels_A.tolist(), found.matched_A.tolist()) == ([2], [1])
    found = assign(column(10), both, rule._replace(low_quality_min_iou=0.3))
    assert (found.labels_A.tolist(), found.matched_A.tolist()) == ([1], [0])
    far = targets([[0, 0, 10, 6], [80, 80, 90, 90]], [1, 2])
    assert assign(column(10, 1), far, rule).labels_A.tolist() == [1, BACKGROUND]


def test_a_crowd_overlap_of_one_lets_crowds_be_background() -> None:
    crowd = targets([], [], crowd=[[-7, -3, 60, 70]])
    anchors = column(10, 5.3, 1 / 3) + torch.tensor([0.1, 0.7, 0.1, 0.7])
    assert assign(anchors, crowd, PAPER._replace(crowd_overlap=1.0)).labels_A.tolist() == [BACKGROUND] * 3


def test_a_batch_lists_the_boxes_of_its_positives_in_order() -> None:
    anchors = column(10, 1, 6)
    batch = assign_batch(anchors, [targets([[0, 0, 10, 6], [0, 0, 10, 10]], [1, 2]), targets([], []), ONE], PAPER)
    assert batch.labels_BA.tolist() == [[2, -1, 1], [-1, -1, -1], [7, -1, 7]]
    assert batch.boxes_P4.tolist() == [[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 10], [0, 0, 10, 10]]
    assert batch.positives().tolist() == [2, 0, 2]


def test_a_batch_without_any_box() -> None:
    batch = assign_batch(column(10, 5), [targets([], [])] * 2, PAPER)
    assert isinstance(batch, BatchAssignment)
    assert batch.boxes_P4.shape == (0, 4)
    assert batch.positives().tolist() == [0, 0]


@pytest.mark.parametrize("tile", [1, 50, 777, 4000])
@pytest.mark.parametrize(
    "rule",
    [PAPER, LOW, LOW._replace(low_quality_takes="own_box", low_quality_min_iou=0.2)],
    ids=["plain", "best", "own"],
)
def test_tiles_change_nothing(tile: int, rule: AssignRule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole pixels, so that boxes reach their best IoU at several anchors in several tiles."""
    generator = torch.Generator().manual_seed(2)
    low = torch.randint(0, 60, (450, 2), generator=generator).float()
    corners = torch.cat([low, low + torch.randint(4, 30, (450, 2), generator=generator)], dim=1)
    anchors, boxes, crowd = corners[:400], corners[400:440], corners[440:]
    image = Targets(boxes, torch.randint(0, 5, (40,), generator=generator), crowd)
    monkeypatch.setattr(assigning, "CPU_TILE", 1 << 40)
    whole = assign(anchors, image, rule)
    monkeypatch.setattr(assigning, "CPU_TILE", tile)
    tiled = assign(anchors, image, rule)
    assert all(torch.equal(a, b) for a, b in zip(tiled, whole, strict=True))
    assert len(whole.labels_A.unique()) == 7


@pytest.mark.parametrize("tile", [1, 1500, 1 << 40])
@pytest.mark.parametrize(
    "rule",
    [
        PAPER,
        LOW,
        LOW._replace(low_quality_takes="own_box", low_quality_min_iou=0.2),
        LOW._replace(low_quality_takes="own_box", negative_iou=0.0, positive_iou=0.0, crowd_overlap=0.0),
        PAPER._replace(negative_iou=0.0),
    ],
    ids=["plain", "best", "own", "all positive", "all ignored"],
)
def test_a_batch_at_once_is_assigned_as_its_images_one_by_one(
    rule: AssignRule, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; images with many, few and no boxes, with crowd regions and without, bit for bit."""
    generator = torch.Generator().manual_seed(5)
    low = torch.randint(0, 60, (400, 2), generator=generator).float()
    corners = torch.cat([low, low + torch.randint(4, 30, (400, 2), generator=generator)], dim=1)
    anchors, images = corners[:300], []
    for first, boxes, crowds in ((300, 40, 0), (340, 3, 2), (350, 0, 3), (360, 0, 0), (370, 11, 1)):
        classes = torch.randint(0, 5, (boxes,), generator=generator)
        end = first + boxes
        images.append(Targets(corners[first:end], classes, corners[end : end + crowds]))
    monkeypatch.setattr(assigning, "CPU_TILE", tile)
    alone = assign_batch(anchors, images, rule)
    monkeypatch.setattr(assigning, "pair_limit", lambda device: 1 << 40)
    together = assign_batch(anchors, images, rule)
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert together.positives()[2:4].tolist() == [0, 0]
    assert (together.labels_BA[3] == BACKGROUND).all()


def test_images_are_assigned_at_once_up_to_a_limit_that_counts_padding() -> None:
    images = [Targets(torch.zeros((boxes, 4)), torch.zeros(boxes), NONE) for boxes in (0, 3, 5, 5, 30, 0, 2)]
    groups = group_neighbours(images, partial(padded_pairs, anchors=100), 1500)
    assert [[len(one.boxes_G4) for one in group] for group in groups] == [[0, 3, 5], [5], [30], [0, 2]]
    assert pair_limit(torch.device("cpu")) == 0, "image by image"
    assert pair_limit(torch.device("cuda")) > 0


@pytest.mark.slow
def test_thousands_of_boxes_take_no_more_memory_than_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 boxes and 30,000 anchors: 600 MB for each of a dozen tensors without tiles."""
    largest = 0
    iou = assigning.boxes.iou

    def watched(a_N4: Tensor, b_M4: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, len(a_N4) * len(b_M4))
        return iou(a_N4, b_M4[:3])[:, :1].expand(-1, len(b_M4))  # only the sizes matter here

    monkeypatch.setattr(assigning.boxes, "iou", watched)
    low = torch.rand((5000, 2)) * 500
    many = Targets(torch.cat([low, low + 20], dim=1), torch.zeros(5000, dtype=torch.int64), NONE)
    assign(torch.cat([low, low + 20], dim=1).repeat(6, 1), many, LOW)
    assert 0 < largest <= assigning.CPU_TILE
