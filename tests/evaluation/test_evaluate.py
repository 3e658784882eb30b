"""Detections become results, and evaluations files, to the last digit."""

import json
from pathlib import Path

import torch

from retinanet.data.validate import EXACT
from retinanet.evaluation.evaluate import result_rows, to_results, write_evaluation
from retinanet.scoring.evaluation import METRIC_NAMES, Evaluation
from retinanet.structures import Category, Detections


def test_rows_become_results_in_the_order_of_their_images() -> None:
    found = Detections(
        torch.tensor([[1.0, 2.0, 11.5, 22.25], [0.0, 0.0, 5.0, 5.0]]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0])
    )
    categories = (Category(4, "a"), Category(90, "b"))
    large_id = EXACT - 1
    nothing = Detections(torch.zeros((0, 4)), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    rows = result_rows(torch.tensor([large_id, 3, 7]), [found, nothing, found])
    results = to_results(rows, categories)
    assert [r["image_id"] for r in results] == [7, 7, large_id, large_id]
    assert results[0] == {"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 10.5, 20.25], "score": 0.75}
    assert results[1]["category_id"] == 4
    assert all(type(r["image_id"]) is int and type(r["score"]) is float for r in results)


def test_files_hold_every_digit(tmp_path: Path) -> None:
    metrics = {name: 1 / (n + 3) for n, name in enumerate(METRIC_NAMES)}
    evaluation = Evaluation(metrics, [{"id": 1, "name": "a", "AP": 1 / 7}], "pycocotools 2.0.11")
    results = [{"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 10.5, 20.25], "score": 0.75}]
    write_evaluation(tmp_path / "eval.json", tmp_path / "detections.json", evaluation, results, step=5)
    assert json.loads((tmp_path / "eval.json").read_text()) == {
        "step": 5,
        "metrics": metrics,
        "engine": "pycocotools 2.0.11",
        "per_class": [{"id": 1, "name": "a", "AP": 1 / 7}],
    }
    assert json.loads((tmp_path / "detections.json").read_text()) == results
