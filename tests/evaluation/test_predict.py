"""Detecting on files, folders and patterns: what is found, what is written, what is never overwritten."""

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retinanet.data.find_images import files_passed_over, find_images
from retinanet.errors import ConfigError, DataError, check_name
from retinanet.evaluation.outputs import Format, PredictOptions, check_inputs_are_kept, folder_names, result_names
from retinanet.evaluation.predict import predict as predict_with
from retinanet.evaluation.predict import print_hints
from retinanet.export.runtime import load_any
from retinanet.structures import Category


def predict(
    checkpoint: Path,
    inputs: list[str],
    overrides: list[str],
    output: Path | None,
    thresholds: Path | None = None,
    formats: tuple[Format, ...] = ("coco",),
) -> None:
    """As `retinanet predict` calls it."""
    paths = find_images(inputs)
    options = PredictOptions(output=output, formats=formats)
    predict_with(
        lambda: load_any(checkpoint, overrides), paths, source=checkpoint, options=options, thresholds=thresholds
    )


def make_images(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (40, 30), (90, 120, 30)).save(folder / name)
    return [folder / name for name in names]


def test_files_folders_and_patterns_are_each_found_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = make_images(tmp_path / "photos", "a.jpg", "b.PNG", "c.jpeg")
    make_images(tmp_path / "photos" / "below", "d.jpg")
    (tmp_path / "photos" / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "photos" / "script.eps").write_text("%!PS", encoding="utf-8")
    assert find_images([str(tmp_path / "photos")]) == [a, b, c]
    assert find_images([str(c), str(tmp_path / "photos"), str(a)]) == [c, a, b]
    assert find_images([str(tmp_path / "photos" / "*.jp*g")]) == [a, c]
    assert [p.name for p in find_images([str(tmp_path / "**" / "*.jpg")])] == ["a.jpg", "d.jpg"]
    monkeypatch.chdir(tmp_path)
    assert find_images(["photos/a.jpg", "./photos/../photos/b.PNG"])[0] == Path("photos/a.jpg")
    with pytest.raises(DataError, match=r"A\.JPG: no such file, folder or pattern; there is a\.jpg"):
        find_images(["photos/A.JPG"])
    odd = make_images(tmp_path / "photos", "x[1].jpg")
    assert find_images([str(odd[0])]) == odd, "a file's name is no pattern"


def test_all_inputs_that_match_nothing_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (good,) = make_images(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"no images to read \(3 errors\)") as caught:
        find_images([str(good), str(tmp_path / "empty"), str(tmp_path / "*.gif"), str(tmp_path / "none.jpg")])
    for word in ("no image in this folder", "*.gif: no such", "none.jpg: no such"):
        assert word in str(caught.value)


def test_results_of_one_stem_get_names_of_their_own() -> None:
    paths = [Path(p) for p in ("x/a.jpg", "y/a.png", "z/a_2.jpg", "z/A.jpg", "w/a.jpg", "w/b.jpg")]
    names = list(result_names(paths).values())
    assert names[:2] == ["a", "a_2"]
    assert names[-1] == "b"
    assert len({name.lower() for name in names}) == len(paths)


def test_no_picture_replaces_an_input_image(tmp_path: Path) -> None:
    a, b = make_images(tmp_path, "a.jpg", "b.png")
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (tmp_path, tmp_path / "link", tmp_path / "nowhere" / ".."):
        with pytest.raises(ConfigError, match=r"choose another folder.*\(1 error\)"):
            check_inputs_are_kept(result_names([a, b]), output)
    check_inputs_are_kept(result_names([b]), tmp_path)
    check_inputs_are_kept(result_names([a, b]), None)


def test_nothing_found_and_pictures_of_before_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = make_images(tmp_path, "old.jpg", "new.jpg")
    print_hints([{"score": 0.12, "shown": False}, {"score": 0.04, "shown": False}], {new}, tmp_path)
    printed = capsys.readouterr().out
    assert "the highest score is 0.120. eval.shown_score=0.06 shows what scores less" in printed
    assert f"{tmp_path}/ also holds 1 picture of other images" in printed
    print_hints([{"score": 0.12, "shown": False}, {"score": 0.5, "shown": True}], {old, new}, tmp_path)
    print_hints([], {old, new}, tmp_path)
    assert not capsys.readouterr().out


