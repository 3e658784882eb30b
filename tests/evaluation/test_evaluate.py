"""Detections become results, and evaluations files, to the last digit."""

import json
from pathlib import Path

import torch
from scenes_to_score import random_scene

from retinanet.data.validate import EXACT
from retinanet.evaluation.evaluate import result_rows, to_results, write_evaluation
from retinanet.scoring.eval_file import read_eval_file
from retinanet.scoring.evaluation import METRIC_NAMES, coco_evaluation
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
    truth, results = random_scene(1)
    evaluation = coco_evaluation(truth, results)
    metrics = {name: 1 / (n + 3) for n, name in enumerate(METRIC_NAMES)}
    row = evaluation.per_class[0]._replace(ap=1 / 7)
    evaluation = evaluation._replace(metrics=metrics, per_class=(row, *evaluation.per_class[1:]))
    files = tmp_path / "eval.json", tmp_path / "detections.json"
    write_evaluation(*files, evaluation, results, step=5, precision="bfloat16")
    content = read_eval_file(files[0])
    assert (content["step"], content["precision"], content["metrics"]) == (5, "bfloat16", metrics)
    assert content["engine"] == evaluation.engine
    assert content["per_class"][0] == row.as_dict()
    assert json.loads((tmp_path / "detections.json").read_text()) == results
