"""Analyses against brute force, hand-made cases and COCO's own evaluation of parts of the data."""

import contextlib
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from scenes_to_score import (
    BOX,
    FAR,
    NEAR,
    ODD,
    analysis_of,
    overlap,
    random_scene,
    results_of,
    scored_of,
    truth_of,
)

from retinanet.errors import DataError
from retinanet.scoring.analysis.calibration import measure_calibration, reliability
from retinanet.scoring.analysis.confusion import Confusion, confused_classes, confusion_matrix, most_confused
from retinanet.scoring.analysis.crowding import by_crowding, by_overlap
from retinanet.scoring.analysis.curves import precision_curves
from retinanet.scoring.analysis.overlaps import best_overlaps, pairs_within_images
from retinanet.scoring.analysis.sizes import SIDES, by_size
from retinanet.scoring.analysis.worst_images import (
    best_images,
    measure_images,
    worst_images,
    worst_images_of_classes,
)
from retinanet.scoring.eval_file import eval_content, read_eval_file, write_eval_file
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.scoring.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE
from retinanet.scoring.reference import index_coco


def test_pairs_and_best_overlaps_against_every_pair() -> None:
    truth, results = random_scene(1)
    scored = scored_of(truth, results)
    objects, found = scored.objects, scored.found
    pairs = pairs_within_images(found.image_D, found.boxes_D4, objects.image_N, objects.boxes_N4)
    expected = {
        (d, n): value
        for d in range(len(found.image_D))
        for n in range(len(objects.image_N))
        if found.image_D[d] == objects.image_N[n]
        and (value := overlap(found.boxes_D4[d].tolist(), objects.boxes_N4[n].tolist())) > 0
    }
    given = dict(zip(zip(pairs.first_P.tolist(), pairs.second_P.tolist()), pairs.iou_P.tolist()))
    assert given == pytest.approx(expected, rel=1e-12)
    allowed = np.arange(len(pairs.iou_P)) % 3 > 0
    close = best_overlaps(pairs, allowed, len(found.image_D))
    kept = [(a, b, iou) for a, b, iou, use in zip(pairs.first_P, pairs.second_P, pairs.iou_P, allowed) if use]
    for d in range(len(found.image_D)):
        mine = [(iou, -b) for a, b, iou in kept if a == d]
        assert (close.iou_M[d], close.second_M[d]) == ((max(mine)[0], -max(mine)[1]) if mine else (0.0, -1))


def test_precision_curves_have_the_ap_of_their_threshold_as_mean() -> None:
    truth, results = random_scene(3)
    metrics = coco_evaluation(truth, results).metrics
    loose, strict = precision_curves(scored_of(truth, results).matches)
    assert (loose.iou, strict.iou) == (0.5, 0.75)
    assert loose.mean_Q.mean() == pytest.approx(metrics["AP50"])
    assert strict.mean_Q.mean() == pytest.approx(metrics["AP75"])


@pytest.mark.parametrize("seed", [4, 5])
def test_finer_sizes_are_pycocotools_with_such_area_ranges(seed: int) -> None:
    truth, results = random_scene(seed)
    edges = [min(side, 1e5) for side in SIDES]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = index_coco({**truth, "annotations": [dict(row) for row in truth["annotations"]]})
        evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in results]), "bbox")
        evaluation.params.areaRng = [[a * a, b * b] for a, b in itertools.pairwise(edges)]
        evaluation.params.areaRngLbl = list("abcdefg")
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    for s, group in enumerate(by_size(scored_of(truth, results))):
        precision = evaluation.eval["precision"][:, :, :, s, 0]
        known = precision[precision > -1]
        assert group.ap == (pytest.approx(known.mean()) if known.size else -1)
        areas = [row["area"] for row in truth["annotations"] if not row["iscrowd"]]
        assert group.objects == sum(edges[s] ** 2 <= area <= edges[s + 1] ** 2 for area in areas)


def test_sizes_without_detections_or_objects() -> None:
    found_nothing = by_size(scored_of(truth_of([(1, 1, BOX)]), []))
    assert [group.ap for group in found_nothing] == [-1, -1, -1, -1, 0, -1, -1]  # side 100
    assert {group.ap for group in by_size(scored_of(truth_of([]), results_of([(1, 1, BOX, 0.5)])))} == {-1}


