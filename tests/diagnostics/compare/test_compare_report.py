"""Verdicts, few images and few resamples, images that differ, and the files of a comparison."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes_to_score import scored_of

from retinanet.diagnostics.compare.differences import (
    DIFFERENT,
    NOT_MEASURED,
    SAME,
    TOO_FEW,
    DetectorComparison,
    MetricDifference,
    compare_detectors,
    difference_of,
    judged,
)
from retinanet.diagnostics.compare.images import at_best_threshold, image_differences, most_different
from retinanet.diagnostics.compare.inputs import Inputs, described, labels
from retinanet.diagnostics.compare.plots import largest_differences
from retinanet.diagnostics.compare.report import compare_files
from retinanet.diagnostics.compare.tables import class_findings, describe_scope, describe_verdict, why_undecided
from retinanet.errors import ConfigError, DataError
from retinanet.prepare.shapes import generate_shapes
from retinanet.scoring.intervals import FEWEST_IMAGES, holm
from retinanet.scoring.matches import match_detections
from retinanet.scoring.samples import rank_in_image

Rows = list[dict[str, Any]]


def truth_of(images: int, classes: int = 1, per_image: int = 2) -> dict[str, Any]:
    """Squares of 40 pixels side by side, every class in every image."""
    annotations: Rows = []
    for image in range(1, images + 1):
        for category in range(1, classes + 1):
            for place in range(per_image):
                box = [60.0 * place, 60.0 * category, 40.0, 40.0]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box}
                    | {"area": 1600.0, "iscrowd": 0}
                )
    return {
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in range(1, images + 1)],
        "categories": [{"id": category, "name": f"class {category}"} for category in range(1, classes + 1)],
        "annotations": annotations,
        "info": {},
        "licenses": [],
    }


def found_of(truth: dict[str, Any], share: float, seed: int) -> Rows:
    """Exact detections of a random share of the objects, and as many false ones on average as a third of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in truth["annotations"]:
        base = {"image_id": row["image_id"], "category_id": row["category_id"]}
        if rng.random() < share:
            rows.append({**base, "bbox": row["bbox"], "score": round(float(rng.uniform(0.3, 1)), 3)})
        if rng.random() < 0.3:
            rows.append({**base, "bbox": [300.0, 300.0, 30.0, 30.0], "score": round(float(rng.uniform(0, 0.7)), 3)})
    return rows


def compared(truth: dict[str, Any], first: Rows, second: Rows, resamples: int | None = 200) -> DetectorComparison:
    names = [row["name"] for row in truth["categories"]]
    return compare_detectors(match_detections(truth, first), match_detections(truth, second), names, resamples)


def test_a_better_a_worse_and_an_equal_detector() -> None:
    truth = truth_of(60)
    poor, good, alike = found_of(truth, 0.5, 1), found_of(truth, 0.9, 2), found_of(truth, 0.5, 3)
    better = compared(truth, poor, good)
    assert better.main.verdict == DIFFERENT
    assert better.main.difference > better.main.low > 0.2
    assert describe_verdict(better).startswith("Distinguishable: B is better than A in AP (B − A is +")
    worse = compared(truth, good, poor)
    assert worse.main.difference == pytest.approx(-better.main.difference)
    assert (worse.main.low, worse.main.high) == pytest.approx((-better.main.high, -better.main.low))
    assert "B is worse than A" in describe_verdict(worse)
    equal = compared(truth, poor, alike)
    assert equal.main.verdict == SAME
    assert equal.main.low < 0 < equal.main.high
    assert describe_verdict(equal).startswith("Not distinguishable in AP")
    assert "does not cover the variation between trainings" in describe_scope(equal)


def test_the_same_detections_are_not_distinguishable() -> None:
    truth = truth_of(20, classes=2)
    rows = found_of(truth, 0.6, 1)
    found = compared(truth, rows, list(rows))
    assert (found.main.difference, found.main.low, found.main.high, found.main.p) == (0, 0, 0, 1)
    assert {row.verdict for row in (found.main, *found.classes)} == {SAME}


