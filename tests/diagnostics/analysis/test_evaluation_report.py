"""The report of an evaluation, its plots and eval.json, from files."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes_to_score import BOX, FAR, NEAR, ODD, Row, analysis_of, random_scene, results_of, scored_of, truth_of

from retinanet.diagnostics.analysis.findings import describe_findings
from retinanet.diagnostics.analysis.report_files import remove_report, replaced_report
from retinanet.diagnostics.analysis.thumbnails import draw_verdicts
from retinanet.diagnostics.evaluate import evaluate_files
from retinanet.display.drawing import OBJECT_COLOR, RIGHT_COLOR, WRONG_COLOR
from retinanet.display.numbers import points
from retinanet.errors import DataError
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.scoring.metric_intervals import measure_intervals

TABLES = {
    "precision_recall", "class_ap", "size_and_crowding", "errors", "confusion", "calibration", "thresholds",
}  # fmt: skip
PANELS = {
    *("precision_recall_50", "precision_recall_75", "class_ap", "size", "crowding", "overlap", "errors"),
    *("error_totals", "confusion", "calibration", "score_counts", "thresholds", "class_thresholds"),
}


def on_disk(folder: Path, truth: Row, results: list[Row]) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    for name, content in (("truth", truth), ("found", results)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "truth.json", folder / "found.json"


def photographs(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(1, count + 1):
        Image.fromarray(np.full((400, 400, 3), 120, np.uint8)).save(folder / f"{number}.jpg")
    return folder


@pytest.mark.slow
def test_everything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_scene(1)
    images = photographs(tmp_path / "images", 12)
    evaluate_files(*on_disk(tmp_path / "in", truth, results), tmp_path / "out", images=images)
    content = json.loads((tmp_path / "out/eval.json").read_text(encoding="utf-8"))
    expected = coco_evaluation(truth, results)
    assert content["metrics"] == expected.metrics
    assert content["engine"] == expected.engine
    for row, coco in zip(content["per_class"], expected.per_class, strict=True):
        assert row == coco.as_dict()
    assert content["thresholds"]["overall"]["score"] > 0
    assert (content["step"], content["precision"]) == (None, None)
    plots = tmp_path / "out/plots"
    assert {path.stem for path in plots.glob("*.svg")} == PANELS
    assert {path.stem for path in plots.glob("*.csv")} == TABLES
    shown = len(content["images"]["worst"]), len(content["images"]["best"])
    assert (len(list(plots.glob("worst_*.jpg"))), len(list(plots.glob("best_*.jpg")))) == shown
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    of_classes = len(list(plots.glob("class_*.jpg")))
    assert page.count("<img") == of_classes + sum(shown) == page.count('src="data:image/')
    assert page.count("<svg ") == page.count("</svg>") == len(PANELS)
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    anchors = re.findall(r' id="([^"]+)"', page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(anchors)
    assert len([anchor for anchor in anchors if anchor.startswith("part-")]) == 11
    classes = {row["name"]: f"class-{k}" for k, row in enumerate(content["per_class"], 1) if row["instances"]}
    assert all(f'<a href="#{anchor}">{name}</a>' in page for name, anchor in classes.items())
    assert str(tmp_path) not in page
    out = capsys.readouterr().out
    assert "AP50" in out
    assert "Best F1" in out
    assert str(tmp_path / "out") in out.replace("\n", "")


@pytest.mark.slow
def test_csv_files_hold_what_was_drawn(tmp_path: Path) -> None:
    truth, results = random_scene(2)
    evaluate_files(*on_disk(tmp_path / "in", truth, results), tmp_path / "out")

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / "out/plots" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    analysis = analysis_of(truth, results)
    mean = [
        float(r["precision"]) for r in rows("precision_recall") if r["class"] == "mean of classes" and r["iou"] == "0.5"
    ]
    assert mean == analysis.curves[0].mean_Q.tolist()
    assert {r["error"]: int(r["count"]) for r in rows("errors")}["missed"] == analysis.errors.main[5].errors
    assert [[int(v) for v in list(r.values())[1:]] for r in rows("confusion")] == analysis.confusion.counts.tolist()
    best = max((float(r["f1"]) for r in rows("thresholds") if r["class"] == "all"), default=0)
    assert best <= analysis.thresholds.overall.f1 + 1e-12
    assert sum(int(r["detections"]) for r in rows("calibration") if r["class"] == "all") == int(
        analysis.calibration.overall.count_B.sum()
    )


@pytest.mark.slow
def test_intervals_are_printed_written_and_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_scene(1)
    evaluate_files(*on_disk(tmp_path / "in", truth, results), tmp_path / "out", intervals=True)
    content = json.loads((tmp_path / "out/eval.json").read_text(encoding="utf-8"))["intervals"]
    expected = measure_intervals(coco_evaluation(truth, results))
    assert (content["level"], content["resamples"]) == (0.95, 1000)
    assert content["metrics"]["AP"] == list(expected.metrics["AP"])
    assert [row["AP"] for row in content["by_class"]] == [list(e) if e.known() else None for e in expected.classes]
    low, high = (points(end) for end in expected.metrics["AP"])
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert f"<td>{low} to {high}</td>" in page
    assert f"95 % interval {low} to {high} on images like these 12" in page
    assert "95 % interval 0." in " ".join(capsys.readouterr().out.split())


def test_without_a_report_there_is_eval_json_alone(tmp_path: Path) -> None:
    evaluate_files(*on_disk(tmp_path / "in", *random_scene(3)), tmp_path / "out", report=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["eval.json"]


@pytest.mark.slow
def test_an_older_report_goes_but_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = random_scene(3)
    files, out = on_disk(tmp_path / "in", truth, results), tmp_path / "out"
    evaluate_files(*files, out, images=photographs(tmp_path / "images", 12))
    assert list((out / "plots").glob("worst_*.jpg"))
    evaluate_files(*files, out)
    assert not list((out / "plots").glob("*.jpg"))
    (out / "plots/mine.png").write_text("", encoding="utf-8")
    evaluate_files(*files, out, report=False)
    assert sorted(path.name for path in out.rglob("*")) == ["eval.json", "mine.png", "plots"]
    assert "older report there was removed" in capsys.readouterr().out.replace("\n", "")
    (out / "report.html").write_text("<title>Comparison</title>", encoding="utf-8")
    (out / "plots/errors.svg").write_text("", encoding="utf-8")
    evaluate_files(*files, out, report=False)
    assert {path.name for path in out.rglob("*.*")} == {"eval.json", "mine.png", "report.html", "errors.svg"}


@pytest.mark.slow
def test_a_report_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    evaluate_files(*on_disk(tmp_path / "in", *random_scene(3)), tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}

    def fail() -> None:
        with replaced_report(tmp_path / "out") as part:
            (part / "plots/errors.svg").write_text("half", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_only_files_within_plots_are_removed(tmp_path: Path) -> None:
    """Even if the list of the report's files names others."""
    out = tmp_path / "out"
    (out / "plots").mkdir(parents=True)
    (out / "plots/.written").write_text("../../mine.txt\nnone.png\n", encoding="utf-8")
    (tmp_path / "mine.txt").write_text("", encoding="utf-8")
    assert remove_report(out)
    assert not remove_report(out)
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_inputs_get_a_whole_report(name: str, tmp_path: Path) -> None:
    truth, results = ODD[name]
    evaluate_files(*on_disk(tmp_path / "in", truth, results), tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "nan" not in re.sub(r'"data:[^"]*"', "", page).lower().split()
    assert page.count("<h2 ") == (11 if len(truth["categories"]) > 1 else 10)


@pytest.mark.slow
def test_names_that_look_like_markup_stay_text(tmp_path: Path) -> None:
    truth = truth_of([(1, 1, BOX), (2, 2, BOX)], classes=2)
    for row, name in zip(truth["categories"], ("<b>$x_1$", "_hidden & $$")):
        row["name"] = name
    truth["images"][0]["file_name"] = '<img src="http://x.example/y">.jpg'
    evaluate_files(*on_disk(tmp_path / "in", truth, results_of([(1, 1, BOX, 0.9), (2, 1, BOX, 0.8)])), tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;$x_1$" in page
    assert "<b>" not in page
    assert '<img src="http' not in page


@pytest.mark.slow
def test_images_that_cannot_be_drawn_are_reported_once_all_is_written(tmp_path: Path) -> None:
    truth = truth_of([(1, 1, BOX), (2, 1, BOX), (3, 1, BOX), (4, 1, BOX)], images=4)
    truth["images"][2]["file_name"] = "../3.jpg"
    images = photographs(tmp_path / "images", 1)
    (images / "2.jpg").write_text("no image", encoding="utf-8")
    results = results_of([(i, 1, BOX, 0.9) for i in (1, 2, 3, 4)])
    with pytest.raises(DataError) as error:
        evaluate_files(*on_disk(tmp_path / "in", truth, results), tmp_path / "out", images=images)
    text = str(error.value)
    assert all(
        part in text
        for part in ("2.jpg: not a complete image", "../3.jpg: outside the image folder", "4.jpg: No such file")
    )
    assert "1.jpg" not in text
    assert (tmp_path / "out/plots/best_01.jpg").is_file()
    assert (tmp_path / "out/report.html").read_text(encoding="utf-8").count("../3.jpg") == 1


def test_a_missing_image_folder_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--images: no folder"):
        evaluate_files(*on_disk(tmp_path / "in", *random_scene(1)), tmp_path / "out", images=tmp_path / "none")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_with_none_of_the_images_is_reported_once_and_at_once(tmp_path: Path) -> None:
    truth, results = random_scene(1)
    files = on_disk(tmp_path / "in", truth, results)
    with pytest.raises(DataError, match=r"^--images: none of the 12 images is in .*such as 1\.jpg") as error:
        evaluate_files(*files, tmp_path / "out", images=tmp_path / "in")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"images that could not be drawn.*\n(.*\n){5}  \.\.\. and \d+ more$"):
        evaluate_files(*files, tmp_path / "out", images=photographs(tmp_path / "some", 1))


def test_images_without_file_names_cannot_be_drawn(tmp_path: Path) -> None:
    truth, results = random_scene(1)
    for row in truth["images"]:
        del row["file_name"]
    with pytest.raises(DataError, match="--images: the ground truth has no file names"):
        evaluate_files(*on_disk(tmp_path / "in", truth, results), tmp_path / "out", images=tmp_path / "in")


def test_a_thumbnail_shows_right_false_and_not_found_where_they_are(tmp_path: Path) -> None:
    """An image of 800 x 400 with EXIF rotation comes out upright and smaller, its boxes with it."""
    scored = scored_of(
        truth_of([(1, 1, BOX), (1, 1, [300.0, 500.0, 80.0, 200.0])]),
        results_of([(1, 1, NEAR, 0.9), (1, 2, [20.0, 600.0, 100.0, 100.0], 0.8), (1, 3, FAR, 0.1)]),
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((400, 800, 3), 120, np.uint8)).save(tmp_path / "1.jpg", exif=exif)
    picture = draw_verdicts(tmp_path / "1.jpg", scored, 0, 0.5).astype(int)
    height, width, _ = picture.shape
    assert (height, width) == (480, 240)
    scale = 0.6

    def colored(x: float, y: float, color: tuple[int, int, int]) -> bool:
        """Whether the left edge of a box at (x, y) has this colour."""
        near = picture[round(y * scale), round(x * scale) - 2 : round(x * scale) + 3]
        return bool((np.abs(near - color).max(axis=1) < 10).any())

    assert colored(110, 190, RIGHT_COLOR)
    assert colored(20, 650, WRONG_COLOR)
    assert colored(300, 650, OBJECT_COLOR)
    assert not any(colored(300, 330, color) for color in (RIGHT_COLOR, WRONG_COLOR, OBJECT_COLOR))  # below the score


def test_a_thumbnail_of_a_16_bit_image_is_not_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((400, 400), 30000, np.uint16)).save(tmp_path / "1.png")
    picture = draw_verdicts(tmp_path / "1.png", scored_of(truth_of([(1, 1, BOX)]), []), 0, 0.5)
    assert picture.shape == (480, 480, 3)
    assert 110 < picture[20, 20, 0] < 124


