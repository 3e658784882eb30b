"""Recall of anchors: counts by hand, boxes on canvases, clusters, suggestions and the output of the command."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from placed_boxes import SQUARES, placed_squares, random_placed

from retinanet.build.network import build_anchor_spec
from retinanet.build.rules import build_resize_rule
from retinanet.config.load import load_config
from retinanet.config.schema import AssignKeys
from retinanet.data.coco import ImageRecord, load_coco
from retinanet.data.loader import eval_batches
from retinanet.detection.anchors import AnchorSpec
from retinanet.diagnostics.anchors.recall import (
    ALL,
    BY_LEVEL,
    BY_SIDE,
    BY_SIZE,
    AnchorRecall,
    Group,
    PlacedBoxes,
    anchor_recall,
    best_anchors,
    place_boxes,
)
from retinanet.diagnostics.anchors.report import describe_fit, draw_recall, report_anchors
from retinanet.diagnostics.anchors.suggest import (
    as_arguments,
    climb,
    cluster_shapes,
    from_clusters,
    shape_iou,
    suggest_anchors,
    within_bounds,
    written,
)
from retinanet.errors import ConfigError, DataError
from retinanet.prepare.shapes import generate_shapes

SCENES = Path("configs/scenes.yaml")


def recall_of(placed: PlacedBoxes, worst: int = 5) -> AnchorRecall:
    """The recall of SQUARES at the paper's thresholds."""
    return anchor_recall(placed, SQUARES, positive_iou=0.5, negative_iou=0.4, worst=worst)


def test_counts_by_hand() -> None:
    # (60, 60) is the centre of cell 7 of P3, so squares of side s have IoU (s / 32)^2 with its anchor.
    sides = [32.0, 23.0, 22.0, 20.0, 16.0, 4.0]
    recall = recall_of(placed_squares(sides), worst=2)
    np.testing.assert_allclose(recall.iou_N, (np.array(sides) / 32) ** 2, atol=1e-6)
    assert recall.overall[:3] == (ALL, "all boxes", 6)
    assert recall.overall[4:] == (2, 1, 3)
    assert recall.overall.mean_iou == pytest.approx(sum((s / 32) ** 2 for s in sides) / 6)
    assert [group.boxes for group in recall.of(BY_SIZE)] == [5, 1, 0]
    assert [(group.name, group.boxes) for group in recall.of(BY_SIDE)] == [
        ("under 8", 1), ("16 to 32", 4), ("32 to 64", 1),
    ]  # fmt: skip
    assert [group.boxes for group in recall.of(BY_LEVEL)] == [6, 0, 0, 0, 0]
    assert [(box.image_id, box.level) for box in recall.worst] == [(12, "P3"), (11, "P3")]
    assert recall.worst[0].box == (58.0, 58.0, 62.0, 62.0)


def test_groups_of_a_kind_hold_every_box_once() -> None:
    rng = np.random.default_rng(1)
    recall = recall_of(placed_squares(rng.uniform(2, 400, 50).tolist()))
    for by in (BY_SIZE, BY_SIDE, BY_LEVEL):
        for field in ("boxes", "positive", "ignored", "missed"):
            place = Group._fields.index(field)
            assert sum(group[place] for group in recall.of(by)) == recall.overall[place]


def test_no_boxes_are_all_zero() -> None:
    recall = recall_of(placed_squares([]))
    assert recall.overall.boxes == recall.overall.missed == 0
    assert np.isnan(recall.overall.mean_iou)
    assert recall.of(BY_SIDE) == ()
    assert recall.worst == ()
    assert suggest_anchors(placed_squares([]), SQUARES, recall, 0) is None


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    generate_shapes(folder, train_images=40, val_images=8)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["data.canvas=[100, 160]"],
        ["data.canvas=null", "data.shorter_side=[90, 150]"],
        ["data.canvas=null", "data.shorter_side=[150]", "data.resize=float_bilinear", "data.canvases=tight"],
    ],
)
@pytest.mark.parametrize("size", [(320, 320), (199, 131)])
def test_boxes_lie_where_the_loader_puts_them(tmp_path: Path, size: tuple[int, int], words: list[str]) -> None:
    generate_shapes(tmp_path / "data", train_images=1, val_images=5, size=size)
    resize_rule = build_resize_rule(load_config(SCENES, words))
    dataset = load_coco(tmp_path / "data/annotations/val.json", tmp_path / "data/val")
    placed = place_boxes(dataset.images, resize_rule)
    batches = list(eval_batches(dataset, resize_rule, batch_size=1, rank=0, world_size=1, workers=0, pin=False))
    boxes_N4 = np.concatenate([batch.targets[0].boxes_G4.numpy() for batch in batches])
    np.testing.assert_array_equal(placed.boxes_N4, boxes_N4)
    canvases = [tuple(batch.images.shape[2:]) for batch in batches for _ in batch.targets[0].boxes_G4]
    assert [placed.canvases[number] for number in placed.canvas_N] == canvases
    assert placed.image_ids_N.tolist() == [
        int(batch.image_ids_B[0]) for batch in batches for _ in batch.targets[0].boxes_G4
    ]