def test_families_are_corrected_and_others_have_no_verdict() -> None:
    truth = truth_of(40, classes=3)
    found = compared(truth, found_of(truth, 0.5, 1), found_of(truth, 0.7, 2))
    assert [row.p_holm for row in found.classes] == pytest.approx(holm([row.p for row in found.classes]))
    assert [row.name for row in found.overall] == ["AP", "AP50", "AP75", "AR1", "AR10", "AR100"]
    assert [row.verdict for row in found.overall[1:]] == [""] * 5
    # All objects are of 40 x 40 pixels.
    assert [row.verdict for row in found.sizes] == [NOT_MEASURED, found.sizes[1].verdict, NOT_MEASURED, "", "", ""]
    assert found.sizes[1].p_holm == found.sizes[1].p
    assert math.isnan(found.main.p_holm)


def test_few_images_give_no_verdict_and_no_interval() -> None:
    truth = truth_of(40, classes=2)
    rare = [row for row in truth["annotations"] if row["category_id"] == 1 or row["image_id"] < FEWEST_IMAGES]
    truth = {**truth, "annotations": rare}
    nothing: Rows = []
    everything = [{**row, "score": 1.0} for row in rare]
    found = compared(truth, nothing, everything)
    common, unusual = found.classes
    assert (common.verdict, common.images) == (DIFFERENT, 40)
    assert (unusual.verdict, unusual.images, unusual.difference) == (TOO_FEW, FEWEST_IMAGES - 1, 1.0)
    assert math.isnan(unusual.low)
    assert math.isnan(unusual.p)
    assert common.p_holm == common.p  # The rare class is not in the family.
    assert any("1 of 2 classes have objects in fewer than 6 images" in text for text in class_findings(found))
    tiny = truth_of(3)
    few = compared(tiny, nothing, [{**row, "score": 1.0} for row in tiny["annotations"]])
    assert few.main.verdict == TOO_FEW
    assert describe_verdict(few).startswith("Too few images: only 3 have objects")


def test_p_is_not_smaller_than_an_exact_test_could_give() -> None:
    truth = truth_of(6)
    found = compared(truth, [], [{**row, "score": 1.0} for row in truth["annotations"]], resamples=5000)
    assert found.main.p == 2.0**-5
    assert found.main.verdict == DIFFERENT


def test_no_objects_is_not_measured() -> None:
    truth = {**truth_of(8), "annotations": []}
    found = compared(truth, [], [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}])
    assert found.main.verdict == NOT_MEASURED
    assert describe_verdict(found).startswith("Nothing can be measured")
    assert largest_differences(found.classes, 5) == []


@pytest.mark.slow
def test_resamples_grow_with_the_classes_and_too_few_are_reported() -> None:
    truth = truth_of(8, classes=30)
    rows = found_of(truth, 0.5, 1)
    assert compared(truth, rows, rows, None).resamples == 1200
    assert [text.split(":")[-1] for text in class_findings(compared(truth, rows, rows, 50))] == [
        " use --resamples 1200 or more."
    ]


def test_classes_that_could_not_be_distinguishable_are_reported() -> None:
    # 13 classes over 2^7 are above p 0.05, one over 2^7 is not.
    for classes, expected in ((13, "has objects in enough images"), (1, "No single class of 1 is distinguishable")):
        truth = truth_of(8, classes=classes)
        rows = found_of(truth, 0.5, 1)
        (sentence,) = class_findings(compared(truth, rows, list(rows), 600))
        assert expected in sentence


def sample(difference: float, resampled: list[float]) -> MetricDifference:
    """A difference over 50 images with these resamples, judged by its own p-value."""
    first_R = np.zeros(1 + len(resampled))
    found = difference_of("AP", 50, first_R, np.array([difference, *resampled]))
    return found._replace(verdict=judged(found, found.p))


@pytest.mark.parametrize(
    ("difference", "resampled", "text"),
    [
        (0.1, [0.1] * 40, "better"),
        (-0.1, [-0.1] * 40, "worse"),
        (0.1, [0.1] * 39, "borderline"),
        (0.1, [0.1] * 90 + [-0.1] * 10, "either could be better"),
        (0.1, [0.1] * 90 + [0.0] * 10, "could be equal"),
        (0.1, [-0.1] * 100, "disagree"),
        (0.0, [0.1] * 100, "disagree"),
        (0.0, [0.0] * 100, "almost all resamples"),
    ],
)
def test_the_sentence_agrees_with_interval_and_p(difference: float, resampled: list[float], text: str) -> None:
    found = sample(difference, resampled)
    comparison = DetectorComparison(
        images=50,
        resamples=len(resampled),
        overall=(found,),
        sizes=(),
        classes=(),
        objects_K=(),
        resampled_RM=np.zeros((1, 1)),
    )
    assert text in (describe_verdict(comparison) if found.verdict == DIFFERENT else why_undecided(found))


