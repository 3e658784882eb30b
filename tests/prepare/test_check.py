"""`retinanet data check` on correct, incomplete and broken data sets."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from places import SHARED

from retinanet.errors import DataError
from retinanet.prepare.check import annotation_files, check_data_sets, find_image_folder

Tool = Callable[..., tuple[int, str, str]]
Edit = Callable[[str, Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def copied(shapes: Path, tmp_path: Path) -> Path:
    """A copy of the generated data set to break."""
    return Path(shutil.copytree(shapes, tmp_path / "set"))


@pytest.fixture
def edit(copied: Path) -> Edit:
    """edit(split, change) changes the content of annotations/<split>.json."""

    def edit_split(split: str, change: Callable[[dict[str, Any]], object]) -> None:
        path = copied / "annotations" / f"{split}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return edit_split


def test_a_correct_set_is_described(tool: Tool, shapes: Path) -> None:
    code, out, err = tool("prepare_data.py", "check", shapes)
    assert (code, err) == (0, "")
    for split, count in (("train", 12), ("val", 6)):
        assert f"{shapes / 'annotations' / split}.json: {count} images (" in out
        assert f"images in {shapes / split}\n" in out
    table = [line.split() for line in out.splitlines() if line.startswith(("objects", "disc", "square", "triangle"))]
    assert table[0] == ["objects", "train", "val"]
    assert {row[0] for row in table[1:]} == {"disc", "square", "triangle"}
    for column, split in ((1, "train"), (2, "val")):
        content = json.loads((shapes / "annotations" / f"{split}.json").read_text(encoding="utf-8"))
        assert sum(int(row[column]) for row in table[1:]) == len(content["annotations"])
    assert re.search(rf"no errors found in 2 annotation files\ntrain with: python .*train.py own data={shapes}\n", out)
    assert "note:" not in out


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (12, "there is no val split: 2 of 12 images are held out"),
        (1, "train.json: has 1 image; two are needed to hold one out"),
    ],
)
def test_the_split_that_a_training_will_make_is_reported(
    tool: Tool, copied: Path, edit: Edit, images: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINANET_CACHE", str(copied / "cache"))

    def keep(content: dict[str, Any]) -> None:
        content["images"] = content["images"][:images]
        kept = {row["id"] for row in content["images"]}
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]

    edit("train", keep)
    code, out, _ = tool("prepare_data.py", "check", copied / "annotations" / "train.json")
    assert code == 0
    assert message in out
    assert ("train with:" in out) == (images > 1)


def test_one_file_with_its_images_elsewhere(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "val").rename(tmp_path / "elsewhere")
    file = copied / "annotations/val.json"
    with pytest.raises(
        DataError, match=r"val\.json: its images, such as 000001\.jpg, are in none of .*--images FOLDER"
    ):
        check_data_sets(file)
    check_data_sets(file, tmp_path / "elsewhere")
    assert capsys.readouterr().out.endswith("no errors found in 1 annotation file\n")
    with pytest.raises(DataError, match="none: the image folder does not exist"):
        check_data_sets(file, tmp_path / "none")


def test_a_broken_file_does_not_hide_the_others(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "annotations/train.json").write_text('{"images": [', encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.json: not valid JSON at line 1"):
        check_data_sets(copied)
    out = capsys.readouterr().out
    assert "val.json: 6 images" in out
    assert "no errors found" not in out


def test_the_errors_of_all_files_are_reported(copied: Path, edit: Edit) -> None:
    edit("train", lambda content: content["images"][0].update(width=65))
    edit("val", lambda content: content["annotations"][0].update(category_id=77))
    with pytest.raises(DataError) as caught:
        check_data_sets(copied)
    for expected in ("train.json: this data set cannot be used (1 error)", "the JSON says 65 x 64", "val.json", "77"):
        assert expected in str(caught.value)


def test_damaged_pixels_are_found_on_request(copied: Path) -> None:
    path = copied / "val/000001.jpg"
    Image.effect_noise((64, 64), 80).save(path, "PNG")
    data = path.read_bytes()
    at = data.index(b"IDAT") + 4
    path.write_bytes(data[:at] + bytes(6) + data[at + 6 :])
    check_data_sets(copied)
    with pytest.raises(DataError, match=r"000001\.jpg.*cannot be decoded"):
        check_data_sets(copied, every_pixel=True)
    path.write_bytes(data[:-40])
    with pytest.raises(DataError, match=r"000001\.jpg.*truncated"):
        check_data_sets(copied)


@pytest.mark.parametrize("nested", [True, False])
def test_a_folder_without_annotations_is_an_error(tmp_path: Path, nested: bool) -> None:
    (tmp_path / "annotations").mkdir()
    if nested:
        (tmp_path / "annotations/names.json").write_text('["ant"]', encoding="utf-8")
    with pytest.raises(DataError, match=r"contains no annotation file.*retinanet data convert"):
        check_data_sets(tmp_path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        check_data_sets(tmp_path / "none.json")


def test_other_json_files_are_skipped_unless_they_are_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = copied / "annotations/detections.json"
    other.write_text("[]", encoding="utf-8")
    check_data_sets(copied)
    assert f"{other}: skipped" in capsys.readouterr().out
    with pytest.raises(DataError, match="is it a detections file"):
        check_data_sets(other)


def test_of_cocos_own_files_the_instances_are_checked(tmp_path: Path) -> None:
    for name in ("captions_val2017.json", "instances_train2017.json", "instances_val2017.json.gz", "notes.jsonl"):
        (tmp_path / name).touch()
    names = ["instances_train2017.json", "instances_val2017.json.gz"]
    assert [file.name for file in annotation_files(tmp_path)] == names


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/val.json", "val"),
        ("annotations/val.json", "images"),
        ("annotations/val.json", "images/val"),
        ("annotations/val.json", "val/images"),
        ("annotations/val.json", "annotations"),
        ("val.json", "."),
        ("val.json", "JPEGImages"),
    ],
)
def test_the_image_folder_is_found_in_the_usual_layouts(tmp_path: Path, file: str, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "b.jpg").touch()
    content = {"images": [{"file_name": "gone.jpg"}, {"file_name": "b.jpg"}]}
    assert find_image_folder(tmp_path / file, content) == tmp_path / folder


def test_files_that_do_not_belong_together_are_noted(
    copied: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("val", lambda content: content["categories"][0].update(name="circle"))
    shutil.copy(copied / "annotations/train.json", copied / "annotations/test.json")
    check_data_sets(copied, copied / "train")
    out = capsys.readouterr().out
    assert "val.json: its categories differ from those of test: only here" in out
    assert "12 images are in several files, for example 000001.jpg in test and train" in out


def test_classes_that_only_val_has_objects_of_are_noted(
    copied: Path, edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("train", lambda content: [row.update(category_id=1) for row in content["annotations"]])
    check_data_sets(copied)
    assert "note: val has objects of classes without any in train, which cannot be learned: " in capsys.readouterr().out


def test_many_classes_are_counted_together(copied: Path, edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    more = [{"id": 100 + number, "name": f"class {number}"} for number in range(30)]
    for split in ("train", "val"):
        edit(split, lambda content: content["categories"].extend(more))
    check_data_sets(copied)
    assert "13 more classes" in capsys.readouterr().out


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data folder next to the checkout")
@pytest.mark.parametrize(("name", "files"), [("bccd", 3), ("coco144", 2)])
def test_real_data_sets_have_no_errors(name: str, files: int, capsys: pytest.CaptureFixture[str]) -> None:
    check_data_sets(SHARED / name)
    out = capsys.readouterr().out
    assert out.endswith(f"no errors found in {files} annotation files\n")
    assert "note: test" not in out
