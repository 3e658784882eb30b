"""Causes that the data and the detector prove: each in spoiled evidence, none in healthy evidence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from doctor_facts import CATEGORIES, SAMPLE, healthy_evidence

from retinanet.config.schema import Config
from retinanet.diagnostics.doctor.data_causes import CORNERS, FRACTIONS, read_as
from retinanet.diagnostics.doctor.diagnose import CAUSES, diagnose
from retinanet.diagnostics.doctor.facts import Evidence, FoundFacts, box_format, found_facts, unreadable_detections
from retinanet.training.causes import Finding

Tiny = Callable[..., Config]
LONG = ("schedule.iterations=2500", "model.backbone.weights=imagenet")


@pytest.fixture
def healthy(tiny: Tiny) -> Evidence:
    return healthy_evidence(tiny(*LONG))


def only(evidence: Evidence) -> Finding:
    """The one finding of a run with low AP; its remedies and texts must be complete."""
    low = evidence._replace(run=evidence.run._replace(best_ap=0.0))
    (finding,) = diagnose(low).findings
    assert finding.proof.endswith((".", "]"))
    return finding


@pytest.mark.parametrize("ap", [0.5, 0.0])
def test_nothing_is_blamed_on_a_healthy_run(healthy: Evidence, ap: float) -> None:
    found = diagnose(healthy._replace(run=healthy.run._replace(best_ap=ap)))
    assert found.findings == ()
    assert found.cleared == tuple(cause.name for cause in CAUSES)


def test_what_is_not_known_is_not_checked(healthy: Evidence) -> None:
    blind = healthy._replace(known=None, train=None, val=None, anchors=None, found=None, trial=None)
    found = diagnose(blind._replace(run=healthy.run._replace(train_rows=())))
    assert (found.findings, found.cleared) == ((), ("frozen parts", "normalisation"))
    assert len(found.unchecked) == len(CAUSES) - 2


def test_val_without_objects(healthy: Evidence) -> None:
    assert healthy.val is not None
    empty = healthy.val._replace(objects_I=np.zeros(20, dtype=np.int64), objects_by_class={}, object_share=float("nan"))
    assert only(healthy._replace(val=empty)).title == "val has no object"


def rows_of_boxes(boxes: list[list[float]]) -> list[dict[str, Any]]:
    return [{"image_id": 7, "bbox": box} for box in boxes]


CORNERS_OF_SIX = [
    [10, 10, 60, 50],
    [60, 5, 99, 40],
    [20, 60, 80, 99],
    [1, 2, 30, 40],
    [50, 50, 90, 95],
    [5, 60, 40, 90],
]
SIZES_OF_SIX = [[x, y, right - x, low - y] for x, y, right, low in CORNERS_OF_SIX]
FRACTIONS_OF_SIX = [[value / 100 for value in box] for box in SIZES_OF_SIX]


@pytest.mark.parametrize(
    ("boxes", "kind"),
    [(CORNERS_OF_SIX, CORNERS), (SIZES_OF_SIX, ""), (FRACTIONS_OF_SIX, FRACTIONS), (CORNERS_OF_SIX[:4], "")],
)
def test_formats_of_boxes(healthy: Evidence, boxes: list[list[float]], kind: str) -> None:
    found = box_format(rows_of_boxes(boxes), [{"id": 7, "width": 100, "height": 100}])
    assert read_as(found) == kind
    if kind:
        assert healthy.val is not None
        finding = only(healthy._replace(val=healthy.val._replace(boxes=found)))
        assert finding.title == f"boxes of val are {kind}, not [x, y, width, height]"


def test_large_boxes_in_the_corner_are_no_corners() -> None:
    """As sizes they fit, so they are sizes, although they would be corners too."""
    found = box_format(rows_of_boxes([[0, 0, 100, 100]] * 9), [{"id": 7, "width": 100, "height": 100}])
    assert (found.as_corners, read_as(found)) == (9, "")


def test_classes_that_the_detector_does_not_have(healthy: Evidence) -> None:
    assert healthy.val is not None
    other = healthy.val._replace(categories=(CATEGORIES[0]._replace(name="cow"), *CATEGORIES[1:]))
    finding = only(healthy._replace(val=other))
    assert finding.title == "the classes of val are not those of the detector"
    assert "1 cow." in finding.proof


def test_classes_without_a_training_object(healthy: Evidence) -> None:
    assert healthy.train is not None
    one = healthy.train._replace(objects_by_class={"cat": 60, "dog": 0, "hen": 0})
    assert "40 of 60 objects in val, none in train: dog 30, hen 10." in only(healthy._replace(train=one)).proof
    two = healthy.train._replace(objects_by_class={"cat": 30, "dog": 30, "hen": 0})
    assert diagnose(healthy._replace(train=two)).findings == ()


@pytest.mark.parametrize(
    ("low_quality", "reached", "iou", "blamed"),
    [(False, 29, 0.45, True), (False, 31, 0.45, False), (True, 0, 0.2, True), (True, 0, 0.4, False)],
)
def test_anchors_that_reach_few_objects(tiny: Tiny, low_quality: bool, reached: int, iou: float, blamed: bool) -> None:
    healthy = healthy_evidence(tiny(*LONG, f"assign.low_quality={str(low_quality).lower()}"))
    assert healthy.anchors is not None
    facts = healthy.anchors._replace(reached=reached, mean_iou=iou, suggestion="model.anchors.sizes=[1, 2, 3, 4, 5]")
    evidence = healthy._replace(anchors=facts)
    titles = [finding.title for finding in diagnose(evidence).findings]
    assert titles == (["the anchors do not reach the objects"] if blamed else [])
    if blamed:
        assert only(evidence).remedy == facts.suggestion


def test_more_objects_than_detections(tiny: Tiny) -> None:
    healthy = healthy_evidence(tiny(*LONG, "eval.detections=2"))
    finding = only(healthy)
    assert "20 of 20 val images have more than 2 objects, up to 3: at least 20 of 60 objects" in finding.proof
    assert finding.remedy == "eval.detections=3"


def with_found(healthy: Evidence, found_KK: list[list[int]]) -> Evidence:
    assert isinstance(healthy.found, FoundFacts)
    return healthy._replace(found=healthy.found._replace(found_KK=np.array(found_KK)))


def test_classes_under_each_others_ids(healthy: Evidence) -> None:
    finding = only(with_found(healthy, [[0, 18, 1], [1, 0, 27], [9, 0, 0]]))
    assert finding.title == "the class ids of val are not those of train"
    assert "cat as dog (18 of 19), dog as hen (27 of 28), hen as cat (9 of 9)." in finding.proof
    assert only(with_found(healthy, [[0, 18, 1], [26, 1, 0], [0, 0, 9]])).title == finding.title


@pytest.mark.parametrize(
    "found_KK",
    [
        [[0, 19, 0], [0, 28, 0], [0, 9, 0]],
        [[0, 19, 0], [0, 28, 0], [0, 0, 9]],
        [[3, 16, 0], [15, 4, 9], [0, 0, 9]],
        [[0, 2, 0], [2, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
    ],
    ids=["one class for all", "one confused", "confused often", "too few", "nothing found"],
)
def test_confusion_is_no_exchange_of_ids(healthy: Evidence, found_KK: list[list[int]]) -> None:
    assert diagnose(with_found(healthy, found_KK)).findings == ()


def test_the_class_of_the_best_scored_detection_counts() -> None:
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 4, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
            {"image_id": 1, "category_id": 9, "bbox": [50, 50, 10, 10], "area": 100, "iscrowd": 0},
        ],
    }
    results = [
        {"image_id": 1, "category_id": 4, "bbox": [0, 0, 10, 10], "score": 0.3},
        {"image_id": 1, "category_id": 9, "bbox": [1, 0, 10, 10], "score": 0.6},
        {"image_id": 1, "category_id": 4, "bbox": [6, 0, 10, 10], "score": 0.9},
    ]
    facts = found_facts(results, truth)
    assert facts.found_KK.tolist() == [[0, 1], [0, 0]]
    assert (facts.detections, facts.images_without, facts.best_score) == (3, 0, 0.9)


def test_detections_of_another_ground_truth(healthy: Evidence) -> None:
    assert only(healthy._replace(found=unreadable_detections("id 9 is unknown."))).proof == "id 9 is unknown."


def with_trial(healthy: Evidence, **changes: Any) -> Evidence:
    assert healthy.trial is not None
    return healthy._replace(trial=healthy.trial._replace(**changes))


@pytest.mark.parametrize(("best", "remedy"), [(0.02, 0.001), (0.4, 0.05)])
def test_a_threshold_above_every_score(tiny: Tiny, best: float, remedy: float) -> None:
    healthy = healthy_evidence(tiny(*LONG, "eval.score_threshold=0.5"))
    finding = only(with_trial(healthy, val=SAMPLE._replace(ap50=0.4, ap50_kept=0.0, best_score=best)))
    assert (finding.title, finding.remedy) == (
        "eval.score_threshold is above every score",
        f"eval.score_threshold={remedy:g}",
    )


@pytest.mark.parametrize(
    ("weights", "overrides", "deviation", "blamed"),
    [
        ("imagenet", ("model.pixels.order=bgr",), 1.0, True),
        ("imagenet", ("model.pixels.mean=[0, 0, 0]",), 1.0, True),
        ("imagenet", ("model.pixels.std=[1, 1, 1]",), 58.0, True),
        ("imagenet", ("model.pixels.mean=[127.5, 127.5, 127.5]", "model.pixels.std=[50, 50, 50]"), 1.0, False),
        ("file.pth", ("model.pixels.std=[1, 1, 1]",), 58.0, True),
        ("file.pth", ("model.pixels.std=[1, 1, 1]", "model.pixels.order=bgr"), 58.0, False),
        ("none", ("model.pixels.std=[1, 1, 1]",), 58.0, False),
    ],
)
def test_pixels_that_the_weights_do_not_know(
    tiny: Tiny, weights: str, overrides: tuple[str, ...], deviation: float, blamed: bool
) -> None:
    config = tiny(LONG[0], f"model.backbone.weights={weights}", *overrides)
    evidence = with_trial(healthy_evidence(config), input_deviation=deviation)
    titles = [finding.title for finding in diagnose(evidence).findings]
    assert titles == (["pixels are not normalised as the backbone's weights need it"] if blamed else [])


def test_an_average_that_lags(healthy: Evidence) -> None:
    assert (
        only(with_trial(healthy, plain_ap50=0.6, average_ap50=0.1)).title
        == "the moving average lags behind the weights"
    )
    assert diagnose(with_trial(healthy, plain_ap50=0.6, average_ap50=0.5)).findings == ()


def test_train_is_found_and_val_is_not(healthy: Evidence) -> None:
    assert healthy.val is not None
    unlike = SAMPLE._replace(ap50=0.1, ap50_kept=0.1)
    overfitted = only(with_trial(healthy, val=unlike))
    assert overfitted.title == "the detector knows its training images and not val: it has overfitted"
    assert "Each of 20 training images was seen 500 times" in overfitted.proof
    title = "val images are of another kind than the training images"
    dark = only(with_trial(healthy, val=unlike._replace(brightness=40.0)))
    assert dark.title == title
    assert dark.proof.endswith("mean pixel 120 in train, 40 in val.")
    small = only(with_trial(healthy._replace(val=healthy.val._replace(object_share=0.05)), val=unlike))
    assert (small.title, "0.20 in train, 0.05 in val" in small.proof) == (title, True)
    assert diagnose(with_trial(healthy, val=SAMPLE._replace(ap50=0.5, ap50_kept=0.5, brightness=40.0))).findings == ()
