"""Detections against torchvision's own post-processing, and hand cases of each rule."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from host_reads import HostReads, Operators
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet

from retinanet.detection import boxes, postprocess
from retinanet.detection.anchors import AnchorSpec, Pyramid, pyramid_anchors
from retinanet.detection.postprocess import (
    GIVEN,
    NMS_TOGETHER,
    BatchDetections,
    DetectRule,
    EmptyBoxes,
    best_candidates,
    detect,
    nms_limit,
    nms_together,
    suppress_overlaps,
)
from retinanet.detection.scores import SIGMOID, SOFTMAX
from retinanet.evaluation.evaluate import result_rows
from retinanet.structures import Detections, Scoring

SPEC = AnchorSpec((16.0, 32.0, 64.0, 128.0, 256.0), (1.0, 1.4), (0.5, 1.0, 2.0), 0.5, "none", "stride")
RULE = DetectRule(
    score_threshold=0.05, topk=1000, nms_iou=0.5, detections=100, class_agnostic=False, empty_boxes="keep"
)


def boxes_as_anchors(levels: list[list[list[float]]]) -> Pyramid:
    """A pyramid whose anchors are the boxes themselves, so that zero deltas predict them."""
    flat = [box for level in levels for box in level]
    return Pyramid(torch.tensor(flat), tuple(len(level) for level in levels))


def detect_one(
    scores_AK: list[list[float]],
    pyramid: Pyramid,
    rule: DetectRule = RULE,
    size: tuple[int, int] = (100, 100),
    original: tuple[int, int] | None = None,
) -> Detections:
    deltas = torch.zeros((1, len(pyramid.boxes_A4), 4))
    sizes, originals = torch.tensor([size]), torch.tensor([original or size])
    return detect(torch.tensor([scores_AK]), deltas, pyramid, sizes, originals, rule, GIVEN)[0]


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        RULE._replace(score_threshold=0.2, topk=50, nms_iou=0.3, detections=10),
        RULE._replace(score_threshold=0.0, topk=7, nms_iou=0.9, detections=300),
    ],
    ids=["usual", "strict", "all"],
)
def test_equals_torchvision(rule: DetectRule) -> None:
    canvas, sizes, classes = (96, 128), [(96, 128), (80, 101)], 3
    pyramid = pyramid_anchors(canvas, SPEC, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    count = len(pyramid.boxes_A4)
    logits = torch.randn((2, count, classes), generator=generator) * 2 - 3
    deltas = torch.randn((2, count, 4), generator=generator) * 0.4
    body = nn.Identity()
    body.out_channels = 4
    oracle_model = TorchvisionRetinaNet(
        body,
        classes,
        score_thresh=rule.score_threshold,
        nms_thresh=rule.nms_iou,
        detections_per_img=rule.detections,
        topk_candidates=rule.topk,
    )
    level_sizes = list(pyramid.level_sizes)
    oracle = oracle_model.postprocess_detections(
        {"cls_logits": list(logits.split(level_sizes, 1)), "bbox_regression": list(deltas.split(level_sizes, 1))},
        [list(pyramid.boxes_A4.split(level_sizes))] * 2,
        sizes,
    )
    both = torch.tensor(sizes)
    found = detect(logits, deltas, pyramid, both, both, rule, SIGMOID)
    for ours, wanted in zip(found, oracle, strict=True):
        assert len(ours.scores_D) > 5
        torch.testing.assert_close(ours.boxes_D4, wanted["boxes"], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(ours.scores_D, wanted["scores"])
        assert torch.equal(ours.classes_D, wanted["labels"])


def by_hand(
    scores_AK: np.ndarray, deltas_A4: np.ndarray, pyramid: Pyramid, rule: DetectRule
) -> list[tuple[int, float]]:
    """The order of steps that Detectron, detectron2 and mmdetection share, one box at a time: (class, score)s.

    On each level: scores over the threshold, the best `topk` of them, decode with scales cut at 1000 / 16; then NMS
    within each class over all levels, and the best `detections`.
    """
    found: list[tuple[float, int, list[float]]] = []
    start = 0
    for size in pyramid.level_sizes:
        pairs = [(a, k) for a in range(start, start + size) for k in range(scores_AK.shape[1])]
        above = sorted((p for p in pairs if scores_AK[p] > rule.score_threshold), key=lambda p: -scores_AK[p])
        for a, k in above[: rule.topk]:
            x1, y1, x2, y2 = pyramid.boxes_A4[a].double().tolist()
            dx, dy, dw, dh = deltas_A4[a].tolist()
            w, h = ((x2 - x1) * min(math.exp(dw), 62.5), (y2 - y1) * min(math.exp(dh), 62.5))
            x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
            found.append((float(scores_AK[a, k]), k, [x - w / 2, y - h / 2, x + w / 2, y + h / 2]))
        start += size
    kept: list[tuple[float, int, list[float]]] = []
    for score, k, box in sorted(found, key=lambda one: -one[0]):
        if all(k != other or iou_of(box, taken) <= rule.nms_iou for _, other, taken in kept):
            kept.append((score, k, box))
    return [(k, score) for score, k, _ in kept[: rule.detections]]


def iou_of(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize(
    "rule",
    [
        RULE._replace(score_threshold=0.05, topk=30, nms_iou=0.5, detections=100),
        RULE._replace(score_threshold=0.3, topk=12, nms_iou=0.4, detections=9),
    ],
)
def test_equals_the_peers_order_of_steps_done_by_hand(rule: DetectRule) -> None:
    """The image is so wide that no box is clipped: whether clipping precedes NMS is tested elsewhere."""
    pyramid = pyramid_anchors((64, 64), SPEC, torch.device("cpu"))
    pyramid = pyramid._replace(boxes_A4=pyramid.boxes_A4 + 40_000.0)
    generator = torch.Generator().manual_seed(4)
    scores = (torch.randn((1, len(pyramid.boxes_A4), 2), generator=generator) - 2).sigmoid()
    deltas = torch.randn((1, len(pyramid.boxes_A4), 4), generator=generator) * 0.3
    deltas[0, ::7, 2:] += 5.0
    size = torch.tensor([[10**6, 10**6]])
    found = detect(scores, deltas, pyramid, size, size, rule, GIVEN)[0]
    expected = by_hand(scores[0].double().numpy(), deltas[0].double().numpy(), pyramid, rule)
    assert len(expected) > 5
    assert found.classes_D.tolist() == [k for k, _ in expected]
    assert found.scores_D.tolist() == pytest.approx([score for _, score in expected])


def test_nms_suppresses_within_a_class_only() -> None:
    pyramid = boxes_as_anchors([[[0.0, 0, 40, 40], [0, 0, 40, 38], [60, 60, 80, 80]], [[0, 0, 40, 39]]])
    found = detect_one([[0.9, 0.0], [0.8, 0.7], [0.6, 0.0], [0.85, 0.75]], pyramid)
    assert found.classes_D.tolist() == [0, 1, 0]
    assert found.scores_D.tolist() == pytest.approx([0.9, 0.75, 0.6])
    assert found.boxes_D4.tolist() == [[0, 0, 40, 40], [0, 0, 40, 39], [60, 60, 80, 80]]


def test_nms_keeps_boxes_whose_iou_is_not_above_the_threshold() -> None:
    pyramid = boxes_as_anchors([[[0.0, 0, 40, 40], [0, 0, 40, 20], [0, 0, 40, 21]]])
    assert len(detect_one([[0.9], [0.8], [0.0]], pyramid).scores_D) == 2
    assert len(detect_one([[0.9], [0.0], [0.8]], pyramid).scores_D) == 1


def test_a_pair_is_found_at_its_own_anchor_and_class() -> None:
    """Flat index 7 of (anchor, class) with three classes is anchor 2, class 1; on the second level it starts anew."""
    pyramid = boxes_as_anchors(
        [[[0.0, 0, 5, 5], [10, 0, 15, 5], [20, 0, 25, 5]], [[30, 0, 45, 15], [50, 0, 65, 15], [70, 0, 85, 15]]]
    )
    scores = torch.zeros(6, 3)
    scores[2, 1], scores[4, 2] = 0.9, 0.8
    found = detect_one(scores.tolist(), pyramid)
    assert found.classes_D.tolist() == [1, 2]
    assert found.boxes_D4.tolist() == [[20, 0, 25, 5], [50, 0, 65, 15]]


def row(count: int, y: float) -> list[list[float]]:
    return [[10.0 * i, y, 10.0 * i + 5, y + 5] for i in range(count)]


def test_topk_counts_on_each_level_over_all_classes() -> None:
    pyramid = boxes_as_anchors([row(5, 0), row(5, 20), row(1, 40)])
    scores = torch.linspace(0.9, 0.1, 22).reshape(11, 2)
    both = torch.stack([scores, scores.flip(0) * (torch.arange(11) > 4)[:, None]])
    found = best_candidates(both, pyramid.level_sizes, RULE._replace(topk=3), GIVEN)
    assert found.counts == [8, 5]
    assert found.images_N.tolist() == [0] * 8 + [1] * 5
    best = [0, 1, 2, 10, 11, 12, 20, 21]
    assert found.scores_N[:8].tolist() == scores.flatten()[best].tolist()
    assert found.classes_N[:8].tolist() == [pair % 2 for pair in best]
    assert found.anchors_N[:8].tolist() == [pair // 2 for pair in best]
    assert found.anchors_N[8:].tolist() == [9, 9, 8, 10, 10]


def test_the_number_of_detections_is_limited_to_the_best_of_all_levels() -> None:
    pyramid = boxes_as_anchors([row(4, 0), row(4, 20)])
    found = detect_one([[s] for s in (0.2, 0.9, 0.3, 0.4, 0.8, 0.1, 0.5, 0.6)], pyramid, RULE._replace(detections=3))
    assert found.scores_D.tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert found.boxes_D4[:, 1].tolist() == [0, 20, 20]


def test_boxes_are_clipped_to_the_image_not_the_canvas() -> None:
    pyramid = boxes_as_anchors([[[-10.0, -20, 90, 80]]])
    assert detect_one([[0.9]], pyramid, size=(50, 70)).boxes_D4.tolist() == [[0, 0, 70, 50]]


def test_clipping_comes_before_nms() -> None:
    """Two boxes that differ only outside the image are one object inside it."""
    pyramid = boxes_as_anchors([[[0.0, 0, 30, 30], [0, 0, 30, 100]]])
    assert len(detect_one([[0.9], [0.8]], pyramid, size=(30, 30)).scores_D) == 1
    assert len(detect_one([[0.9], [0.8]], pyramid, size=(100, 100)).scores_D) == 2


@pytest.mark.parametrize(
    ("empty_boxes", "scores"),
    [("keep", [0.9, 0.8]), ("drop_before_nms", [0.8, 0.7]), ("drop_last", [0.8])],
)
def test_boxes_that_clipping_leaves_without_area(empty_boxes: EmptyBoxes, scores: list[float]) -> None:
    """The best box lies right of the image, the last below it; two detections are kept."""
    pyramid = boxes_as_anchors([[[60.0, 0, 70, 30], [0, 0, 20, 20], [30, 0, 50, 20], [0, 50, 40, 60]]])
    rule = RULE._replace(detections=2, empty_boxes=empty_boxes)
    found = detect_one([[0.9], [0.8], [0.7], [0.6]], pyramid, rule, size=(50, 50))
    assert found.scores_D.tolist() == pytest.approx(scores)
    two = torch.tensor([[[0.9], [0.8], [0.7], [0.6]], [[0.9], [0.01], [0.01], [0.6]]])
    sizes = torch.tensor([[50, 50], [50, 50]])
    both = detect(two, torch.zeros(2, 4, 4), pyramid, sizes, sizes, rule, GIVEN)
    assert [len(of_image.scores_D) for of_image in both] == [len(scores), 2 * (empty_boxes == "keep")]


def test_boxes_return_to_the_original_frame_with_a_factor_for_each_axis() -> None:
    pyramid = boxes_as_anchors([[[10.0, 20, 30, 60]]])
    found = detect_one([[0.9]], pyramid, size=(100, 50), original=(300, 100))
    assert found.boxes_D4.tolist() == [[20, 60, 60, 180]]


def test_nothing_above_the_threshold_gives_empty_tensors_of_the_right_shapes() -> None:
    pyramid = boxes_as_anchors([row(3, 0), row(2, 20)])
    found = detect_one([[0.05, 0.01]] * 5, pyramid)
    assert (found.boxes_D4.shape, found.scores_D.shape, found.classes_D.shape) == ((0, 4), (0,), (0,))
    assert (found.boxes_D4.dtype, found.classes_D.dtype) == (torch.float32, torch.int64)


def test_each_image_has_its_own_size_and_results() -> None:
    pyramid = boxes_as_anchors([[[0.0, 0, 100, 100]]])
    scores = torch.tensor([[[0.9]], [[0.0]], [[0.7]]])
    sizes = torch.tensor([[100, 50], [40, 40], [20, 80]])
    found = detect(scores, torch.zeros(3, 1, 4), pyramid, sizes, sizes * 2, RULE, GIVEN)
    assert [d.boxes_D4.tolist() for d in found] == [[[0, 0, 100, 200]], [], [[0, 0, 160, 40]]]


def test_deltas_are_decoded_against_their_anchor_also_in_half_precision() -> None:
    pyramid = boxes_as_anchors([[[10.0, 10, 30, 50]]])
    deltas = torch.tensor([[[0.25, -0.125, 0.5, -0.25]]], dtype=torch.bfloat16)
    size = torch.tensor([[100, 100]])
    found = detect(torch.tensor([[[0.9]]]), deltas, pyramid, size, size, RULE, GIVEN)[0]
    expected: Tensor = boxes.decode(deltas[0].float(), pyramid.boxes_A4)
    assert found.boxes_D4.dtype == torch.float32
    torch.testing.assert_close(found.boxes_D4, expected)


@pytest.mark.parametrize("scoring", [SIGMOID, SOFTMAX, GIVEN], ids=["sigmoid", "softmax", "given"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threshold", [0.0, 1e-6, 0.05, 0.5, 0.999, 1.0])
def test_the_prefilter_misses_no_pair(scoring: Scoring, dtype: torch.dtype, threshold: float) -> None:
    """The same pairs in the same order as without it, also for logits next to the threshold's own."""
    generator = torch.Generator().manual_seed(7)
    outputs_AO = torch.randn((600, 6), generator=generator) * 6
    at = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else 0.0
    outputs_AO[::3, 1] = at + torch.linspace(-3e-6, 3e-6, 200)
    outputs_AO[1::3] = -20.0
    outputs_AO[1::3, -1] += 40.0 * (scoring is SOFTMAX)
    outputs_AO = (outputs_AO.sigmoid() if scoring is GIVEN else outputs_AO).to(dtype)
    rule, levels = RULE._replace(score_threshold=threshold, topk=150), (300, 200, 100)
    outputs_BAO = torch.stack([outputs_AO, outputs_AO.roll(1, 0)])
    found = best_candidates(outputs_BAO, levels, rule, scoring)
    everything = Scoring(scoring.scores, lambda outputs, _: torch.ones_like(outputs[..., 0], dtype=torch.bool))
    wanted = best_candidates(outputs_BAO, levels, rule, everything)
    assert found.counts == wanted.counts
    assert all(torch.equal(a, b) for a, b in zip(found[:4], wanted[:4], strict=True))
    passing = scoring.prefilter(outputs_AO, threshold)
    assert threshold in (0.0, 1e-6) or passing.float().mean() < 0.9, "no score is computed of anchors far below"


