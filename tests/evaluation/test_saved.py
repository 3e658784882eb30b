"""Evaluating a saved detector, and files of detections."""

import gzip
import json
from pathlib import Path

import pytest

from retinanet.config.schema import Config
from retinanet.diagnostics.anchors.report import learned_by
from retinanet.diagnostics.evaluate import evaluate_checkpoint, evaluate_files
from retinanet.errors import ConfigError, DataError, ResourceError
from retinanet.evaluation.saved import load_detector
from retinanet.run.metric_rows import read_rows


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_scores_as_it_did_in_training(
    trained: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """last.pt too: of its two sets of weights, the moving average is the one to evaluate."""
    evaluate_checkpoint(trained / "checkpoints" / f"{name}.pt", [], tmp_path / "new" / "folder", report=False)
    given, trained_with = read(tmp_path / "new/folder/eval.json"), read(trained / "eval.json")
    assert given == trained_with
    assert list(given)[:4] == ["schema", "step", "precision", "metrics"]
    assert given["thresholds"]["by_class"][0].keys() == {"id", "name", "score", "precision", "recall", "f1"}
    (row,) = (row for row in read_rows(trained / "metrics.jsonl") if row["kind"] == "eval")
    assert {key: row[key] for key in given["metrics"]} == given["metrics"]
    assert read(tmp_path / "new/folder/detections.json") == read(trained / "detections.json")
    out = capsys.readouterr().out
    assert "AP50" in out
    assert str(tmp_path / "new/folder") in out


def test_another_data_set_goes_into_a_folder_of_its_own_in_the_run(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "best.pt"
    path.parent.mkdir()
    path.write_bytes((trained / "checkpoints" / "best.pt").read_bytes())
    evaluate_checkpoint(
        path, ["data.val_annotations=annotations/train.json", "data.val_images=train"], None, report=False
    )
    detections = json.loads((tmp_path / "eval-best-train" / "detections.json").read_text(encoding="utf-8"))
    assert {row["image_id"] for row in detections} == set(range(1, 13))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_precision_is_printed(
    trained: Path, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / "checkpoints" / "best.pt"
    evaluate_checkpoint(checkpoint, [f"precision={precision}"], tmp_path / "out", report=False)
    assert read(tmp_path / "out/eval.json")["precision"] == precision
    assert f"computed in {precision} on cpu" in capsys.readouterr().out


def test_which_anchors_learn_an_object_that_none_fits() -> None:
    rule = Config().assign
    assert learned_by(rule) == "no anchor (assign.low_quality is off), which training cannot fix"
    assert (
        learned_by(rule.model_copy(update={"low_quality": True})) == "its best anchors alone (assign.low_quality is on)"
    )
    some = rule.model_copy(update={"low_quality": True, "low_quality_min_iou": 0.3})
    assert "alone and at an IoU of at least 0.3 (" in learned_by(some)


def test_data_that_are_elsewhere_come_with_a_hint(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "best.pt"
    for root, named in ((tmp_path / "none", "no folder"), (tmp_path, r"no file .*val\.json")):
        with pytest.raises(DataError, match=rf"data\.\w+: {named}.*data\.root=PATH"):
            evaluate_checkpoint(checkpoint, [f"data.root={root}"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_overrides_reach_the_detector(trained: Path) -> None:
    path = trained / "checkpoints" / "best.pt"
    saved = load_detector(path, ["eval.score_threshold=0.25", "eval.detections=7"])
    assert saved.detector.rule.score_threshold == 0.25
    assert saved.detector.rule.detections == 7
    assert not saved.detector.model.training
    with pytest.raises(ConfigError, match=r"eval\.score_treshold"):
        load_detector(path, ["eval.score_treshold=0.25"])


def test_data_of_other_classes_is_refused(trained: Path, shapes: Path, tmp_path: Path) -> None:
    content = read(shapes / "annotations" / "val.json")
    content["categories"][1]["name"] = "wheel"
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.json: its categories differ from those of .*best\.pt.*wheel"):
        evaluate_checkpoint(trained / "checkpoints/best.pt", [f"data.val_annotations={file}"], tmp_path / "out")


def test_data_may_lack_classes_that_the_checkpoint_knows(
    trained: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read(shapes / "annotations" / "val.json")
    dropped = content["categories"].pop(0)["id"]
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] != dropped]
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    checkpoint = trained / "checkpoints/best.pt"
    evaluate_checkpoint(checkpoint, [f"data.val_annotations={file}"], tmp_path / "out", report=False)
    whole = read(trained / "detections.json")
    assert read(tmp_path / "out/detections.json") == [row for row in whole if row["category_id"] != dropped]
    assert any(row["category_id"] == dropped for row in whole)
    assert "1 classes that are not in the data" in capsys.readouterr().out


def test_files_of_detections_are_scored_zipped_or_not(trained: Path, shapes: Path, tmp_path: Path) -> None:
    truth, found = shapes / "annotations" / "val.json", trained / "detections.json"
    zipped = tmp_path / "found.json.gz"
    zipped.write_bytes(gzip.compress(found.read_bytes()))
    for number, file in enumerate((found, zipped)):
        evaluate_files(truth, file, tmp_path / str(number), report=False)
        given, expected = read(tmp_path / str(number) / "eval.json"), read(trained / "eval.json")
        assert given == {**expected, "step": None, "precision": None}


@pytest.mark.parametrize(("engine", "package"), [("pycocotools", "pycocotools"), ("fast", "hotcoco")])
def test_the_requested_engine_is_used_and_reported(trained: Path, tmp_path: Path, engine: str, package: str) -> None:
    evaluate_checkpoint(trained / "checkpoints/best.pt", [f"eval.engine={engine}"], tmp_path / "out", report=False)
    given = read(tmp_path / "out" / "eval.json")
    assert given["engine"].split()[0] == package
    assert given["metrics"] == read(trained / "eval.json")["metrics"]


def test_without_an_output_the_numbers_go_below_runs(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_files(shapes / "annotations" / "val.json", trained / "detections.json", None, report=False)
    assert (tmp_path / "runs" / "eval-detections" / "eval.json").is_file()


def test_an_output_folder_that_cannot_be_created_is_reported_before_the_work(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResourceError, match="cannot create the folder"):
        evaluate_checkpoint(trained / "checkpoints/best.pt", [], tmp_path / "file" / "out")


@pytest.mark.slow
def test_the_report_of_a_checkpoint_shows_images_and_anchors(trained: Path, tmp_path: Path) -> None:
    evaluate_checkpoint(trained / "checkpoints/best.pt", [], tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert ">Anchors</h2>" in page
    assert "learned by no anchor (assign.low_quality is off)" in page
    assert f", computed in {read(tmp_path / 'out/eval.json')['precision']} on cpu." in page
    plots = tmp_path / "out/plots"
    assert (plots / "anchors.svg").is_file()
    rows = (plots / "anchors.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("by,name,boxes,mean_iou,positive")
    assert rows[1].startswith("all,")
    shown = read(tmp_path / "out/eval.json")["images"]
    assert len(list(plots.glob("worst_*.jpg"))) == len(shown["worst"]) > 0
    assert page.count("<img") == len(list(plots.glob("*.jpg")))
    assert page.count("<svg ") == len(list(plots.glob("*.svg")))
