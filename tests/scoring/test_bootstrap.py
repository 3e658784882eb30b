"""The bootstrap equals pycocotools on data sets that are actually resampled, to 1e-9, ties included."""

import time
from typing import Any

import numpy as np
import pytest
from real_pairs import needs_pairs, read_pair
from resampled_by_hand import metrics_by_hand

from retinanet.errors import ConfigError, DataError
from retinanet.scoring.bootstrap import draw_multiplicities, resample, weighted_metrics
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.scoring.matches import (
    AP_NAMES,
    AREAS,
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    ClassMatches,
    Matches,
    match_detections,
)

Truth = dict[str, Any]
Results = list[dict[str, Any]]


def synthetic_pair(seed: int, images: int = 9, decimals: int = 1) -> tuple[Truth, Results]:
    """Gapped ids in mixed order, crowds, all sizes, areas unlike the boxes', loose and double detections, and scores
    of so few decimals that most are tied. Class 20 has crowds only, class 31 detections only, class 44 nothing; the
    last image has neither objects nor detections."""
    rng = np.random.default_rng(seed)
    ids = (rng.permutation(images) * 7 + 3).tolist()
    annotations: Results = []
    results: Results = []

    def detect(image: int, category: int, box: np.ndarray) -> None:
        score = round(float(rng.beta(2, 2)), decimals)
        results.append({"image_id": image, "category_id": category, "bbox": box.tolist(), "score": score})

    def some_box() -> np.ndarray:
        return np.r_[rng.uniform(0, 200, 2), rng.choice([16, 34, 60, 98, 150]) * rng.uniform(0.8, 1.25, 2)]

    for image in ids[:-1]:
        for _ in range(rng.integers(0, 7)):
            category, box = int(rng.choice([5, 5, 8, 20])), some_box()
            crowd = int(category == 20 or rng.random() < 0.15)
            area = float(box[2] * box[3] * rng.uniform(0.5, 1))
            row = {"image_id": image, "category_id": category, "bbox": box.tolist(), "area": area, "iscrowd": crowd}
            annotations.append({"id": 4 * len(annotations) + 6, **row})
            for _ in range(rng.integers(0, 4)):
                detect(image, category, box * rng.uniform(0.94, 1.06, 4) + rng.uniform(-4, 4) * np.r_[1, 1, 0, 0])
        for _ in range(rng.integers(0, 5)):
            detect(image, int(rng.choice([5, 8, 31])), some_box())
    categories = [{"id": c, "name": str(c)} for c in (44, 5, 31, 8, 20)]
    order = rng.permutation(len(results))
    truth = {"images": [{"id": i, "width": 400, "height": 400} for i in ids], "categories": categories}
    return {**truth, "annotations": annotations}, [results[n] for n in order]


def assert_equals_brute_force(truth: Truth, results: Results, resamples: int, seed: int) -> np.ndarray:
    """Returns the numbers, (resamples, M)."""
    multiplicity_RI = draw_multiplicities(len(truth["images"]), resamples, seed)
    given_RM = weighted_metrics(match_detections(truth, results), multiplicity_RI)
    expected_RM = metrics_by_hand(truth, results, multiplicity_RI)[:, : len(AP_NAMES)]
    np.testing.assert_allclose(np.where(given_RM < 0, np.nan, given_RM), expected_RM, rtol=0, atol=1e-9)
    return given_RM


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(6))
def test_synthetic_sets_equal_brute_force(seed: int, decimals: int) -> None:
    truth, results = synthetic_pair(seed, decimals=decimals)
    values_RM = assert_equals_brute_force(truth, results, resamples=8, seed=seed)
    assert 0 < values_RM[:, 0].mean() < 1, "the set must have something to measure"


@pytest.mark.slow
def test_small_sets_lose_classes_and_sizes_in_a_resample() -> None:
    values_RM = np.concatenate(
        [assert_equals_brute_force(*synthetic_pair(seed, images=3), resamples=12, seed=seed) for seed in range(8)]
    )
    assert (values_RM == -1).any(axis=0).all(), "every metric is absent from some resample"
    assert (values_RM > 0).any(axis=0).all()


def test_a_tie_of_hit_and_miss_in_one_image_alternates_over_its_copies() -> None:
    """Three copies with one score: hit, miss, hit, miss, ... gives precision 1, 2/3, 3/5 and not 1 throughout."""
    box, far = [0, 0, 50, 50], [100, 100, 50, 50]
    truth = {
        "images": [{"id": 4, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "bbox": box, "area": 2500, "iscrowd": 0}],
    }
    results = [{"image_id": 4, "category_id": 1, "bbox": where, "score": 0.5} for where in (box, far)]
    thrice = np.array([[3]], dtype=np.int32)
    (given,) = weighted_metrics(match_detections(truth, results), thrice)
    (expected,) = metrics_by_hand(truth, results, thrice)
    assert given == pytest.approx(np.nan_to_num(expected[: len(AP_NAMES)], nan=-1), abs=1e-9)
    assert given[0] == pytest.approx((34 * 1 + 33 * 2 / 3 + 34 * 3 / 5) / 101, abs=1e-9)