def test_crowding_is_coco_s_ap_of_the_images_alone() -> None:
    truth, results = random_scene(6)
    plain = [row["image_id"] for row in truth["annotations"] if not row["iscrowd"]]
    seen = 0
    for group, (least, most) in zip(by_crowding(scored_of(truth, results)), ((1, 1), (2, 4), (5, 9), (10, 999))):
        chosen = {i for i in plain if least <= plain.count(i) <= most}
        part = {
            **truth,
            "images": [row for row in truth["images"] if row["id"] in chosen],
            "annotations": [row for row in truth["annotations"] if row["image_id"] in chosen],
        }
        metrics = coco_evaluation(part, [row for row in results if row["image_id"] in chosen]).metrics
        assert (group.ap, group.ap50) == (pytest.approx(metrics["AP"]), pytest.approx(metrics["AP50"]))
        assert (group.images, group.objects) == (len(chosen), sum(i in chosen for i in plain))
        seen += bool(chosen)
    assert seen >= 2


def test_recall_by_overlap_with_a_neighbour() -> None:
    objects = [(1, 1, BOX), (1, 2, NEAR), (1, 1, FAR), (2, 1, BOX)]
    groups = by_overlap(scored_of(truth_of(objects), results_of([(1, 1, BOX, 0.9), (2, 1, BOX, 0.3)])), 0.5)
    counts = {group.name: (group.objects, group.found, group.found_from) for group in groups}
    assert counts["none"] == (2, 1, 0)
    assert counts["0.5 to 1"] == (2, 1, 1)
    assert sum(objects for objects, _, _ in counts.values()) == 4


def test_confusion_of_a_hand_made_case() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX), (2, 2, FAR), (3, 2, BOX)]
    detections = [
        (1, 1, NEAR, 0.6),  # right, although the detection of class 2 scores more and overlaps more
        (1, 2, BOX, 0.9),  # so this has no free object
        (2, 2, BOX, 0.8),  # class 1 detected as class 2
        (3, 2, BOX, 0.2),  # below the threshold
    ]
    confusion = confusion_matrix(scored_of(truth_of(objects), results_of(detections)), 0.5)
    expected = [[1, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert confusion.counts.tolist() == expected
    (pair,) = most_confused(confusion, 9)
    assert pair == (0, 1, 1, 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_confusion_keeps_count(seed: int) -> None:
    """Rows add up to the objects, columns to the detections outside crowds, the diagonal to the hits."""
    scored = scored_of(*random_scene(seed))
    counts = confusion_matrix(scored, 0.4).counts
    shown = (scored.found.score_D >= 0.4) & (scored.found.outcome_D != IGNORED)
    hits = shown & (scored.found.outcome_D == TRUE_POSITIVE)
    assert counts[:-1].sum(axis=1).tolist() == scored.objects.objects_K().tolist()
    assert counts[:, :-1].sum(axis=0).tolist() == np.bincount(scored.found.class_D[shown], minlength=4).tolist()
    assert np.diag(counts)[:-1].tolist() == np.bincount(scored.found.class_D[hits], minlength=4).tolist()
    assert counts[-1, -1] == 0


def test_the_most_confused_classes_keep_every_count() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (8, 8))
    counts[1, 5], counts[5, 1], counts[2, 6] = 40, 30, 20
    part = confused_classes(Confusion(0.5, counts), 4)
    assert part.classes == (1, 2, 5, 6)
    groups = [[1], [2], [5], [6], [0, 3, 4], [7]]
    assert part.counts.tolist() == [[sum(counts[a, b] for a in r for b in c) for c in groups] for r in groups]
    # The pair (2, 6) does not fit three classes, and a later one may.
    assert set(confused_classes(Confusion(0.5, counts), 3).classes) > {1, 5}
    nothing = confused_classes(Confusion(0.5, np.diag(np.arange(8))), 4)
    assert (nothing.classes, nothing.counts.tolist()) == ((), [[21, 0], [0, 7]])


def test_calibration_of_a_hand_made_case() -> None:
    found = reliability(np.array([1.0, 0.95, 0.55, 0.5]), np.array([True, False, True, False]), bins=10)
    assert found.count_B.tolist() == [0] * 5 + [2, 0, 0, 0, 2]
    assert found.score_B[[5, 9]].tolist() == [0.525, 0.975]
    assert found.right_B[[5, 9]].tolist() == [0.5, 0.5]
    assert found.ece == pytest.approx((0.025 * 2 + 0.475 * 2) / 4)
    assert math.isnan(reliability(np.zeros(0), np.zeros(0, dtype=bool)).ece)


def test_calibration_against_loops_and_none_of_scores_that_are_not_probabilities() -> None:
    truth, results = random_scene(8)
    scored = scored_of(truth, results)
    found = measure_calibration(scored, 0.4)
    bins: dict[int, list] = {}
    for score, outcome in zip(scored.found.score_D, scored.found.outcome_D):
        if outcome != IGNORED:
            bins.setdefault(min(int(score * 20), 19), []).append((score, outcome == TRUE_POSITIVE))
    count = sum(map(len, bins.values()))
    gaps = [
        len(part) / count * abs(np.mean([s for s, _ in part]) - np.mean([r for _, r in part])) for part in bins.values()
    ]
    assert found.overall.ece == pytest.approx(sum(gaps))
    assert sum(part.count_B.sum() for part in found.by_class) == found.overall.count_B.sum() == count
    shown = [(s, r) for part in bins.values() for s, r in part if s >= 0.4]
    assert found.shown == (0.4, len(shown), *(pytest.approx(mean) for mean in np.mean(shown, axis=0)))
    assert 0 < len(shown) < count
    assert measure_calibration(scored, 2.0).shown is None
    logits = [{**row, "score": 10 * row["score"] - 3} for row in results]
    assert measure_calibration(scored_of(truth, logits), 0.4) is None


def test_images_from_worst_to_best() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX), (2, 1, FAR), (3, 1, BOX), (3, 1, FAR), (5, 1, BOX)]
    detections = [(1, 1, BOX, 0.9), (3, 1, NEAR, 0.9), (3, 1, FAR, 0.9), (3, 2, FAR, 0.8), (5, 1, BOX, 0.1)]
    images = measure_images(scored_of(truth_of(objects, images=5), results_of(detections)), 0.5)
    assert images.hits_I.tolist() == [1, 0, 2, 0, 0]
    assert images.false_I.tolist() == [0, 0, 1, 0, 0]
    assert images.unfound_I.tolist() == [0, 2, 0, 0, 1]
    assert images.f1_I[:3].tolist() == [1, 0, 0.8]
    assert images.lrp_I[2] == pytest.approx(((1 - 9 / 11) / 0.5 + 1) / 3)
    assert math.isnan(images.f1_I[3])
    assert worst_images(images, 9) == [1, 4, 2]  # two misses before one
    assert best_images(images, 9) == [0, 2]