def test_results_and_pictures_are_written(trained: Path, shapes: Path, tmp_path: Path) -> None:
    wide = tmp_path / "in" / "wide.png"
    wide.parent.mkdir()
    Image.new("L", (200, 50), 140).save(wide)
    inputs = [str(shapes / "val" / "*.jpg"), str(wide)]
    predict(trained / "checkpoints" / "best.pt", inputs, ["eval.detections=5"], tmp_path / "new" / "out")
    paths = find_images(inputs)
    rows = json.loads((tmp_path / "new/out/detections.json").read_text(encoding="utf-8"))
    assert {row["image_id"] for row in rows} == set(range(1, len(paths) + 1))
    names = {c["id"]: c["name"] for c in json.loads((shapes / "annotations/val.json").read_text())["categories"]}
    for row in rows:
        assert set(row) == {"image_id", "category_id", "bbox", "score", "file_name", "category_name", "shown"}
        assert row["file_name"] == str(paths[row["image_id"] - 1])
        assert row["category_name"] == names[row["category_id"]]
        assert 0 < row["score"] <= 1
        x, y, w, h = row["bbox"]
        width, height = (200, 50) if row["file_name"] == str(wide) else (64, 64)
        assert min(x, y, w, h) >= 0
        assert x + w <= width + 0.01
        assert y + h <= height + 0.01
    counts = [sum(row["image_id"] == i for row in rows) for i in range(1, len(paths) + 1)]
    assert counts == [5] * len(paths)
    with Image.open(tmp_path / "new/out/wide.jpg") as picture:
        assert picture.size == (200, 50), "never enlarged unasked"
    assert len(list((tmp_path / "new/out").iterdir())) == len(paths) + 1