@pytest.mark.slow
@needs_pairs
@pytest.mark.parametrize(
    ("name", "images", "resamples"),
    [
        ("cocoapi_val2014_100_fake", 100, 3),
        pytest.param("coco_val_subset_fastestdet", 40, 2, marks=pytest.mark.slow),
        pytest.param("voc2007_yolov2", 150, 2, marks=pytest.mark.slow),
    ],
)
def test_real_pairs_equal_brute_force(name: str, images: int, resamples: int) -> None:
    truth, results, _ = read_pair(name)
    keep = {row["id"] for row in truth["images"][:images]}
    truth = {**truth, "images": truth["images"][:images]}
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] in keep]
    assert_equals_brute_force(truth, [row for row in results if row["image_id"] in keep], resamples, seed=1)


def test_each_image_once_is_the_data_set_itself() -> None:
    truth, results = synthetic_pair(3, images=30)
    once = np.ones((1, 30), dtype=np.int32)
    expected = coco_evaluation(truth, results).metrics
    assert weighted_metrics(match_detections(truth, results), once)[0] == pytest.approx(
        [expected[name] for name in AP_NAMES], abs=1e-12
    )


def test_no_detections_score_zero_and_no_objects_nothing() -> None:
    truth, results = synthetic_pair(1)
    assert_equals_brute_force(truth, [], resamples=2, seed=0)
    assert (resample([match_detections({**truth, "annotations": []}, results)], resamples=3) == -1).all()


def test_resamples_are_the_same_for_all_sets_seeded_and_whole() -> None:
    truth, results = synthetic_pair(2)
    matches = match_detections(truth, results)
    values = resample([matches, match_detections(truth, None), matches], resamples=50, seed=9)
    assert values.shape == (3, 50, len(AP_NAMES))
    assert np.array_equal(values[0], values[2])
    assert np.array_equal(values[0] == -1, values[1] == -1)
    assert set(np.unique(values[1])) <= {-1.0, 0.0}
    assert np.array_equal(values, resample([matches, match_detections(truth, None), matches], 50, seed=9))
    assert not np.array_equal(values[:1], resample([matches], 50, seed=10))
    draws = draw_multiplicities(40, 200, seed=0)
    assert (draws.sum(axis=1) == 40).all()
    # Of n draws from n images, (1 - 1/n) ** n = 0.363 of them are never taken.
    assert (draws == 0).mean() == pytest.approx(0.363, abs=0.01)


def test_errors_name_the_sets() -> None:
    truth, results = synthetic_pair(2)
    fewer = {**truth, "images": truth["images"][:-1]}
    matches = match_detections(truth, results)
    with pytest.raises(DataError, match="detections 0 and 1 were matched against different images"):
        resample([matches, match_detections(fewer, results)], 2)
    without = {**truth, "categories": truth["categories"][1:]}
    with pytest.raises(DataError, match="different classes"):
        resample([matches, match_detections(without, results)], 2)
    with pytest.raises(ConfigError, match="not 9 and 0"):
        resample([matches], 0)
    assert resample([], 7).shape == (0, 7, len(AP_NAMES))


def coco_like_matches(seed: int, images: int = 5000, classes: int = 80, detections: int = 80) -> Matches:
    """As many matches as a detector gives on COCO val (36,000 objects); a third of all are of the first class."""
    rng = np.random.default_rng(seed)
    share = np.r_[0.3, np.full(classes - 1, 0.7 / (classes - 1))]
    found = []
    for k in range(classes):
        objects = rng.multinomial(int(36_000 * share[k]), np.full(images, 1 / images))
        rows = int(images * detections * share[k])
        score_D = np.sort(rng.random(rows))[::-1].round(6)
        hits = rng.choice(rows, size=int(0.75 * objects.sum()), replace=False, p=score_D / score_D.sum())
        last_T = np.sort(rng.integers(0, 11, len(hits)))
        outcome_ATD = np.zeros((len(AREAS), 10, rows), dtype=np.uint8)
        for t in range(10):
            outcome_ATD[0, t, hits[last_T > t]] = TRUE_POSITIVE
        size_D = rng.integers(1, 4, rows)
        for a in (1, 2, 3):
            outcome_ATD[a] = np.where(size_D == a, outcome_ATD[0], IGNORED)
            # Some detections are larger or smaller than the object that they match loosely.
            outcome_ATD[a][:3, (size_D != a) & (rng.random(rows) < 0.01)] = FALSE_POSITIVE
        with_objects = np.flatnonzero(objects)
        # As many objects at each size as in all: more than there can be, so that the hits never outnumber them.
        objects_AN = np.tile(objects[with_objects], (len(AREAS), 1))
        image_D = rng.integers(0, images, rows).astype(np.int32)
        found.append(
            ClassMatches(
                category_id=k + 1,
                image_D=image_D,
                score_D=score_D,
                outcome_ATD=outcome_ATD,
                object_image_N=with_objects.astype(np.int32),
                objects_AN=objects_AN.astype(np.int32),
                detection_D=np.arange(rows, dtype=np.int32),  # not read, as is matched_TD
                matched_TD=np.full((10, rows), -1, dtype=np.int32),
            )
        )
    return Matches(np.arange(1, images + 1), tuple(found))


@pytest.mark.slow
def test_a_thousand_resamples_of_coco_val_s_size_take_well_under_two_minutes() -> None:
    """A tenth of them for one set of 400,000 detections: a pair takes twenty times as long. Time of this process."""
    matches = coco_like_matches(seed=0)
    start = time.process_time()
    values = resample([matches], resamples=100)
    assert 20 * (time.process_time() - start) < 100
    assert (values > 0).all()