def test_a_threshold_is_not_rounded_to_the_outputs_type() -> None:
    """-2.9375 in bfloat16 is just above the logit of 0.05, -2.944, which bfloat16 rounds to the same number."""
    outputs_AO = torch.tensor([[-2.9375], [-2.953125]], dtype=torch.bfloat16)
    assert SIGMOID.prefilter(outputs_AO, 0.05).tolist() == [True, False]
    assert GIVEN.prefilter(torch.tensor([[1.0], [0.99609375]], dtype=torch.bfloat16), 0.999).tolist() == [True, False]


def test_a_nan_hides_no_other_class_of_its_anchor() -> None:
    outputs_AO = torch.tensor([[math.nan, 3.0, -9.0], [-9.0, -9.0, -9.0]])
    for scoring in (SIGMOID, SOFTMAX):
        assert scoring.prefilter(outputs_AO, 0.05)[0]
    assert not SIGMOID.prefilter(outputs_AO, 0.05)[1]


def crowd(*spreads_of: tuple[int, float, int]) -> BatchDetections:
    """For each image boxes of three classes in a square; many scores are equal.

    spreads_of: number of boxes, side of the square in pixels and seed of each image.
    """
    images = []
    for count, spread, seed in spreads_of:
        generator = torch.Generator().manual_seed(seed)
        low = torch.rand((count, 2), generator=generator) * spread
        corners = torch.cat([low, low + 4 + 8 * torch.rand((count, 2), generator=generator)], dim=1)
        scores = torch.rand(count, generator=generator).mul(50).round() / 50
        images.append((corners, scores, torch.randint(0, 3, (count,), generator=generator)))
    columns = [torch.cat(of_images) for of_images in zip(*images, strict=True)]
    counts = [count for count, _, _ in spreads_of]
    return BatchDetections(*columns, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), counts)