def test_crowd_and_images_without_objects_are_left_out() -> None:
    none, box = np.zeros((0, 4), np.float32), np.array([[1, 1, 9, 9]], np.float32)
    one, zero = np.ones(1, np.int64), np.zeros(0, np.int64)
    images = [
        ImageRecord(1, Path("a"), 50, 60, none, zero, box),
        ImageRecord(2, Path("b"), 50, 60, box, one, box),
    ]
    resize_rule = build_resize_rule(load_config(SCENES, []))
    placed = place_boxes(images, resize_rule)
    assert placed.image_ids_N.tolist() == [2]
    assert placed.classes_N.tolist() == [1]
    assert placed.areas_N.tolist() == [64]


def test_clusters_find_what_is_there() -> None:
    rng = np.random.default_rng(0)
    truth_K2 = np.array([[10.0, 20.0], [50.0, 25.0], [100.0, 100.0]])
    shapes_N2 = truth_K2[rng.integers(3, size=300)] * rng.uniform(0.95, 1.05, (300, 2))
    found_K2 = cluster_shapes(shapes_N2, 3, seed=4)
    np.testing.assert_allclose(found_K2, truth_K2, rtol=0.02)
    np.testing.assert_array_equal(found_K2, cluster_shapes(shapes_N2, 3, seed=4))
    assert cluster_shapes(np.ones((5, 2)), 3, 0).tolist() == [[1.0, 1.0]] * 3
    assert shape_iou(np.array([[2.0, 4.0]]), np.array([[4.0, 2.0], [2.0, 4.0]])).tolist() == [[4 / 12, 1.0]]


def test_suggestion_is_better_on_all_boxes_and_repeatable() -> None:
    placed = random_placed(500, 0)
    now = recall_of(placed)
    found = suggest_anchors(placed, SQUARES, now, 0)
    assert found is not None
    spec, recall = found
    assert float(best_anchors(placed, spec).iou_N.mean()) == recall.overall.mean_iou > now.overall.mean_iou + 0.1
    assert recall.overall.positive >= now.overall.positive
    # Boxes are about 2.8 times as high as wide.
    assert 2.2 < spec.aspect_ratios[0] < 3.4
    assert (len(spec.sizes), len(spec.scales), len(spec.aspect_ratios)) == (5, 1, 1)
    assert spec == written(within_bounds(spec))
    again = suggest_anchors(placed, SQUARES, now, 0)
    assert again is not None
    assert again[0] == spec


def test_nothing_is_suggested_where_anchors_are_best_already() -> None:
    placed = placed_squares([32.0] * 20)
    now = recall_of(placed)
    assert now.overall.mean_iou == 1.0
    assert suggest_anchors(placed, SQUARES, now, 0) is None


def test_climb_ends_where_no_number_helps() -> None:
    def value(spec: AnchorSpec) -> float:
        return -sum((np.log(a) - np.log(b)) ** 2 for a, b in zip(spec.sizes, (20.0, 40.0, 80.0, 160.0, 320.0)))

    found = climb(SQUARES, value)
    np.testing.assert_allclose(found.sizes, (20.0, 40.0, 80.0, 160.0, 320.0), rtol=0.006)
    start = from_clusters(random_placed(200, 1).sides_N2, SQUARES._replace(scales=(1.0, 1.3)), 0)
    assert len(start.sizes) == 5
    assert len(start.scales) == 2
    assert start.scales[0] == pytest.approx(1.0)
    assert within_bounds(SQUARES._replace(sizes=(9.0, 4.0, 300.0, 10.0, 20.0))).sizes == (8.0, 16.0, 32.0, 64.0, 300.0)


