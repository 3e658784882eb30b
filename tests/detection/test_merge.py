"""Detections of overlapping windows, scales and mirror images as one list, with a detector that finds what it sees."""

import numpy as np
import pytest
import torch
from torch import Tensor

from retinanet.data.views import tile_windows
from retinanet.detection.boxes import iou
from retinanet.detection.merge import View, merge_views, mirrored_back, moved
from retinanet.detection.postprocess import DetectRule
from retinanet.structures import Detections

RULE = DetectRule(
    score_threshold=0.05, topk=1000, nms_iou=0.5, class_agnostic=False, detections=1000, empty_boxes="keep"
)
SIDE = 1000
VISIBLE = 0.3
"""Part of an object from which the pretended detector sees it."""


def scattered(count: int, sides: tuple[float, float], seed: int) -> Tensor:
    """(N, 4) boxes in the image of which no two overlap."""
    rng = np.random.default_rng(seed)
    boxes = torch.zeros((0, 4))
    while len(boxes) < count:
        side = torch.tensor(rng.uniform(*sides, 2), dtype=torch.float32)
        corner = torch.tensor(rng.uniform(0, 1, 2), dtype=torch.float32) * (SIDE - side)
        box = torch.cat([corner, corner + side])[None]
        if not len(boxes) or float(iou(boxes, box).max()) == 0:
            boxes = torch.cat([boxes, box])
    return boxes


def seen(
    objects: Tensor, window: tuple[int, int, int, int], seed: int, jitter: float = 0.0, visible: float = VISIBLE
) -> View:
    """What a detector finds in a window of the image: the visible part of every object, with a random score."""
    rng = np.random.default_rng([seed, *window])
    low, high = torch.tensor(window[:2]), torch.tensor(window[2:])
    noise = torch.tensor(rng.uniform(-jitter, jitter, objects.shape), dtype=torch.float32)
    whole = objects + noise
    parts = torch.cat([whole[:, :2].clamp(low, high), whole[:, 2:].clamp(low, high)], dim=1)
    area = (parts[:, 2:] - parts[:, :2]).prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
    kept = area >= visible
    scores = torch.tensor(rng.uniform(0.1, 1, len(objects)), dtype=torch.float32)
    order = scores[kept].argsort(descending=True)
    classes = torch.arange(len(objects)) % 3
    return View(Detections(parts[kept][order], scores[kept][order], classes[kept][order]), window)


def windows_with(tile: int, overlap: float) -> list[tuple[int, int, int, int]]:
    return [window.corners for window in tile_windows(SIDE, SIDE, tile, overlap)]


def assert_finds(found: Detections, objects: Tensor, least: float) -> None:
    """One detection for each object and no other."""
    assert len(found.scores_D) == len(objects)
    best = iou(objects, found.boxes_D4).max(dim=1)
    assert float(best.values.min()) >= least
    assert sorted(best.indices.tolist()) == list(range(len(objects)))
    assert torch.equal(found.classes_D[best.indices], torch.arange(len(objects)) % 3)


@pytest.mark.parametrize("tile", [257, 300, 420, 999, 1000])
def test_tiles_of_any_place_find_each_object_once_and_whole(tile: int) -> None:
    """The sides are at most what two tiles share, so that a whole box always exists; a half one must not stay."""
    objects = scattered(60, (8, 0.2 * tile), seed=tile)
    found = merge_views([seen(objects, window, 1) for window in windows_with(tile, 0.2)], RULE)
    assert_finds(found, objects, least=0.9999)


def test_boxes_that_differ_between_windows_leave_no_duplicates_and_no_gaps() -> None:
    """Windows that disagree by a few pixels on where an object is, some of them at the middle of the overlap."""
    for seed in range(20):
        objects = scattered(60, (16, 40), seed)
        found = merge_views([seen(objects, window, seed, jitter=1.5) for window in windows_with(250, 0.2)], RULE)
        assert_finds(found, objects, least=0.6)