def test_worst_images_of_each_class_against_loops() -> None:
    truth, results = random_scene(8)
    scored, score = scored_of(truth, results), 0.4
    objects, found = scored.objects, scored.found
    hit_rows = {
        int(o) for o, s, v in zip(found.object_D, found.score_D, found.outcome_D) if s >= score and v == TRUE_POSITIVE
    }
    expected = []
    for k in range(4):
        rows = []
        for i in range(12):
            false = sum(
                (found.class_D[d], found.image_D[d], found.outcome_D[d]) == (k, i, FALSE_POSITIVE)
                and found.score_D[d] >= score
                for d in range(len(found.score_D))
            )
            free = sum(
                (objects.class_N[n], objects.image_N[n]) == (k, i) and not objects.crowd_N[n] and n not in hit_rows
                for n in range(len(objects.image_N))
            )
            rows += [(i, false, free)] if false + free else []
        expected.append(sorted(rows, key=lambda row: (-row[1] - row[2], row[0]))[:3])
    assert worst_images_of_classes(scored, score, 3) == expected
    assert [len(rows) > 0 for rows in expected] == [True] * 4
    assert (
        worst_images_of_classes(scored_of(truth_of([(1, 1, BOX)]), results_of([(1, 1, BOX, 0.9)])), 0.5, 3) == [[]] * 3
    )


@pytest.mark.parametrize("name", ODD)
def test_odd_inputs_are_analysed_and_are_plain_data(name: str) -> None:
    truth, results = ODD[name]
    found = eval_content(analysis_of(truth, results), step=None, precision=None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["thresholds"]["by_class"]) == len(truth["categories"])


def test_eval_json_has_its_schema_first_and_is_read_back(tmp_path: Path) -> None:
    analysis, path = analysis_of(*random_scene(1)), tmp_path / "eval.json"
    content = write_eval_file(path, analysis, step=7, precision="bfloat16")
    assert read_eval_file(path) == content == eval_content(analysis, step=7, precision="bfloat16")
    assert path.read_text(encoding="utf-8").startswith('{\n "schema": 1,\n "step": 7,\n "precision": "bfloat16",\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "this is not an eval.json"),
        ('{"schema": 2, "metrics": {}}', "schema 2 of eval.json is unknown to this version, which reads 1"),
    ],
)
def test_other_files_and_newer_schemas_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "eval.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"eval\.json: {message}"):
        read_eval_file(tmp_path / "eval.json")


def test_files_from_before_there_were_schemas_are_read(tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text('{"step": 5, "metrics": {"AP": 0.25}}', encoding="utf-8")
    assert read_eval_file(tmp_path / "eval.json")["metrics"] == {"AP": 0.25}