def test_findings_describe_what_there_is() -> None:
    def text_of(truth: Row, results: list[Row]) -> str:
        return " ".join(describe_findings(analysis_of(truth, results)))

    whole = text_of(*random_scene(1))
    assert all(
        part in whole
        for part in (
            "AP50 lost to each type of error (count): ",
            "Best F1",
            "calibration",
            "By object size",
            "Lowest AP",
            "detected as",
        )
    )
    truth, results = random_scene(1)
    part = text_of(truth, [row for row in results if row["image_id"] <= 2])
    with_objects = {row["image_id"] for row in truth["annotations"] if not row["iscrowd"]}
    assert f"10 of 12 images have no detections, {len(with_objects - {1, 2})} of them with objects. Was the" in part
    assert "no detection" not in text_of(truth_of([(1, 1, BOX)], images=1), results_of([(1, 1, BOX, 0.9)]))
    one = text_of(truth_of([(1, 1, BOX), (3, 1, BOX)]), results_of([(1, 1, BOX, 0.9), (3, 1, FAR, 0.9)]))
    assert "1 of 3 images has no detections, 0 of them with objects." in one
    assert "Was the" not in one
    calibrated = text_of(
        truth_of([(1, 1, BOX), (1, 1, FAR)]),
        results_of([(1, 1, BOX, 0.9), (1, 1, FAR, 0.7), *((2, 1, BOX, 0.06) for _ in range(8))]),
    )
    expected = "above score 0.700 the detector is under-confident: mean score 0.800, precision 1.000."
    assert f"(80% score below 0.1); {expected}" in calibrated
    assert text_of(*ODD["no detections"]) == "There are no detections."
    assert "nothing to find" in text_of(*ODD["no objects"])
    assert "No detection is a true positive" in text_of(*ODD["all wrong"])
    assert "not probabilities" in text_of(*ODD["scores beyond 0..1"])
    assert "No AP50 is lost" in text_of(*ODD["one class, one image"])
