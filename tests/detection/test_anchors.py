"""Anchors: sizes, centres and order by hand and against torchvision; the cache."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen

from retinanet.detection import boxes
from retinanet.detection.anchors import AnchorSpec, cell_anchors, pyramid_anchors

SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
CPU = torch.device("cpu")
PAPER = AnchorSpec(SIZES, SCALES, RATIOS, offset=0.5, rounding="none", spacing="stride")
TORCHVISION = AnchorSpec(SIZES, SCALES, RATIOS, offset=0.0, rounding="truncate", spacing="stride")


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    pyramid_anchors.cache_clear()
    yield
    pyramid_anchors.cache_clear()


def grid(canvas: tuple[int, int], stride: int) -> list[int]:
    return [-(-side // stride) for side in canvas]


@pytest.mark.parametrize("size", SIZES)
def test_areas_are_size_times_scale_squared_and_aspect_is_height_over_width(size: float) -> None:
    cell = cell_anchors(size, 8, PAPER).double()
    width, height = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
    expected = [(ratio, (size * scale) ** 2) for ratio in RATIOS for scale in SCALES]
    assert (height / width).tolist() == pytest.approx([ratio for ratio, _ in expected], rel=1e-6)
    assert (width * height).tolist() == pytest.approx([area for _, area in expected], rel=1e-6)
    assert (cell[:, :2] + cell[:, 2:]).abs().max().item() == 0


def test_roundings_differ_where_they_should() -> None:
    spec = AnchorSpec(SIZES, (1.0, 1.26171875), (1.0,), 0.5, "none", "stride")
    halves = {
        rounding: cell_anchors(128.0, 32, spec._replace(rounding=rounding))[:, 2].tolist()
        for rounding in ("none", "half_even", "truncate")
    }
    assert halves == {"none": [64.0, 80.75], "half_even": [64.0, 81.0], "truncate": [64.0, 80.0]}


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_centres_by_hand(offset: float) -> None:
    spec = AnchorSpec(SIZES, (1.0,), (1.0,), offset, "none", "stride")
    pyramid = pyramid_anchors((48, 64), spec, CPU)
    first, right, below = pyramid.boxes_A4[[0, 1, 8]].tolist()
    base = 8 * offset
    assert first == [base - 16, base - 16, base + 16, base + 16]
    assert right == [base + 8 - 16, base - 16, base + 8 + 16, base + 16]
    assert below == [base - 16, base + 8 - 16, base + 16, base + 8 + 16]
    p4_last = pyramid.boxes_A4[6 * 8 + 3 * 4 - 1]
    assert ((p4_last[:2] + p4_last[2:]) / 2).tolist() == [(3 + offset) * 16, (2 + offset) * 16]


def test_level_sizes_sum_with_nine_anchors_a_cell() -> None:
    pyramid = pyramid_anchors((600, 1000), PAPER, CPU)
    assert pyramid.level_sizes == tuple(9 * n for n in (75 * 125, 38 * 63, 19 * 32, 10 * 16, 5 * 8))
    assert sum(pyramid.level_sizes) == len(pyramid.boxes_A4) == 9 * (9375 + 2394 + 608 + 160 + 40)
    assert pyramid.boxes_A4.dtype == torch.float32
    assert PAPER.per_cell == 9


def test_truncate_equals_torchvision_on_a_canvas_of_whole_strides() -> None:
    canvas = (256, 384)
    features = [torch.zeros(1, 1, *grid(canvas, stride)) for stride in PAPER.strides]
    oracle = _default_anchorgen()(ImageList(torch.zeros(1, 3, *canvas), [canvas]), features)[0]
    assert torch.equal(pyramid_anchors(canvas, TORCHVISION, CPU).boxes_A4, oracle)


def test_truncate_equals_torchvision_with_nominal_strides() -> None:
    """224 x 320 is no multiple of 64 or 128; torchvision's forward would use strides of 56 and 112 there."""
    canvas = (224, 320)
    strides = [[torch.tensor(stride)] * 2 for stride in PAPER.strides]
    oracle = _default_anchorgen().grid_anchors([grid(canvas, stride) for stride in PAPER.strides], strides)
    pyramid = pyramid_anchors(canvas, TORCHVISION, CPU)
    assert torch.equal(pyramid.boxes_A4, torch.cat(oracle))
    assert pyramid.level_sizes == tuple(len(level) for level in oracle)


def test_half_even_equals_torchvision_without_truncation() -> None:
    oracle = AnchorGenerator((tuple(48.0 * scale for scale in SCALES),), (RATIOS,)).cell_anchors[0]
    spec = PAPER._replace(rounding="half_even")
    assert torch.equal(cell_anchors(48.0, 8, spec), oracle)


