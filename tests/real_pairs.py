"""Real detectors' outputs with ground truth and pycocotools' numbers, where the data are next to the checkout."""

import json
from typing import Any

import pytest
from places import PAIRS

from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results

needs_pairs = pytest.mark.skipif(not PAIRS.is_dir(), reason="needs ../shared/data/eval_pairs")


def read_pair(name: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[float]]:
    """Ground truth, detections and the twelve metrics."""
    pair = json.loads((PAIRS / "expected_stats.json").read_text(encoding="utf-8"))[name]
    truth = load_ground_truth(PAIRS / pair["gt"])
    return truth, read_results(PAIRS / pair["detections"], truth), pair["stats"]
