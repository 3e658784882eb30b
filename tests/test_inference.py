"""Evaluating a saved detector, and files of detections."""

import gzip
import json
from pathlib import Path

import pytest

from retinanet.errors import ConfigFault, DataFault, ResourceFault
from retinanet.inference import evaluate_checkpoint, evaluate_files, load_detector
from retinanet.metrics import read_rows


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_checkpoint_scores_as_it_did_in_training(
    trained: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """last.pt too: of its two sets of weights, the moving average is the one to evaluate."""
    evaluate_checkpoint(trained / "checkpoints" / f"{name}.pt", [], tmp_path / "new" / "folder")
    given = read(tmp_path / "new/folder/eval.json")
    assert given == read(trained / "eval.json")
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
    evaluate_checkpoint(path, ["data.val_annotations=annotations/train.json", "data.val_images=train"], None)
    detections = json.loads((tmp_path / "eval-best-train" / "detections.json").read_text(encoding="utf-8"))
    assert {row["image_id"] for row in detections} == set(range(1, 13))


def test_overrides_reach_the_detector(trained: Path) -> None:
    path = trained / "checkpoints" / "best.pt"
    saved = load_detector(path, ["eval.score_threshold=0.25", "eval.detections=7"])
    assert saved.detector.rule.score_threshold == 0.25
    assert saved.detector.rule.detections == 7
    assert not saved.detector.model.training
    with pytest.raises(ConfigFault, match=r"eval\.score_treshold"):
        load_detector(path, ["eval.score_treshold=0.25"])


def test_data_of_other_classes_is_refused(trained: Path, shapes: Path, tmp_path: Path) -> None:
    content = read(shapes / "annotations" / "val.json")
    content["categories"][1]["name"] = "wheel"
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataFault, match=r"val\.json: its categories are not those of .*best\.pt.*wheel"):
        evaluate_checkpoint(trained / "checkpoints/best.pt", [f"data.val_annotations={file}"], tmp_path / "out")


def test_files_of_detections_are_scored_zipped_or_not(trained: Path, shapes: Path, tmp_path: Path) -> None:
    truth, found = shapes / "annotations" / "val.json", trained / "detections.json"
    zipped = tmp_path / "found.json.gz"
    zipped.write_bytes(gzip.compress(found.read_bytes()))
    for number, file in enumerate((found, zipped)):
        evaluate_files(truth, file, tmp_path / str(number))
        given, expected = read(tmp_path / str(number) / "eval.json"), read(trained / "eval.json")
        assert given["metrics"] == expected["metrics"]
        assert given["per_class"] == expected["per_class"]


def test_without_an_output_the_numbers_go_below_runs(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_files(shapes / "annotations" / "val.json", trained / "detections.json", None)
    assert (tmp_path / "runs" / "eval-detections" / "eval.json").is_file()


def test_an_output_that_cannot_be_made_is_told_before_the_work(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResourceFault, match="cannot make the folder"):
        evaluate_checkpoint(trained / "checkpoints/best.pt", [], tmp_path / "file" / "out")