@pytest.mark.parametrize("canvas", [(800, 1088), (224, 320), (672, 1344), (800, 1333), (33, 200), (64, 64), (1344, 32)])
def test_canvas_over_cells_equals_torchvision_on_any_canvas(canvas: tuple[int, int]) -> None:
    features = [torch.zeros(1, 1, *grid(canvas, stride)) for stride in PAPER.strides]
    oracle = _default_anchorgen()(ImageList(torch.zeros(1, 3, *canvas), [canvas]), features)[0]
    spec = TORCHVISION._replace(spacing="canvas_over_cells")
    assert torch.equal(pyramid_anchors(canvas, spec, CPU).boxes_A4, oracle)


def test_spacing_by_hand_on_a_canvas_1088_wide() -> None:
    pyramid = pyramid_anchors((800, 1088), TORCHVISION._replace(spacing="canvas_over_cells"), CPU)
    p7 = pyramid.boxes_A4[-pyramid.level_sizes[-1] :].reshape(7, 9, 9, 4)
    centres = (p7[..., :2] + p7[..., 2:]) / 2
    assert centres[0, :, 0, 0].tolist() == [120.0 * column for column in range(9)]
    assert centres[:, 0, 0, 1].tolist() == [114.0 * row for row in range(7)]


def detectron_cell(stride: int, size: float, ratio: float) -> tuple[float, ...]:
    """Detectron's anchor of one size and ratio at the first cell: (x1, y1, x2, y2), x2 and y2 inclusive."""
    middle = (stride - 1) / 2
    width = np.round(np.sqrt(stride * stride / ratio))
    height = np.round(width * ratio)
    width, height = width * size / stride, height * size / stride
    half_w, half_h = (width - 1) / 2, (height - 1) / 2
    return middle - half_w, middle - half_h, middle + half_w, middle + half_h


def test_stride_box_equals_detectron_with_inclusive_corners_made_exclusive() -> None:
    spec = AnchorSpec(SIZES, SCALES, RATIOS, 0.5, "stride_box", "stride")
    pyramid = pyramid_anchors((256, 384), spec, CPU)
    start = 0
    for stride, count in zip(PAPER.strides, pyramid.level_sizes, strict=True):
        rows, columns = grid((256, 384), stride)
        found = pyramid.boxes_A4[start : start + count].reshape(rows, columns, 9, 4)
        start += count
        for index, (ratio, scale) in enumerate((r, s) for r in RATIOS for s in SCALES):
            x1, y1, x2, y2 = detectron_cell(stride, 4 * stride * scale, ratio)
            for row, column in ((0, 0), (rows - 1, columns - 1)):
                x, y = column * stride, row * stride
                expected = [x1 + x, y1 + y, x2 + 1 + x, y2 + 1 + y]
                assert found[row, column, index].tolist() == pytest.approx(expected, abs=1e-4), (stride, ratio, scale)


def test_stride_box_by_hand() -> None:
    """sqrt(64 / 0.5) = 11.3 -> 11 wide, 5.5 -> 6 high (half to even), times 32 / 8."""
    spec = PAPER._replace(rounding="stride_box", scales=(1.0,))
    assert cell_anchors(32.0, 8, spec).tolist() == [[-22, -12, 22, 12], [-16, -16, 16, 16], [-12, -24, 12, 24]]


def test_autocast_changes_nothing() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pyramid_anchors((200, 333), PAPER, CPU).boxes_A4
    pyramid_anchors.cache_clear()
    assert inside.dtype == torch.float32
    assert torch.equal(inside, pyramid_anchors((200, 333), PAPER, CPU).boxes_A4)


def test_the_cache_keeps_specs_and_canvases_apart() -> None:
    canvases = [(64, 96), (96, 64), (64, 64)]
    specs = [
        PAPER,
        TORCHVISION,
        TORCHVISION._replace(spacing="canvas_over_cells"),
        PAPER._replace(offset=0.0),
        PAPER._replace(aspect_ratios=(1.0,)),
    ]
    fresh = {}
    for canvas in canvases:
        for spec in specs:
            pyramid_anchors.cache_clear()
            fresh[canvas, spec] = pyramid_anchors(canvas, spec, CPU)
    pyramid_anchors.cache_clear()
    for _ in range(2):
        for key, expected in fresh.items():
            found = pyramid_anchors(*key, CPU)
            assert found.level_sizes == expected.level_sizes
            assert torch.equal(found.boxes_A4, expected.boxes_A4)
    assert pyramid_anchors.cache_info().hits == len(fresh)


def test_anchors_first_made_for_inference_serve_training_later() -> None:
    with torch.inference_mode():
        pyramid_anchors((64, 64), PAPER, CPU)
    anchors = pyramid_anchors((64, 64), PAPER, CPU).boxes_A4[torch.tensor([3, 5])]
    deltas = torch.zeros((2, 4), requires_grad=True)
    boxes.decode(deltas, anchors).sum().backward()
    assert deltas.grad is not None
    assert torch.isfinite(deltas.grad).all()
