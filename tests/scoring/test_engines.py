"""The fast engine equals pycocotools in every number, on sets made to distinguish them."""

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from places import PROJECT
from random_sets import random_set

from retinanet.errors import ConfigError
from retinanet.scoring.columns import DetectionColumns, TruthColumns, detection_columns, truth_columns
from retinanet.scoring.evaluation import Engine, check_engine, coco_evaluation
from retinanet.scoring.fast import hotcoco_numbers, is_exact
from retinanet.scoring.reference import CocoNumbers, pycocotools_numbers

ENGINES: tuple[Engine, ...] = ("pycocotools", "fast", "auto")

Rows = list[dict[str, Any]]


def columns_of(truth: dict[str, Any], results: Rows) -> tuple[TruthColumns, DetectionColumns]:
    columns = truth_columns(truth)
    return columns, detection_columns(columns, results)


def fast_equals_reference(truth: dict[str, Any], results: Rows) -> CocoNumbers:
    """Both engines on a set that is not left to pycocotools; the numbers."""
    columns = columns_of(truth, results)
    assert is_exact(columns[1])
    given, expected = hotcoco_numbers(*columns), pycocotools_numbers(truth, results)
    assert given.engine.startswith("hotcoco ")
    assert given.twelve == expected.twelve
    assert np.array_equal(given.precision_TQKAM, expected.precision_TQKAM)
    assert np.array_equal(given.recall_TKAM, expected.recall_TKAM)
    return given


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(8))
def test_random_sets_score_the_same_to_the_last_bit(hundred: int) -> None:
    measured = 0
    for seed in range(25 * hundred, 25 * (hundred + 1)):
        truth, results = random_set(seed)
        given = fast_equals_reference(truth, results)
        first, second = (coco_evaluation(truth, results, engine) for engine in ENGINES[:2])
        assert [a == b for a, b in zip(first[:3], second[:3])] == [True, True, False], "metrics, per_class, engine"
        measured += 0 < given.twelve[0] < 1
    assert measured > 12, "the sets must have something to measure"


def small_set(scale: float = 1.0, scores: tuple[float, ...] = (0.9, 0.8, 0.7)) -> tuple[dict[str, Any], Rows]:
    """Two objects, one found, a crowd region with a detection, and a miss; lengths in `scale`."""
    boxes = [([10, 10, 20, 20], 0), ([50, 10, 20, 20], 0), ([100, 0, 50, 50], 1)]
    annotations: Rows = [
        {"id": n, "image_id": 4, "category_id": 2, "bbox": [v * scale for v in box], "area": 400.0, "iscrowd": crowd}
        for n, (box, crowd) in enumerate(boxes, start=1)
    ]
    found = [[10, 10, 20, 20], [200, 200, 5, 5], [110, 10, 20, 20]]
    results: Rows = [
        {"image_id": 4, "category_id": 2, "bbox": [v * scale for v in box], "score": score}
        for box, score in zip(found, scores, strict=True)
    ]
    truth = {"images": [{"id": 4}], "categories": [{"id": 2, "name": "a"}], "annotations": annotations}
    return {**truth, "info": {}, "licenses": []}, results


@pytest.mark.parametrize("scale", [1.0, 1e20, 1e150, 1e-80, 1e-150])
def test_boxes_of_any_size_score_the_same(scale: float) -> None:
    fast_equals_reference(*small_set(scale))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("scale", [1e160, 1e-170, 5e-324])
def test_what_hotcoco_would_score_differently_goes_to_pycocotools(scale: float) -> None:
    """0 / 0, or infinity / infinity: hotcoco's numbers do differ, so the exception is needed."""
    truth, results = small_set(scale)
    given = coco_evaluation(truth, results, "fast")
    assert given.engine.startswith("pycocotools ")
    expected = pycocotools_numbers(truth, results).twelve
    assert tuple(given.metrics.values()) == expected
    assert hotcoco_numbers(*columns_of(truth, results)).twelve != expected


def test_integer_scores_beyond_float64_keep_their_order() -> None:
    truth, results = small_set(scores=(2**53 + 1, 2**53, 0))
    results[0], results[1] = results[1], results[0]
    given = coco_evaluation(truth, results, "fast")
    assert given.engine.startswith("pycocotools ")
    assert given.metrics["AP"] > 0.4


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("objects", [True, False])
def test_nothing_to_score_or_to_find(engine: Engine, found: bool, objects: bool) -> None:
    truth, results = small_set()
    if not objects:
        truth["annotations"] = []
    given = coco_evaluation(truth, results if found else [], engine)
    assert given[:2] == coco_evaluation(truth, results if found else [], "pycocotools")[:2]
    assert given.metrics["AP"] == (-1.0 if not objects else 0.5049504950495048 if found else 0.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_stay_as_they_were_and_nothing_is_printed(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    truth, results = random_set(3)
    for row in truth["annotations"]:
        row["ignore"] = 1  # a key that COCOeval overwrites, so that it counts for nothing
    before = copy.deepcopy((truth, results))
    given = coco_evaluation(truth, results, engine)
    assert (truth, results) == before
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    for row in truth["annotations"]:
        del row["ignore"]
    assert given[:3] == coco_evaluation(truth, results, engine)[:3]


def test_the_engine_is_named_with_its_version() -> None:
    truth, results = small_set()
    named = [coco_evaluation(truth, results, engine).engine for engine in ENGINES]
    assert named[0].split()[0] == "pycocotools"
    assert named[1].split()[0] == named[2].split()[0] == "hotcoco"
    assert all(name.split()[1][0].isdigit() for name in named)


WITHOUT_HOTCOCO = """
import sys
sys.modules["hotcoco"] = None  # importing it now raises ImportError
from retinanet.errors import ConfigError
from retinanet.scoring.evaluation import check_engine, coco_evaluation
truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
names = {coco_evaluation(truth, [], "auto").engine.split()[0] for _ in range(3)}
assert names == {"pycocotools"}, names
try:
    check_engine("fast")
except ConfigError as error:
    print(error)
"""


def test_without_hotcoco_auto_warns_once_and_fast_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOTCOCO], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    assert done.stderr.count("is not installed: pycocotools computes") == 1
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'hotcoco>=1.3'" in done.stdout
    assert "eval.engine=pycocotools" in done.stdout


def test_installed_engines_are_no_error() -> None:
    for engine in ENGINES:
        check_engine(engine)
    assert issubclass(ConfigError, ValueError)
