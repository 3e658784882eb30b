"""The anchor of the nearest cell is the best of all anchors."""

import numpy as np
import pytest
import torch
from placed_boxes import placed_boxes

from retinanet.detection import boxes
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.diagnostics.anchors.recall import PlacedBoxes, best_anchors

PAPER = AnchorSpec(
    (32.0, 64.0, 128.0, 256.0, 512.0), (1.0, 2 ** (1 / 3), 2 ** (2 / 3)), (0.5, 1.0, 2.0), 0.5, "none", "stride"
)
SPECS = {
    "paper": PAPER,
    "corner": PAPER._replace(offset=0.0),
    "torchvision": PAPER._replace(
        offset=0.0, rounding="truncate", spacing="canvas_over_cells", sizes=(33.0, 66.0, 131.0, 250.0, 511.0)
    ),
    "rounded": PAPER._replace(rounding="half_even", aspect_ratios=(0.37, 1.9)),
    "detectron": PAPER._replace(rounding="stride_box"),
    "one shape": AnchorSpec((8.0, 9.0, 10.0, 400.0, 11.0), (1.0,), (3.0,), 0.25, "none", "stride"),
}
CANVASES = ((608, 1024), (96, 160), (32, 32), (300, 200))


def random_boxes(count: int, canvases: tuple[tuple[int, int], ...], seed: int) -> PlacedBoxes:
    """Boxes of all sizes and places, some touching or leaving the border, some whole pixels, some tiny."""
    rng = np.random.default_rng(seed)
    canvas_N = rng.integers(len(canvases), size=count)
    extents_N2 = np.array(canvases, dtype=float)[canvas_N][:, ::-1]
    sides_N2 = np.exp(rng.uniform(np.log(0.5), np.log(extents_N2 * 1.2)))
    low_N2 = rng.uniform(-0.1, 1.0, (count, 2)) * extents_N2
    boxes_N4 = np.concatenate([low_N2, low_N2 + sides_N2], axis=1)
    boxes_N4[::3] = np.round(boxes_N4[::3]) + np.array([0, 0, 1, 1])
    return placed_boxes(boxes_N4, canvas_N, canvases)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_equals_the_dense_maximum(name: str) -> None:
    spec = SPECS[name]
    placed = random_boxes(600, CANVASES, 3)
    best = best_anchors(placed, spec)
    for number, canvas in enumerate(CANVASES):
        chosen = np.flatnonzero(placed.canvas_N == number)
        pyramid = pyramid_anchors(canvas, spec, torch.device("cpu"))
        dense_GA = boxes.iou(torch.from_numpy(placed.boxes_N4[chosen]).double(), pyramid.boxes_A4.double())
        np.testing.assert_allclose(best.iou_N[chosen], dense_GA.max(dim=1).values.numpy(), rtol=1e-4, atol=2e-6)
        per_level = torch.stack([part.max(dim=1).values for part in dense_GA.split(list(pyramid.level_sizes), 1)], 1)
        of_level_G = per_level[torch.arange(len(chosen)), torch.from_numpy(best.level_N[chosen])].numpy()
        np.testing.assert_allclose(best.iou_N[chosen], of_level_G, rtol=1e-4, atol=2e-6)


def test_a_box_that_is_an_anchor() -> None:
    pyramid = pyramid_anchors((96, 160), PAPER, torch.device("cpu"))
    first_of_p4 = pyramid.level_sizes[0]
    cell = 7
    anchor = pyramid.boxes_A4[first_of_p4 + 9 * cell + 5 : first_of_p4 + 9 * cell + 6].numpy()
    best = best_anchors(placed_boxes(anchor, canvases=((96, 160),)), PAPER)
    assert best.iou_N[0] == pytest.approx(1.0, abs=1e-6)
    assert (best.level_N[0], best.shape_N[0]) == (1, 5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = random_boxes(100, CANVASES, 5)
    whole = best_anchors(placed, PAPER)
    monkeypatch.setattr("retinanet.diagnostics.anchors.recall.BLOCK", 7)
    for a, b in zip(whole, best_anchors(placed, PAPER)):
        np.testing.assert_array_equal(a, b)


def test_no_boxes() -> None:
    none = random_boxes(5, CANVASES, 0).chosen(np.zeros(0, np.int64))
    assert all(len(array) == 0 for array in best_anchors(none, PAPER))
