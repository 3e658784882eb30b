"""A network on tiles, scales and mirror images: evaluation, prediction and Python agree, and with a slow reference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import retinanet
from retinanet.build.rules import build_resize_rule, build_view_rule
from retinanet.config.schema import Config
from retinanet.data.images import decode_image
from retinanet.data.loose_images import image_batch
from retinanet.data.views import WHOLE_IMAGES
from retinanet.distributed import Ranks
from retinanet.evaluation.evaluate import evaluate_dataset
from retinanet.evaluation.saved import SavedDetector, load_detector
from retinanet.evaluation.splits import load_split
from retinanet.training.engine import run_training

ALONE = Ranks(0, 0, 1)
TTA = ["eval.tta_flip=true", "eval.tta_scales=[1,0.5]"]
TILES = ["data.tile=64", "data.tile_overlap=0.25"]


def results_of(saved: SavedDetector, *, batch: int = 8) -> list[dict[str, Any]]:
    """Detections of the val split, as evaluation finds them."""
    config = saved.config
    dataset = load_split(config.data, "val", "none")
    rules = build_resize_rule(config), build_view_rule(config)
    seen: list[int] = []
    _, results = evaluate_dataset(
        saved.detector, dataset, rules[0], (batch, 0), ALONE, seen.append, config.eval, saved.categories, rules[1]
    )
    return results


def plain_detections(saved: SavedDetector, image: Tensor, scale: float) -> list[tuple[float, int, np.ndarray]]:
    """(score, category id, corners) in an image alone, seen once."""
    rule = build_resize_rule(saved.config).scaled(scale)
    (found,) = saved.detector(image_batch(image, 1, rule))
    ids = [saved.categories[k].id for k in found.classes_D.tolist()]
    return list(zip(found.scores_D.tolist(), ids, found.boxes_D4.double().numpy(), strict=True))


def iou_of(a: np.ndarray, b: np.ndarray) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def slow_tta(saved: SavedDetector, image: Tensor) -> list[tuple[float, int, np.ndarray]]:
    """Each look alone; NMS over all, then the mean of each look's best match, one comparison after the other."""
    width, least, looks = image.shape[-1], saved.config.eval.nms_iou, []
    for scale in saved.config.eval.tta_scales:
        looks.append(plain_detections(saved, image, scale))
        mirrored = plain_detections(saved, image.flip(-1), scale)
        looks.append([(score, kind, np.array([width - b[2], b[1], width - b[0], b[3]])) for score, kind, b in mirrored])
    kept: list[tuple[float, int, np.ndarray]] = []
    for box in sorted((box for look in looks for box in look), key=lambda box: -box[0]):
        others = (other for other in kept if other[1] == box[1])
        if all(iou_of(box[2], other[2]) <= least for other in others):
            kept.append(box)
    averaged = []
    for _, kind, box in kept[: saved.config.eval.detections]:
        near = [[b for b in look if b[1] == kind and iou_of(b[2], box) > least] for look in looks]
        matches = [max(look, key=lambda b: iou_of(b[2], box)) for look in near if look]
        total = sum(score for score, _, _ in matches)
        averaged.append((total / len(looks), kind, sum(score * b for score, _, b in matches) / total))
    return sorted(averaged, key=lambda box: -box[0])


def test_test_time_augmentation_equals_a_slow_reference(trained: Path) -> None:
    saved = load_detector(trained / "checkpoints/best.pt", [*TTA, "eval.detections=50"])
    results = results_of(saved)
    for record in load_split(saved.config.data, "val", "none").images[:3]:
        ours = [row for row in results if row["image_id"] == record.id]
        wanted = slow_tta(saved, decode_image(record.path))
        assert len(ours) == len(wanted) > 20
        assert [row["score"] for row in ours] == pytest.approx([score for score, _, _ in wanted], abs=2e-4)
        # Of equal scores the order is open.
        for row in ours:
            x, y, w, h = row["bbox"]
            near = [b for score, kind, b in wanted if kind == row["category_id"] and abs(score - row["score"]) < 1e-3]
            assert min(np.abs(b - [x, y, x + w, y + h]).max() for b in near) < 0.1


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of 150 x 120 pixels, larger than the tiles of the tests."""
    folder = tmp_path_factory.mktemp("wide") / "scenes"
    from retinanet.prepare.shapes import generate_shapes

    generate_shapes(folder, train_images=3, val_images=2, size=(120, 150), seed=1)
    return folder


def test_evaluation_prediction_and_python_see_the_same_in_tiles(
    trained: Path, wide: Path, tmp_path: Path, tool: Callable[..., tuple[int, str, str]]
) -> None:
    best, keys = trained / "checkpoints/best.pt", [*TILES, *TTA]
    results = results_of(load_detector(best, [*keys, f"data.root={wide}"]))
    code, _, err = tool(
        "predict.py", best, wide / "val", *TTA, "--tile", 64, "--overlap", 0.25, "--output", tmp_path / "p"
    )
    assert code == 0, err
    predicted = json.loads((tmp_path / "p/detections.json").read_text(encoding="utf-8"))
    detector = retinanet.load(best, overrides=keys)
    for number, path in enumerate(sorted((wide / "val").iterdir()), start=1):
        found = detector(path)
        scores = [[row["score"] for row in rows if row["image_id"] == number] for rows in (results, predicted)]
        assert len(found) > 20
        assert found.scores.tolist() == pytest.approx(scores[0], abs=2e-4)
        assert scores[1] == pytest.approx(scores[0], abs=2e-4)
        assert found.boxes[:, 2].max() > 100, "boxes are in the frame of the image"
        assert found.boxes[:, [0, 2]].max() <= 150.01
        assert found.boxes[:, [1, 3]].max() <= 120.01


def test_an_image_of_one_tile_is_detected_as_a_whole(trained: Path) -> None:
    whole = results_of(load_detector(trained / "checkpoints/best.pt"))
    tiles = results_of(load_detector(trained / "checkpoints/best.pt", ["data.tile=64"]), batch=3)
    assert [row["score"] for row in tiles] == pytest.approx([row["score"] for row in whole], abs=1e-4)
    assert len(tiles) == len(whole) > 0


def test_a_network_trains_on_tiles_and_is_evaluated_on_them(
    tiny: Callable[..., Config], wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"data.root={wide}", *TILES, "schedule.iterations=1", "data.empty_images=false", "data.cache_mib=1")
    config = tiny(*words)
    run_training(config, tmp_path / "run")
    printed = " ".join(capsys.readouterr().out.split())
    assert "tiles of 64 x 64 pixels, which share at least 25% of a side" in printed
    assert "cut into" in printed
    saved = load_detector(tmp_path / "run/checkpoints/best.pt")
    assert build_view_rule(saved.config) == WHOLE_IMAGES._replace(tile=64, overlap=0.25)
    written = json.loads((tmp_path / "run/detections.json").read_text(encoding="utf-8"))
    ours = results_of(saved)
    assert [row["score"] for row in ours] == pytest.approx([row["score"] for row in written], abs=1e-4)
    assert max(row["bbox"][0] + row["bbox"][2] for row in written) > 100
    assert torch.tensor([row["bbox"][2] for row in written]).max() < 150
