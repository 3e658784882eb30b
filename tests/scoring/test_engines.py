"""The fast engine equals pycocotools in every number, on real pairs and on sets made to tell them apart."""

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from places import PROJECT
from random_sets import random_set
from real_pairs import every_pair, needs_pairs, read_pair

from retinanet.errors import ConfigError
from retinanet.scoring import fast, reference
from retinanet.scoring.evaluation import Engine, check_engine, coco_evaluation
from retinanet.scoring.reference import CocoNumbers

ENGINES: tuple[Engine, ...] = ("pycocotools", "fast", "auto")

Rows = list[dict[str, Any]]


def assert_same(given: CocoNumbers, expected: CocoNumbers) -> None:
    assert given.twelve == expected.twelve
    assert np.array_equal(given.precision_TQKAM, expected.precision_TQKAM)
    assert np.array_equal(given.recall_TKAM, expected.recall_TKAM)


@pytest.mark.parametrize("hundred", range(8))
def test_random_sets_score_the_same_to_the_last_bit(hundred: int) -> None:
    measured = 0
    for seed in range(25 * hundred, 25 * (hundred + 1)):
        truth, results = random_set(seed)
        given, expected = fast.score(truth, results), reference.score(truth, results)
        assert given.engine.startswith("hotcoco ")
        assert_same(given, expected)
        fields = zip(coco_evaluation(truth, results, "fast"), coco_evaluation(truth, results, "pycocotools"))
        assert [a == b for a, b in fields] == [True, True, False], "metrics, per_class, engine"
        measured += 0 < expected.twelve[0] < 1
    assert measured > 12, "the sets must have something to measure"


@needs_pairs
@every_pair
def test_real_pairs_score_the_same_to_the_last_bit(name: str) -> None:
    truth, results, stats = read_pair(name)
    given = fast.score(truth, results)
    assert list(given.twelve) == stats
    assert_same(given, reference.score(truth, results))


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
    truth, results = small_set(scale)
    given = fast.score(truth, results)
    assert given.engine.startswith("hotcoco ")
    assert_same(given, reference.score(truth, results))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("scale", [1e160, 1e-170, 5e-324])
def test_what_hotcoco_would_score_otherwise_goes_to_pycocotools(scale: float) -> None:
    """0 / 0, or infinity / infinity: without the detour the numbers differ, so the detour is needed."""
    truth, results = small_set(scale)
    given = fast.score(truth, results)
    assert given.engine.startswith("pycocotools ")
    assert_same(given, reference.score(truth, results))
    columns = fast.truth_columns(truth)
    assert fast._score_columns(columns, fast.found_columns(columns, results)).twelve != given.twelve


def test_integer_scores_beyond_float64_keep_their_order() -> None:
    truth, results = small_set(scores=(2**53 + 1, 2**53, 0))
    results[0], results[1] = results[1], results[0]
    given = fast.score(truth, results)
    assert given.engine.startswith("pycocotools ")
    assert given.twelve[0] > 0.4


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
    assert given == coco_evaluation(truth, results, engine)


def test_the_engine_is_named_with_its_version() -> None:
    truth, results = small_set()
    named = [coco_evaluation(truth, results, engine).as_dict()["engine"] for engine in ENGINES]
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


def test_without_hotcoco_auto_says_so_once_and_fast_is_a_error() -> None:
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