def slow_nms(found: BatchDetections, rule: DetectRule) -> list[int]:
    """Indices of what greedy NMS of each image keeps, one pair of boxes at a time: best first, ties in their order."""
    corners, classes, images = (column.tolist() for column in (found.boxes_N4, found.classes_N, found.images_N))
    kept: list[int] = []
    for image in range(len(found.counts)):
        own: list[int] = []
        for index in found.scores_N.sort(descending=True, stable=True).indices.tolist():
            rivals = [k for k in own if rule.class_agnostic or classes[k] == classes[index]]
            if images[index] == image and all(iou_of(corners[index], corners[k]) <= rule.nms_iou for k in rivals):
                own.append(index)
        kept += own[: rule.detections]
    return kept


@pytest.fixture
def as_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process images together, as with CUDA."""
    monkeypatch.setattr(postprocess, "goes_together", lambda device: True)


def assert_equal(found: Sequence[object], wanted: Sequence[object]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


@pytest.mark.parametrize("spread", [6.0, 40.0, 4000.0], ids=["one pile", "piles", "few overlaps"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_nms_of_the_best_few_gives_what_nms_of_all_gives(spread: float, class_agnostic: bool) -> None:
    found = crowd((500, spread, 3))
    for detections in (1, 10, 60, 5000):
        rule = RULE._replace(detections=detections, class_agnostic=class_agnostic)
        keep = slow_nms(found, rule)
        assert_equal(suppress_overlaps(found, rule), (*(column[keep] for column in found[:4]), [len(keep)]))


@pytest.mark.usefixtures("as_with_cuda")
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_images_that_share_an_nms_do_not_affect_each_other(class_agnostic: bool) -> None:
    """Images that need a second NMS, images that do not, and one without candidates."""
    found = crowd((300, 6.0, 1), (300, 4000.0, 2), (0, 6.0, 3), (30, 6.0, 4), (300, 40.0, 5))
    rule = RULE._replace(detections=60, nms_iou=0.3, class_agnostic=class_agnostic)
    keep = slow_nms(found, rule)
    together = suppress_overlaps(found, rule)
    assert_equal(together[:4], [column[keep] for column in found[:4]])
    assert together.counts[1] == 60
    assert 0 < together.counts[0] < 60
    assert_equal(suppress_overlaps(crowd((0, 6.0, 1)), rule).counts, [0])


def test_a_gpu_processes_as_many_images_at_once_as_its_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nms_limit(torch.device("cpu")) == 0, "each image has its own"
    assert nms_limit(torch.device("cuda")) == NMS_TOGETHER
    found = crowd(*((count, 6.0, 1) for count in (40, 60, 1, 120, 0, 30)))
    alone = suppress_overlaps(found, RULE)
    calls = []

    def counted(found: BatchDetections, members: slice, images: int, rule: DetectRule) -> Tensor:
        calls.append((members.start, members.stop, images))
        return nms_together(found, members, images, rule)

    monkeypatch.setattr(postprocess, "nms_limit", lambda device: 100)
    monkeypatch.setattr(postprocess, "nms_together", counted)
    assert_equal(suppress_overlaps(found, RULE), alone)
    assert calls == [(0, 100, 2), (100, 101, 1), (101, 221, 1), (221, 251, 2)]


def random_outputs(images: int) -> tuple[Tensor, Tensor, Pyramid, Tensor]:
    """Logits of three classes, deltas, anchors and sizes; no two scores are equal."""
    pyramid = pyramid_anchors((96, 128), SPEC, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((images, len(pyramid.boxes_A4), 3), generator=generator) - 2
    deltas = torch.randn((images, len(pyramid.boxes_A4), 4), generator=generator) * 0.1
    return logits, deltas, pyramid, torch.tensor([(96, 128)] * images)


@pytest.mark.parametrize("topk", [7, 1000])
@pytest.mark.parametrize("empty_boxes", ["keep", "drop_before_nms", "drop_last"])
def test_images_together_give_what_each_gives_alone(
    topk: int, empty_boxes: EmptyBoxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, deltas, pyramid, sizes = random_outputs(4)
    logits[2] = -9.0
    rule = RULE._replace(topk=topk, detections=20, empty_boxes=empty_boxes)
    sizes = sizes - torch.tensor([[0, 0], [30, 90], [0, 0], [50, 0]])
    alone = detect(logits, deltas, pyramid, sizes, sizes * 3, rule, SIGMOID)
    monkeypatch.setattr(postprocess, "goes_together", lambda device: True)
    together = detect(logits, deltas, pyramid, sizes, sizes * 3, rule, SIGMOID)
    assert [len(found.scores_D) > 5 for found in alone] == [True, True, False, True]
    for found, wanted in zip(together, alone, strict=True):
        assert_equal(found, wanted)


@pytest.mark.usefixtures("as_with_cuda")
def test_of_equal_scores_the_first_are_the_best_of_their_level() -> None:
    pyramid = boxes_as_anchors([row(40, 0), row(3, 20)])
    found = best_candidates(torch.full((2, 43, 1), 0.5), pyramid.level_sizes, RULE._replace(topk=20), GIVEN)
    assert found.counts == [23, 23]
    assert found.anchors_N.tolist() == [*range(20), 40, 41, 42] * 2


@pytest.mark.usefixtures("as_with_cuda")
@pytest.mark.parametrize("empty_boxes", ["keep", "drop_before_nms", "drop_last"])
def test_neither_launches_nor_syncs_grow_with_the_number_of_images(empty_boxes: EmptyBoxes) -> None:
    rule = RULE._replace(detections=12, empty_boxes=empty_boxes)
    launched, read = {}, {}
    for images in (1, 16):
        logits, deltas, pyramid, sizes = random_outputs(images)
        with Operators() as operators:
            found = detect(logits, deltas, pyramid, sizes, sizes, rule, SIGMOID)
        with HostReads() as reads:
            result_rows(torch.arange(images), detect(logits, deltas, pyramid, sizes, sizes, rule, SIGMOID))
        assert all(len(of_image.scores_D) == 12 for of_image in found)
        launched[images], read[images] = len(operators.names), reads.found
    assert launched[16] <= launched[1] <= 150
    dropped = ["nonzero", "tolist"]
    before, last = (dropped * (empty_boxes == when) for when in ("drop_before_nms", "drop_last"))
    assert read[16] == read[1] == ["nonzero", "nonzero", "tolist", *before, "nms", "tolist", *last, "cpu"]
