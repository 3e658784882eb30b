"""ATSS against a slow reference written from the paper, in Python floats, and hand-made cases."""

import math
import random
import statistics

import pytest
import torch

from retinanet.build.rules import build_assign_rule
from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.detection import atss
from retinanet.detection.anchors import AnchorSpec, Pyramid, canvas_anchors
from retinanet.detection.assign import assign, assign_batch
from retinanet.detection.atss import AtssRule
from retinanet.structures import BACKGROUND, IGNORE, Targets

Box = tuple[float, float, float, float]
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
ONE = AnchorSpec(tuple(1.0 * size for size in SIZES), (1.0,), (1.0,), 0.5, "none", "stride")
NINE = AnchorSpec(SIZES, (1.0, 2 ** (1 / 3), 2 ** (2 / 3)), (0.5, 1.0, 2.0), 0.5, "none", "stride")


def overlap(a: Box, b: Box) -> float:
    """Intersection of two boxes."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a: Box, b: Box) -> float:
    sizes = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    shared = overlap(a, b)
    return shared / (sizes[0] + sizes[1] - shared) if shared else 0.0


def slow_atss(canvas: tuple[int, int], spec: AnchorSpec, boxes: list[Box], cells: int) -> list[int]:
    """The box of each anchor, -1 for none: Algorithm 1 with grids and distances of its own."""
    levels: list[list[tuple[float, float, Box]]] = []
    for level, size in enumerate(spec.sizes):
        stride = 8 * 2**level
        anchors = []
        for row in range(math.ceil(canvas[0] / stride)):
            for column in range(math.ceil(canvas[1] / stride)):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                for ratio in spec.aspect_ratios:
                    for scale in spec.scales:
                        w, h = size * scale / math.sqrt(ratio), size * scale * math.sqrt(ratio)
                        anchors.append((x, y, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        levels.append(anchors)
    starts = [sum(len(level) for level in levels[:number]) for number in range(len(levels))]
    claimed: dict[int, tuple[float, int]] = {}
    for number, box in enumerate(boxes):
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates = []
        for start, level_anchors in zip(starts, levels, strict=True):
            by_distance = sorted(
                range(len(level_anchors)),
                key=lambda a: (math.hypot(level_anchors[a][0] - centre_x, level_anchors[a][1] - centre_y), a),
            )
            candidates += [(start + a, *level_anchors[a]) for a in by_distance[: cells * spec.per_cell]]
        overlaps = [iou(box, anchor) for _, _, _, anchor in candidates]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for value, (index, x, y, _) in zip(overlaps, candidates, strict=True):
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if value >= threshold and inside and value > claimed.get(index, (-1.0, 0))[0]:
                claimed[index] = value, number
    return [claimed.get(a, (0.0, -1))[1] for a in range(sum(map(len, levels)))]


def random_boxes(draw: random.Random, canvas: tuple[int, int], tiny: bool) -> list[Box]:
    """None to eight boxes, some of them alike, of a pixel or less to the whole canvas."""
    boxes: list[Box] = []
    for _ in range(draw.choice([0, 1, 2, 8])):
        if boxes and draw.random() < 0.3:
            boxes.append(tuple(value + draw.uniform(0, 3) for value in boxes[-1]))  # type: ignore[arg-type]
            continue
        sides = [draw.uniform(0.2, 6) if tiny else draw.uniform(4, side) for side in canvas[::-1]]
        corner = [draw.uniform(0, max(0.0, side - own)) for side, own in zip(canvas[::-1], sides, strict=True)]
        boxes.append((corner[0], corner[1], corner[0] + sides[0], corner[1] + sides[1]))
    return boxes


def tensor_targets(boxes: list[Box], crowd: list[Box]) -> Targets:
    as_boxes = [torch.tensor(values, dtype=torch.float32).reshape(-1, 4) for values in (boxes, crowd)]
    return Targets(as_boxes[0], torch.arange(len(boxes)) % 5 + 3, as_boxes[1])


@pytest.mark.parametrize("number", range(100))
def test_equals_the_papers_definition(number: int) -> None:
    """One or nine anchors a cell, canvases of up to some hundred pixels, with and without crowd regions."""
    draw = random.Random(number)
    canvas, spec = draw.choice([(64, 64), (96, 160), (200, 120)]), (ONE, NINE)[number % 2]
    boxes = [tuple(float(v) for v in torch.tensor(box)) for box in random_boxes(draw, canvas, tiny=number % 3 == 0)]
    crowd: list[Box] = [(10.0, 10.0, 60.0, 70.0)] * (number % 5 == 0)
    cells = draw.choice([1, 4, 9, 1000])
    expected = slow_atss(canvas, spec, boxes, cells)  # type: ignore[arg-type]
    pyramid = canvas_anchors(canvas, spec)
    found = assign(pyramid, tensor_targets(boxes, crowd), AtssRule(cells * spec.per_cell, 0.5))  # type: ignore[arg-type]
    for anchor, (label, match, wanted) in enumerate(
        zip(found.labels_A.tolist(), found.matched_A.tolist(), expected, strict=True)
    ):
        if wanted >= 0:
            assert (label, match) == (wanted % 5 + 3, wanted), anchor
            continue
        box = pyramid.boxes_A4[anchor].tolist()
        part = max((overlap(tuple(box), region) for region in crowd), default=0.0)
        area = (box[2] - box[0]) * (box[3] - box[1])
        assert (label, match) == (IGNORE if part > 0.5 * area else BACKGROUND, 0), anchor


def test_a_box_between_two_cells_takes_the_first_of_them() -> None:
    """Nine anchors a cell, whose corners are rounded differently: whole cells are chosen, not some anchors of each."""
    pyramid = canvas_anchors((64, 64), NINE)
    boxes_14 = torch.tensor([[8.0, 12.0, 24.0, 28.0]])  # centre (16, 20): between cells 12 and 20 in x
    centres_A2 = atss.centres(pyramid.boxes_A4[: pyramid.level_sizes[0]])
    rounded_A2 = (centres_A2 * atss.GRID).round() / atss.GRID
    chosen = atss.nearest(rounded_A2, atss.centres(boxes_14), 9)
    assert rounded_A2[chosen[0]].unique(dim=0).tolist() == [[12.0, 20.0]]
    assert len(centres_A2.unique(dim=0)) > 64, "else the rounding would not matter"


def test_chunks_of_boxes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [box for seed in range(8) for box in random_boxes(random.Random(seed), (96, 160), tiny=False)]
    pyramid, boxes_G4 = canvas_anchors((96, 160), NINE), torch.tensor(boxes)
    whole = atss.select(pyramid, boxes_G4, 81)
    monkeypatch.setattr(atss, "MOST_PAIRS", 3 * len(pyramid.boxes_A4))
    assert torch.equal(atss.select(pyramid, boxes_G4, 81), whole)
    assert len(whole.unique()) > 10


def test_a_level_of_one_anchor_and_boxes_that_none_reaches() -> None:
    alone = Pyramid(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (1,))
    assert atss.select(alone, torch.tensor([[0.0, 0.0, 8.0, 6.0]]), 9).tolist() == [0]
    assert atss.select(alone, torch.tensor([[5.0, 5.0, 8.0, 8.0]]), 9).tolist() == [-1], "its centre is outside"
    assert atss.select(alone, torch.tensor([[4.0, 4.0, 4.0, 4.0]]), 9).tolist() == [-1], "an empty box"


def test_a_batch_has_the_boxes_of_its_positives() -> None:
    pyramid = canvas_anchors((64, 64), ONE)
    images = [tensor_targets([(4, 4, 44, 40), (30, 30, 64, 60)], []), tensor_targets([], [])]
    batch = assign_batch(pyramid, images, AtssRule(9, 0.5))
    assert batch.positives()[0] > 0
    assert batch.positives()[1] == 0
    labels_P = batch.labels_BA[batch.image_P, batch.anchor_P]
    assert [images[0].boxes_G4[label - 3].tolist() for label in labels_P.tolist()] == batch.boxes_P4.tolist()


def test_the_config_counts_cells() -> None:
    config = with_overrides(Config(), ["assign.kind=atss", "assign.atss_cells=5"])
    assert build_assign_rule(config) == AtssRule(45, 0.5)
