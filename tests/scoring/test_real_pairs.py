"""Real detectors' outputs: pycocotools runs once on each set, and everything of this project is compared with it."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from pycocotools_matches import assert_same_matches
from real_pairs import needs_pairs, read_pair

from retinanet.scoring import reference
from retinanet.scoring.columns import detection_columns, truth_columns
from retinanet.scoring.evaluation import METRIC_NAMES, Evaluation, coco_evaluation
from retinanet.scoring.fast import hotcoco_numbers, is_exact

pytestmark = needs_pairs


class Pair(NamedTuple):
    """A real pair, and what pycocotools makes of it."""

    truth: dict[str, Any]
    results: list[dict[str, Any]]
    stats: list[float]
    """The twelve metrics that were recorded with the pair."""
    by_pycocotools: Evaluation
    run: COCOeval
    """The run of pycocotools that gave `by_pycocotools`."""


@pytest.fixture(
    scope="module",
    params=[
        "cocoapi_val2014_100_fake",
        pytest.param("coco_val_subset_fastestdet", marks=pytest.mark.slow),
        pytest.param("voc2007_yolov2", marks=pytest.mark.slow),
    ],
)
def pair(request: pytest.FixtureRequest) -> Pair:
    truth, results, stats = read_pair(request.param)
    runs: list[COCOeval] = []

    class Kept(COCOeval):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            runs.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "COCOeval", Kept)
        evaluation = coco_evaluation(truth, results, "pycocotools")
    (run,) = runs
    return Pair(truth=truth, results=results, stats=stats, by_pycocotools=evaluation, run=run)


def test_the_fast_engine_scores_the_same_to_the_last_bit(pair: Pair) -> None:
    columns = truth_columns(pair.truth)
    found = detection_columns(columns, pair.results)
    assert is_exact(found)
    given = hotcoco_numbers(columns, found)
    assert given.engine.startswith("hotcoco ")
    assert given.twelve == tuple(pair.by_pycocotools.metrics.values())
    assert np.array_equal(given.precision_TQKAM, pair.run.eval["precision"])
    assert np.array_equal(given.recall_TKAM, pair.run.eval["recall"])
    assert list(given.twelve) == pair.stats


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
def test_evaluations_give_pycocotools_numbers_to_the_last_digit(pair: Pair, engine: str) -> None:
    evaluation = pair.by_pycocotools if engine == "pycocotools" else coco_evaluation(pair.truth, pair.results, "fast")
    assert list(evaluation.metrics) == list(METRIC_NAMES)
    assert list(evaluation.metrics.values()) == pair.stats
    for key in ("AP", "AP50", "AP75"):
        known = [row.as_dict()[key] for row in evaluation.per_class if row.as_dict()[key] >= 0]
        assert sum(known) / len(known) == pytest.approx(evaluation.metrics[key], rel=1e-9)
    objects = [a for a in pair.truth["annotations"] if not a["iscrowd"]]
    assert sum(row.objects for row in evaluation.per_class) == len(objects)


def test_the_matching_is_pycocotools_detection_by_detection(pair: Pair) -> None:
    assert assert_same_matches(pair.truth, pair.results, pair.run) > 0