def test_random_verdicts_agree_with_their_intervals() -> None:
    rng = np.random.default_rng(5)
    for resamples in (40, 41, 79, 100, 1000):
        for shift in np.linspace(-3, 3, 41):
            found = sample(float(shift), list(shift + rng.normal(size=resamples)))
            if found.verdict == DIFFERENT:
                assert min(found.low * shift, found.high * shift) > 0
            else:
                assert found.p >= 0.05
                assert ("either" in why_undecided(found)) == (found.low < 0 < found.high)


def test_different_truths_are_refused() -> None:
    matches = [match_detections(truth_of(images, classes), []) for images, classes in ((3, 1), (4, 1), (3, 2))]
    with pytest.raises(DataError, match="different images"):
        compare_detectors(matches[0], matches[1], ["class 1"])
    with pytest.raises(DataError, match="different classes"):
        compare_detectors(matches[0], matches[2], ["class 1"])
    with pytest.raises(DataError, match="no images"):
        compared(truth_of(0), [], [])


def test_rank_in_image_counts_those_before() -> None:
    assert rank_in_image(np.array([4, 2, 4, 4, 2, 0], np.int32)).tolist() == [0, 0, 1, 2, 1, 0]


def test_images_by_errors_fewer() -> None:
    truth = truth_of(4)
    exact = [{**row, "score": 0.9} for row in truth["annotations"]]
    wrong = {"image_id": 4, "category_id": 1, "bbox": [400.0, 400.0, 9.0, 9.0], "score": 0.95}
    first = [row for row in exact if row["image_id"] != 1]
    second = [row for row in exact if (row["image_id"], row["bbox"][0]) != (2, 0.0)] + [wrong]
    rows = image_differences(*(at_best_threshold("A", scored_of(truth, found)) for found in (first, second)))
    assert [(row.image_id, row.first, row.second, row.gain) for row in rows] == [
        (1, (0, 0, 2), (2, 0, 0), 2),
        (3, (2, 0, 0), (2, 0, 0), 0),
        (2, (2, 0, 0), (1, 0, 1), -1),
        (4, (2, 0, 0), (2, 1, 0), -1),
    ]
    assert [row.image_id for row in most_different(rows, 1)] == [1, 4]
    assert [row.image_id for row in most_different(rows, 9)] == [1, 4, 2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve generated images and two detectors' results: a.json finds half of the objects, b.json most."""
    folder = tmp_path_factory.mktemp("compare")
    generate_shapes(folder / "data", train_images=1, val_images=12, size=(96, 128))
    truth = json.loads((folder / "data/annotations/val.json").read_text(encoding="utf-8"))
    for name, share in (("a", 0.5), ("b", 0.95)):
        (folder / f"{name}.json").write_text(json.dumps(found_of(truth, share, 1)), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_files_of_a_comparison(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = files / "data/annotations/val.json"
    inputs = Inputs(files / "a.json", files / "b.json", truth)
    compare_files(inputs, images=files / "data/val", output=tmp_path / "out", resamples=100)
    printed = capsys.readouterr().out
    assert "Distinguishable: B is better than A in AP" in printed
    assert printed.count("the other metrics are shown without a verdict") == 1
    content = json.loads((tmp_path / "out/compare.json").read_text(encoding="utf-8"))
    assert content["verdict"].startswith("Distinguishable")
    assert content["overall"][0]["difference"] == pytest.approx(content["overall"][0]["B"] - content["overall"][0]["A"])
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert page.count("the other metrics are shown without a verdict") == 1
    drawn = sorted((tmp_path / "out/images").glob("*.jpg"))
    assert 1 <= len(drawn) <= 8
    assert page.count("<img ") == len(drawn)
    assert page.count("<svg ") == 3
    assert str(tmp_path) not in page
    assert str(files) not in page
    assert "http" not in page.split("<style>")[0].replace("http-equiv", "")
    with (tmp_path / "out/resamples.csv").open(encoding="utf-8") as file:
        resamples = list(csv.DictReader(file))
    assert len(resamples) == 100
    low, high = np.quantile([float(row["AP"]) for row in resamples], [0.025, 0.975])
    assert (content["overall"][0]["low"], content["overall"][0]["high"]) == pytest.approx((low, high))
    for name, rows in (("differences", 12), ("classes", len(content["classes"])), ("images", 12)):
        with (tmp_path / "out" / f"{name}.csv").open(encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == rows
    first = (tmp_path / "out/compare.json").read_bytes()
    compare_files(inputs, output=tmp_path / "out", resamples=100)
    assert (tmp_path / "out/compare.json").read_bytes() == first


@pytest.mark.slow
def test_remarks_on_odd_files(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = files / "data/annotations/val.json"
    empty = tmp_path / "empty.json"
    empty.write_text("[]", encoding="utf-8")
    compare_files(Inputs(files / "a.json", empty, truth), output=tmp_path / "1", resamples=50)
    printed = capsys.readouterr().out
    assert "B has no detections." in printed
    assert "B on 0: make sure that both were run on all 12" in printed
    compare_files(Inputs(empty, empty, truth), output=tmp_path / "2")
    assert "Neither file has a detection: every difference is 0" in capsys.readouterr().out


def test_of_the_same_detections_only_that_is_reported(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes((files / "a.json").read_bytes())
    compare_files(Inputs(files / "a.json", copy, files / "data/annotations/val.json"), output=tmp_path / "out")
    printed = capsys.readouterr().out
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for text in (printed, page):
        assert "Both files have the same detections" in text
        assert "either could be better" not in text
        assert "95 %" not in text
    assert "same detections" in json.loads((tmp_path / "out/compare.json").read_text(encoding="utf-8"))["verdict"]


def test_errors_are_one_message(files: Path, tmp_path: Path) -> None:
    truth = files / "data/annotations/val.json"
    good = files / "a.json"
    for few in (-1, 0, 5, 39):
        with pytest.raises(ConfigError, match="--resamples: must be at least 40"):
            compare_files(Inputs(good, good, truth), output=tmp_path, resamples=few)
    strange = tmp_path / "strange.json"
    strange.write_text('[{"image_id": 77777, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]', encoding="utf-8")
    with pytest.raises(DataError, match="77777"):
        compare_files(Inputs(good, strange, truth), output=tmp_path)
    with pytest.raises(DataError, match="--images: no folder"):
        compare_files(Inputs(good, files / "b.json", truth), images=tmp_path / "none", output=tmp_path, resamples=40)
    with pytest.raises(DataError, match=r"no file .* in"):
        compare_files(Inputs(good, files / "b.json", truth), images=tmp_path, output=tmp_path, resamples=40)
    assert not (tmp_path / "report.html").exists()


def test_labels_of_equal_names_are_their_folders() -> None:
    assert labels(Inputs(Path("runs/one/detections.json"), Path("runs/two/detections.json"), Path("t"))) == (
        "one",
        "two",
    )
    assert labels(Inputs(Path("a.json.gz"), Path("b.json"), Path("t"))) == ("a", "b")
    cells = Inputs(Path("cells/FL/test/detections.json"), Path("cells/CE/test/detections.json"), Path("t"))
    assert labels(cells) == ("FL", "CE")
    assert described(cells) == ("A is FL/test/detections.json.", "B is CE/test/detections.json.")


def test_the_command_line(tool: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    truth = files / "data/annotations/val.json"
    arguments = (files / "a.json", files / "b.json", "--ground-truth", truth, "--output", tmp_path, "--resamples", 40)
    done = tool("compare.py", *arguments)
    assert (done.code, done.err) == (0, "")
    assert "written to" in done.out
    failed = tool("compare.py", files / "a.json", files / "nowhere.json", "--ground-truth", truth)
    assert failed.code == 3
    assert "nowhere.json: no such file" in failed.err