@pytest.mark.parametrize(("sides", "overlap"), [((250, 380), 0.2), ((200, 600), 0.3)])
def test_parts_of_an_object_larger_than_the_overlap_become_one_box(sides: tuple[float, float], overlap: float) -> None:
    """Each part is seen by another window, also the smallest; the largest objects are cut by all windows."""
    for seed in range(10):
        objects = scattered(2, sides, seed)
        views = [seen(objects, window, seed, visible=0.001) for window in windows_with(300, overlap)]
        assert_finds(merge_views(views, RULE), objects, least=0.9)


def test_objects_on_one_another_stay_two() -> None:
    """A small object of the same class in front of a large one, both at a seam."""
    objects = torch.tensor([[350.0, 380, 450, 470], [380, 400, 410, 440]])
    views = [seen(objects, window, 0) for window in windows_with(500, 0.3)]
    same = [View(view.found._replace(classes_D=torch.zeros_like(view.found.classes_D)), view.window) for view in views]
    found = merge_views(same, RULE)
    assert found.boxes_D4[found.boxes_D4[:, 0].argsort()].tolist() == objects.tolist()


def slow_nms(views: list[Detections], threshold: float) -> list[tuple[float, int, list[float]]]:
    """(score, class, box) of what NMS leaves of all views together, one comparison after the other."""
    rows = [
        (float(score), int(kind), box.tolist())
        for found in views
        for box, score, kind in zip(found.boxes_D4, found.scores_D, found.classes_D, strict=True)
    ]
    kept: list[tuple[float, int, list[float]]] = []
    for row in sorted(rows, key=lambda row: -row[0]):
        for _, _, (x1, y1, x2, y2) in (other for other in kept if other[1] == row[1]):
            a1, b1, a2, b2 = row[2]
            shared = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            if shared / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared) > threshold:
                break
        else:
            kept.append(row)
    return kept


def test_scales_and_mirror_images_are_merged_as_a_slow_nms_does() -> None:
    generator = torch.Generator().manual_seed(3)
    views = []
    for _ in range(4):
        corners = torch.rand((80, 2), generator=generator) * 60
        boxes = torch.cat([corners, corners + 5 + torch.rand((80, 2), generator=generator) * 25], dim=1)
        scores = torch.rand(80, generator=generator).sort(descending=True).values
        views.append(Detections(boxes, scores, torch.randint(0, 3, (80,), generator=generator)))
    found = merge_views([View(view, (0, 0, 100, 100)) for view in views], RULE)
    wanted = slow_nms(views, RULE.nms_iou)
    assert 20 < len(wanted) < 300
    assert found.scores_D.tolist() == [row[0] for row in wanted]
    assert found.classes_D.tolist() == [row[1] for row in wanted]
    assert found.boxes_D4.tolist() == [row[2] for row in wanted]
    few = merge_views([View(view, (0, 0, 100, 100)) for view in views], RULE._replace(detections=7))
    assert few.scores_D.tolist() == found.scores_D[:7].tolist(), "the limit is that of an image"


def test_windows_merge_class_agnostically_where_the_rule_says_so() -> None:
    objects = torch.tensor([[40.0, 40, 90, 90], [44, 40, 92, 90]])
    views = [seen(objects, window, 0) for window in windows_with(500, 0.3)]
    assert len(merge_views(views, RULE).scores_D) == 2
    assert len(merge_views(views, RULE._replace(class_agnostic=True)).scores_D) == 1


def test_boxes_return_from_mirror_images_and_windows() -> None:
    found = Detections(torch.tensor([[10.0, 20, 40, 60]]), torch.tensor([0.5]), torch.tensor([1]))
    assert mirrored_back(found, width=100).boxes_D4.tolist() == [[60, 20, 90, 60]]
    assert torch.equal(mirrored_back(mirrored_back(found, 100), 100).boxes_D4, found.boxes_D4)
    assert moved(found, left=1000, top=300).boxes_D4.tolist() == [[1010, 320, 1040, 360]]


def test_images_without_detections_merge_to_none() -> None:
    none = Detections(torch.zeros((0, 4)), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    views = [View(none, window) for window in windows_with(300, 0.2)]
    assert len(merge_views(views, RULE).scores_D) == 0