@pytest.mark.slow
def test_suggestion_loads_and_keeps_its_promise(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "fit.png"
    report_anchors(load_config(SCENES, [f"data.root={scenes}"]), "scenes", output=picture)
    text = capsys.readouterr().out
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000
    (arguments,) = (line for line in text.splitlines() if line.startswith("'model.anchors.sizes=["))
    config = load_config(SCENES, [f"data.root={scenes}", *shlex.split(arguments)])
    spec = build_anchor_spec(config.model)
    assert as_arguments(spec) == arguments
    assert spec != build_anchor_spec(load_config(SCENES, []).model)
    pasted = tmp_path / "pasted.yaml"
    lines = text[text.index("  anchors:\n") :].split("\n\n")[0]
    pasted.write_text(f"base: {SCENES.absolute()}\nmodel:\n{lines}\n", encoding="utf-8")
    assert build_anchor_spec(load_config(pasted, []).model) == spec
    placed = place_boxes(
        load_coco(scenes / "annotations/train.json", scenes / "train").images, build_resize_rule(config)
    )
    recall = anchor_recall(placed, build_anchor_spec(config.model), positive_iou=0.5, negative_iou=0.4)
    promised = text.split("mean best IoU")[-1].split(",")[0]
    assert promised.split("->")[1].strip() == f"{recall.overall.mean_iou:.3f}"
    assert recall.overall.mean_iou > float(promised.split("->")[0])


def test_the_summary_says_what_low_quality_does() -> None:
    poor = recall_of(placed_squares([32.0, 16.0]))
    assert "do not fit: 50.0 % of 2 boxes" in describe_fit(poor, AssignKeys())
    assert "no anchor is trained on those" in describe_fit(poor, AssignKeys())
    assert "a threshold of its own" in describe_fit(poor, AssignKeys(kind="atss"))
    assert "still assigns each of those its best anchor" in describe_fit(poor, AssignKeys(low_quality=True))
    good = recall_of(placed_squares([32.0, 32.0]))
    assert describe_fit(good, AssignKeys()).startswith("The anchors fit: 100.0 % of 2 boxes")


def test_data_without_boxes_are_errors(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        report_anchors(load_config(SCENES, [f"data.root={tmp_path / 'nowhere'}"]), "lost")
    empty = tmp_path / "empty"
    generate_shapes(empty, train_images=1, val_images=1)
    annotations = empty / "annotations/train.json"
    content = json.loads(annotations.read_text(encoding="utf-8"))
    annotations.write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    with pytest.raises(DataError, match="nothing to fit anchors to"):
        report_anchors(load_config(SCENES, [f"data.root={empty}"]), "empty")


@pytest.mark.parametrize(("name", "message"), [("x.foo", "must end in one of .png"), ("folder.png", "is a folder")])
def test_an_output_that_is_no_picture_is_refused_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=message):
        report_anchors(load_config(SCENES, []), "any", output=tmp_path / name)
    assert capsys.readouterr().out == ""


def test_picture_without_large_boxes(tmp_path: Path) -> None:
    recall = recall_of(placed_squares([10.0]))
    assert draw_recall(tmp_path / "a.png", "one box", recall).stat().st_size > 10_000


def test_the_command_line(tool: Callable[..., Any], scenes: Path) -> None:
    done = tool("anchors.py", "configs/scenes.yaml", f"data.root={scenes}", "--split", "val")
    assert (done.code, done.err) == (0, "")
    assert "boxes have an anchor of IoU 0.5 or more" in done.out
    failed = tool("anchors.py", "configs/scenes.yaml", "model.anchors.sizes=[1]")
    assert failed.code == 2


def test_the_anchors_of_a_checkpoint(tool: Callable[..., Any], trained: Path) -> None:
    words = ["--split", "val", "model.anchors.sizes=[9, 18, 36, 72, 144]"]
    (of_file, of_checkpoint) = (
        tool("anchors.py", trained / name, *words) for name in ("config.yaml", "checkpoints/best.pt")
    )
    assert (of_checkpoint.code, of_checkpoint.err) == (0, "")
    assert of_checkpoint.out == of_file.out


def test_p2_is_a_level_of_its_own(tool: Callable[..., Any], scenes: Path) -> None:
    words = ["model.fpn.finest=p2", "model.anchors.sizes=[8, 16, 32, 64, 128, 256]", f"data.root={scenes}"]
    done = tool("anchors.py", "configs/scenes.yaml", *words, "--split", "val")
    assert (done.code, done.err) == (0, "")
    assert all(f"\nP{level} " in done.out for level in range(2, 8))