def test_prediction_and_evaluation_detect_the_same(trained: Path, shapes: Path, tmp_path: Path) -> None:
    predict(trained / "checkpoints" / "best.pt", [str(shapes / "val")], [], tmp_path)
    ours = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    theirs = json.loads((trained / "detections.json").read_text(encoding="utf-8"))
    assert len(ours) == len(theirs) > 0
    for image_id in {row["image_id"] for row in theirs}:
        scores = [sorted(row["score"] for row in rows if row["image_id"] == image_id) for rows in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_broken_images_are_left_out_and_reported_at_the_end(
    trained: Path, shapes: Path, tmp_path: Path, tool: Callable[..., tuple[int, str, str]]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(shapes / "val", photos)
    first, second, *rest = sorted(photos.iterdir())
    first.write_bytes(first.read_bytes()[:400])
    second.write_text("not an image", encoding="utf-8")
    code, out, err = tool("predict.py", trained / "checkpoints/best.pt", photos, "--output", tmp_path / "out")
    assert code == 3
    assert "Traceback" not in err
    assert "images left out (2 errors)" in err
    assert first.name in err
    assert second.name in err
    assert f"{len(rest)} pictures" in out
    rows = json.loads((tmp_path / "out/detections.json").read_text(encoding="utf-8"))
    assert {Path(row["file_name"]).name for row in rows} == {path.name for path in rest}
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {path.name for path in rest}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_passes_of_several_images_change_nothing(
    trained: Path, shapes: Path, tmp_path: Path, workers: int
) -> None:
    """Images of several canvases, broken ones among them, in an order that mixes them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(14):
        image = Image.open(shapes / "val" / f"{index % 6 + 1:06d}.jpg")
        image.resize([(64, 64), (96, 64), (64, 96)][index % 5 % 3]).save(photos / f"{index:02d}.png")
    (photos / "03.png").write_text("not an image", encoding="utf-8")
    (photos / "13.png").write_bytes((photos / "12.png").read_bytes()[:300])
    keys = ["data.canvas=null", "data.shorter_side=[64]", "data.longer_side=96"]
    written = []
    for name, words in (("alone", ("data.workers=0", "eval.batch_size=1")), ("together", (f"data.workers={workers}",))):
        with pytest.raises(DataError, match=r"\(2 errors\)"):
            predict(trained / "checkpoints" / "best.pt", [str(photos)], [*keys, *words], tmp_path / name)
        written.append(json.loads((tmp_path / name / "detections.json").read_text(encoding="utf-8")))
    alone, together = written
    assert [row["image_id"] for row in together] == [row["image_id"] for row in alone]
    assert {row["image_id"] for row in alone} == set(range(1, 14)) - {4}
    scores = [[row["score"] for row in rows] for rows in written]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    names = [sorted(path.name for path in (tmp_path / name).glob("*.jpg")) for name in ("alone", "together")]
    assert names[0] == names[1]
    assert len(names[0]) == 12


def test_each_run_has_a_new_folder_and_replaces_nothing(
    trained: Path,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tool: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    best, one = trained / "checkpoints" / "best.pt", shapes / "val" / "000001.jpg"
    for folder in ("runs/predict", "runs/predict-2", "runs/predict-3"):
        code, out, _ = tool("predict.py", best, one, "--no-pictures", "--format", "csv")
        assert (code, f"detections.csv written to {folder}/" in out) == (0, True)
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["detections.csv"]
    code, _, err = tool("predict.py", best, one, "--output", "runs/predict-2")
    assert code == 2
    assert "runs/predict-2 already has files in it (such as detections.csv); choose another folder" in err
    code, out, err = tool("predict.py", best, one, "--output", "runs/predict-2", "--overwrite")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in Path("runs/predict-2").iterdir()) == [
        "000001.jpg", "detections.csv", "detections.json"
    ]  # fmt: skip


def test_nothing_is_written_where_nothing_can_be_read(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.jpg").write_text("not an image", encoding="utf-8")
    for output in (None, tmp_path / "out"):
        with pytest.raises(DataError, match=r"images left out \(1 error\)"):
            predict(trained / "checkpoints" / "best.pt", ["broken.jpg"], [], output)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.jpg"]


def test_hidden_files_and_subfolders_are_passed_over_and_counted(tmp_path: Path) -> None:
    (a,) = make_images(tmp_path, "a.jpg")
    make_images(tmp_path / "more", "b.jpg")
    make_images(tmp_path, ".c.jpg", "._a.jpg")
    (tmp_path / "film.MP4").write_bytes(b"x")
    assert find_images([str(tmp_path)]) == [a]
    text = files_passed_over([str(tmp_path)])
    lines = text.splitlines()
    assert lines[0] == "2 hidden files passed over, such as ._a.jpg"
    assert lines[1] == f"1 subfolder passed over; '{tmp_path / 'more'}' has images"
    assert lines[2].startswith("1 file in formats that are not read (1 MP4)")
    assert find_images([str(tmp_path / ".c.jpg")]) == [tmp_path / ".c.jpg"], "read where it is named"
    a.unlink()
    with pytest.raises(DataError, match="no image in this folder, but 2 hidden files"):
        find_images([str(tmp_path)])


def test_a_folder_of_folders_is_answered_with_the_first_that_has_images(tmp_path: Path) -> None:
    for name in ("test", "train/images", "train/labels", "val/images"):
        (tmp_path / name).mkdir(parents=True)
    images = make_images(tmp_path / "train/images", "a.jpg", "b.jpg")
    (tmp_path / "train/labels/a.txt").write_text("0 .5 .5 .1 .1", encoding="utf-8")
    with pytest.raises(DataError, match=f"but 3 subfolders passed over; '{tmp_path / 'train/images'}' has images"):
        find_images([str(tmp_path)])
    assert find_images([str(tmp_path / "train" / "*")]) == images, "a pattern that matches folders alone means theirs"
    with pytest.raises(DataError, match=r"1 subfolder passed over$"):
        find_images([str(tmp_path / "val")])


def test_csv_yolo_and_crops_have_the_boxes_of_the_results(trained: Path, shapes: Path, tmp_path: Path) -> None:
    images = [str(shapes / "val" / f"00000{n}.jpg") for n in (1, 2)]
    keys = ["eval.detections=3", "eval.shown_score=0"]
    predict(
        trained / "checkpoints" / "best.pt", images, keys, tmp_path / "out", formats=("coco", "csv", "yolo", "crops")
    )
    rows = json.loads((tmp_path / "out/detections.json").read_text(encoding="utf-8"))
    assert len(rows) == 6
    with (tmp_path / "out/detections.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    classes = (tmp_path / "out/classes.txt").read_text(encoding="utf-8").splitlines()
    assert classes == ["disc", "square", "triangle"]
    for n, name in enumerate(("000001", "000002")):
        lines = (tmp_path / "out/labels" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        for number, (row, cells, line) in enumerate(zip(rows[3 * n :], table[3 * n :], lines, strict=False), start=1):
            x, y, w, h = row["bbox"]
            corners = [float(cells[key]) for key in ("x1", "y1", "x2", "y2")]
            assert corners == pytest.approx([x, y, x + w, y + h], abs=2e-3)
            assert (cells["class"], float(cells["score"]), cells["shown"]) == (row["category_name"], row["score"], "1")
            index, *numbers = line.split()
            assert classes[int(index)] == row["category_name"]
            wanted = [(x + w / 2) / 64, (y + h / 2) / 64, w / 64, h / 64, row["score"]]
            assert [float(value) for value in numbers] == pytest.approx(wanted, abs=2e-6)
            with Image.open(tmp_path / "out/crops" / row["category_name"] / f"{name}_{number}.jpg") as crop:
                assert abs(crop.width - w) <= 2
                assert abs(crop.height - h) <= 2


def test_folders_of_classes_have_names_that_file_systems_accept() -> None:
    names = ["a/b", "..", "A", "a", "con: x?"]
    categories = tuple(Category(n, name) for n, name in enumerate(names))
    assert folder_names(categories) == {0: "a_b", 1: "1", 2: "A_2", 3: "a_3", 4: "con_ x_"}


def eval_json(path: Path, scores: list[float | None], names: list[str]) -> Path:
    rows = [{"id": i, "name": name, "score": s} for i, (name, s) in enumerate(zip(names, scores, strict=True), start=1)]
    path.write_text(json.dumps({"thresholds": {"iou": 0.5, "overall": {}, "by_class": rows}}), encoding="utf-8")
    return path


@pytest.mark.slow
def test_each_class_is_shown_from_its_own_threshold(
    trained: Path, shapes: Path, tmp_path: Path, tool: Callable[..., tuple[int, str, str]]
) -> None:
    """Thresholds set so that classes 1 and 3 are split by their own scores and nothing of class 2 is shown."""
    predict(trained / "checkpoints" / "best.pt", [str(shapes / "val")], ["eval.detections=60"], tmp_path / "all")
    rows = json.loads((tmp_path / "all/detections.json").read_text(encoding="utf-8"))
    assert {row["shown"] for row in rows} == {False}, "no score reaches eval.shown_score"
    names = {c["id"]: c["name"] for c in json.loads((shapes / "annotations/val.json").read_text())["categories"]}
    of_class = {i: sorted(row["score"] for row in rows if row["category_id"] == i) for i in names}
    least = [of_class[1][len(of_class[1]) // 2], 1.0, of_class[3][1]]
    given = eval_json(tmp_path / "eval.json", list(least), list(names.values()))
    words = ["--thresholds", given, "--output", tmp_path / "some", "eval.detections=60"]
    code, out, err = tool("predict.py", trained / "checkpoints" / "best.pt", shapes / "val", *words)
    assert code == 0, err
    marked = json.loads((tmp_path / "some/detections.json").read_text(encoding="utf-8"))
    assert [{**row, "shown": False} for row in marked] == rows, "the file still holds all"
    for row in marked:
        assert row["shown"] == (row["score"] >= least[row["category_id"] - 1])
    assert 0 < sum(row["shown"] for row in marked) < len(marked)
    counted = sum(int(word) for word in re.findall(r"(\d+) (?:disc|square|triangle)", out))
    assert counted == sum(row["shown"] for row in marked)
    for name in ("all", "some"):
        assert len(list((tmp_path / name).glob("*.jpg"))) == 6
    first = sorted((tmp_path / "all").glob("*.jpg"))[0].name
    assert (tmp_path / "all" / first).read_bytes() != (tmp_path / "some" / first).read_bytes()


@pytest.mark.slow
def test_the_eval_json_of_a_training_has_thresholds(
    trained_resnet: Path, shapes: Path, tmp_path: Path, tool: Callable[..., tuple[int, str, str]]
) -> None:
    best, eval_file = trained_resnet / "checkpoints" / "best.pt", trained_resnet / "eval.json"
    code, _, err = tool("predict.py", best, shapes / "val", "--thresholds", eval_file, "--output", tmp_path / "out")
    assert code == 0, err
    classes = json.loads(eval_file.read_text(encoding="utf-8"))["thresholds"]["by_class"]
    chosen = {row["id"]: row["score"] for row in classes if row["score"] is not None}
    assert chosen, "the run must have found something"
    rows = json.loads((tmp_path / "out/detections.json").read_text(encoding="utf-8"))
    for row in rows:
        assert row["shown"] == (row["score"] >= chosen.get(row["category_id"], 0.3))
    assert any(row["shown"] for row in rows)


def test_class_without_a_threshold_is_shown_from_shown_score(trained: Path, shapes: Path, tmp_path: Path) -> None:
    names = [c["name"] for c in json.loads((shapes / "annotations/val.json").read_text())["categories"]]
    given = eval_json(tmp_path / "eval.json", [None, 1.0, 1.0], names)
    one = str(sorted((shapes / "val").iterdir())[0])
    predict(trained / "checkpoints" / "best.pt", [one], ["eval.shown_score=0.0"], tmp_path / "out", given)
    rows = json.loads((tmp_path / "out/detections.json").read_text(encoding="utf-8"))
    assert all(row["shown"] == (row["category_id"] == 1) for row in rows)


def test_thresholds_of_another_file_are_refused(trained: Path, shapes: Path, tmp_path: Path) -> None:
    best, one = trained / "checkpoints" / "best.pt", [str(shapes / "val")]
    (tmp_path / "old.json").write_text('{"metrics": {}}', encoding="utf-8")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    messages = {
        "old.json": r"--thresholds: .*old\.json holds no thresholds of each class",
        "list.json": r"list\.json: this is not an eval\.json",
    }
    for name, message in messages.items():
        with pytest.raises(DataError, match=message):
            predict(best, one, [], tmp_path / "out", tmp_path / name)
    given = eval_json(tmp_path / "eval.json", [0.1, 0.2, 0.3], ["disc", "cat", "triangle"])
    with pytest.raises(DataError, match=r"eval.json has classes that .*best.pt does not know: 2 cat\."):
        predict(best, one, [], tmp_path / "out", given)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=r"no such file"):
        predict(best, one, [], tmp_path / "out", tmp_path / "none.json")


def test_an_image_whose_name_is_no_text_is_left_out_and_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.png")
    for path in (odd, tmp_path / "a.png"):
        Image.new("RGB", (64, 64)).save(path)
    checkpoint = trained / "checkpoints" / "best.pt"
    with pytest.raises(DataError, match=r"images left out \(1 error\):\n.*is not UTF-8 text, .*; rename it"):
        predict(checkpoint, [str(odd), str(tmp_path / "a.png")], [], tmp_path / "out", formats=("coco", "csv"))
    assert (tmp_path / "out" / "detections.json").is_file()
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(DataError, match="set PYTHONUTF8=1"):
        check_name(odd)
