"""The command line: recognising a folder's format, converting it, and the command to train with."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retinanet.errors import DataError
from retinanet.prepare.conversion import find_format

XML = (
    "<annotation><size><width>60</width><height>40</height></size><object><name>ant</name>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
)
VOC = {"Annotations/a.xml": XML, "JPEGImages/a.jpg": ""}
YOLO = {"classes.txt": "ant", "images/a.jpg": "", "labels/a.txt": "0 0.5 0.5 0.5 0.5"}
Tool = Callable[..., tuple[int, str, str]]


def build(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jpg":
            Image.new("RGB", (60, 40), (9, 99, 199)).save(path)
        else:
            path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (VOC, "voc"),
        ({"a.xml": XML, "a.jpg": ""}, "voc"),
        ({**VOC, "classes.txt": "ant"}, "voc"),
        (YOLO, "yolo"),
        ({"data.yaml": "names: [ant]"}, "yolo"),
        ({"classes.txt": "ant", "a.txt": "", "a.jpg": ""}, "yolo"),
    ],
)
def test_a_format_is_recognised_by_its_label_files(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert find_format(build(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**VOC, **YOLO}, "has both .*retinanet data voc .* or retinanet data yolo"),
        ({"a.xml": XML, "classes.txt": "ant", "a.txt": ""}, "has both"),
        ({"a.jpg": ""}, "neither .*check the path"),
        ({"VOC2007/Annotations/a.xml": XML, "other/a.jpg": ""}, "there are labels in .*VOC2007; give that folder"),
        ({"annotations/train.json": "{}"}, "retinanet data check"),
    ],
)
def test_other_folders_are_refused_with_what_was_found(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_format(build(tmp_path, files))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_format(tmp_path / "none")


@pytest.mark.parametrize(("named", "files"), [("voc", VOC), ("yolo", YOLO)])
@pytest.mark.parametrize("recognised", [True, False])
def test_the_command_line_converts_and_prints_how_to_train(
    tool: Tool, tmp_path: Path, named: str, files: dict[str, str], recognised: bool
) -> None:
    command = "convert" if recognised else named
    arguments = (command, build(tmp_path / "set", files), "--output", tmp_path / "out")
    code, out, err = tool("prepare_data.py", *arguments)
    assert (code, err) == (0, "")
    assert out.startswith("all: 1 image (0 without objects), 1 box ")
    assert "There is no val split. Add --hold-out 0.2" in out
    assert out.splitlines()[-1] == f"retinanet train own data={tmp_path / 'set'}"
    code, out, err = tool("prepare_data.py", *arguments)
    assert (code, out) == (3, "")
    assert "--overwrite" in err


def test_errors_and_options_reach_the_command_line(tool: Tool, tmp_path: Path) -> None:
    folder = build(tmp_path / "set", {**YOLO, "labels/a.txt": "0 0 0.5 0.5 0.5"})
    code, out, err = tool("prepare_data.py", "convert", folder, "--output", tmp_path / "out")
    assert (code, out) == (3, "")
    assert err.startswith(f"error: {folder}: cannot be converted from YOLO (1 error)")
    assert tool("prepare_data.py", "convert", folder, "--output", tmp_path / "out", "--clip")[0] == 0


def test_options_of_the_other_format_are_refused(tool: Tool, tmp_path: Path) -> None:
    arguments = ("convert", build(tmp_path / "set", YOLO), "--output", tmp_path / "out", "--classes", "ant")
    code, _, err = tool("prepare_data.py", *arguments, "--zero-based")
    assert code == 2
    assert "--classes, --zero-based is for Pascal VOC only" in err


def test_generated_shapes_name_the_command_to_train_with(tool: Tool, tmp_path: Path) -> None:
    arguments = ("--output", tmp_path / "set", "--train", 2, "--val", 1, "--size", 64, 64)
    code, out, err = tool("prepare_data.py", "shapes", *arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"ready; train with: retinanet train quickstart data.root={tmp_path / 'set'}"


@pytest.mark.parametrize("command", ["fetch", "coco"])
def test_fetch_and_its_former_name_download_coco(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    calls: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr("retinanet.prepare.fetch.fetch_coco", lambda root, splits: calls.append((root, splits)))
    code, out, _ = tool("prepare_data.py", command, "--root", tmp_path, "--splits", "val")
    assert code == 0
    assert calls == [(tmp_path, ["val"])]
    assert out == f"ready; train with: retinanet train coco/r50_600_1x data.root={tmp_path}\n"
