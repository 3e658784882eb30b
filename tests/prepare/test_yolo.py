"""YOLO folders on disk, converted."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.yolo import convert_yolo

YAML = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: ant\n  1: bee\n"


def build(folder: Path, files: dict[str, str]) -> Path:
    """Write files: pictures of 200 x 100 pixels for the names of images, otherwise text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png"):
            Image.new("RGB", (200, 100), (9, 99, 199)).save(path)
        else:
            path.write_text(text, encoding="utf-8")
    return folder


def content(path: Path) -> dict[str, Any]:
    read = read_json(path)
    assert isinstance(read, dict)
    return read


def bboxes(path: Path) -> list[list[float]]:
    return [annotation["bbox"] for annotation in content(path)["annotations"]]


def small(folder: Path, label: str, description: str = YAML) -> Path:
    files = {"images/train/a.jpg": "", "labels/train/a.txt": label, "images/val/b.jpg": "", "labels/val/b.txt": ""}
    return build(folder, {"data.yaml": description, **files})


def test_mirrored_folders_become_one_file_a_split(tmp_path: Path) -> None:
    folder = build(
        tmp_path / "set",
        {
            "data.yaml": YAML,
            "images/train/a.jpg": "", "labels/train/a.txt": "1 0.5 0.5 0.2 0.4\n\n0 0.05 0.1 0.1 0.2\n",
            "images/train/deep/c.png": "", "labels/train/deep/c.txt": "0 0.5 0.5 1 1",
            "images/train/empty.jpg": "",
            "images/val/b.jpg": "", "labels/val/b.txt": "",
        },
    )  # fmt: skip
    written = convert_yolo(folder, tmp_path / "out")
    assert [(split.name, split.images) for split in written] == [
        ("train", folder / "images/train"),
        ("val", folder / "images/val"),
    ]
    train = content(tmp_path / "out/train.json")
    assert [image["file_name"] for image in train["images"]] == ["a.jpg", "deep/c.png", "empty.jpg"]
    assert [(image["height"], image["width"]) for image in train["images"]] == [(100, 200)] * 3
    assert bboxes(tmp_path / "out/train.json") == [[80, 30, 40, 40], [0, 0, 20, 20], [0, 0, 200, 100]]
    assert [annotation["category_id"] for annotation in train["annotations"]] == [2, 1, 1]
    assert [(c["id"], c["name"]) for c in train["categories"]] == [(1, "ant"), (2, "bee")]
    assert [image["file_name"] for image in content(tmp_path / "out/val.json")["images"]] == ["b.jpg"]


def test_labels_next_to_images_with_classes_txt(tmp_path: Path) -> None:
    files = {"classes.txt": "ant\nbee\n\n", "a.jpg": "", "a.txt": "1 0.5 0.5 0.5 0.5", "b.jpg": ""}
    (split,) = convert_yolo(build(tmp_path / "set", files), tmp_path / "out")
    assert (split.name, split.images) == ("all", tmp_path / "set")
    assert bboxes(tmp_path / "out/all.json") == [[50, 25, 100, 50]]


def test_polygons_become_the_box_around_them(tmp_path: Path) -> None:
    convert_yolo(small(tmp_path / "set", "0 0.1 0.2 0.5 0.9 0.3 0.1"), tmp_path / "out")
    assert bboxes(tmp_path / "out/train.json") == [[20, 10, 80, 80]]


def test_rounding_at_the_border_is_cut(tmp_path: Path) -> None:
    convert_yolo(small(tmp_path / "set", "0 0.499 0.5 1.001 1"), tmp_path / "out")
    assert bboxes(tmp_path / "out/train.json") == [[0, 0, 199.9, 100]]


def test_clipping_cuts_what_leaves_the_image(tmp_path: Path) -> None:
    folder = small(tmp_path / "set", "0 0 0.5 0.5 0.5")
    with pytest.raises(DataError, match="--clip"):
        convert_yolo(folder, tmp_path / "out")
    convert_yolo(folder, tmp_path / "out", clip=True)
    assert bboxes(tmp_path / "out/train.json") == [[0, 25, 50, 50]]


def test_a_box_outside_the_image_is_no_box_to_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a corner is 110, which no fraction .* are these pixels"):
        convert_yolo(small(tmp_path / "pixels", "0 100 50 20 20"), tmp_path / "out", clip=True)
    with pytest.raises(DataError, match="'50%' is not a number but a percentage"):
        convert_yolo(small(tmp_path / "percent", "0 50% 50% 20% 20%"), tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("[no, 007]", ["no", "007"]),
        ("[yes, 2.50]", ["yes", "2.50"]),
        ("{'0': ant, '1': bee}", ["ant", "bee"]),
        ("{bee: 1, ant: 0}", ["ant", "bee"]),
        ("{1: 7, 0: 8}", ["8", "7"]),
    ],
)
def test_names_are_the_texts_that_are_written(tmp_path: Path, names: str, classes: list[str]) -> None:
    convert_yolo(small(tmp_path / "set", "", f"names: {names}\ntrain: images/train"), tmp_path / "out")
    assert [category["name"] for category in content(tmp_path / "out/train.json")["categories"]] == classes


@pytest.mark.parametrize("suffix", [".gif", ".JPG", ".tga", ".jp2"])
def test_images_of_every_format_that_is_read_are_found(tmp_path: Path, suffix: str) -> None:
    folder = small(tmp_path / "set", "0 0.5 0.5 0.5 0.5")
    Image.new("RGB", (200, 100)).save(folder / f"images/train/a{suffix}")
    (folder / "images/train/a.jpg").unlink()
    convert_yolo(folder, tmp_path / "out")
    assert [image["file_name"] for image in content(tmp_path / "out/train.json")["images"]] == [f"a{suffix}"]


def test_a_split_of_unread_images_names_their_kind(tmp_path: Path) -> None:
    folder = small(tmp_path / "set", "0 0.5 0.5 0.5 0.5")
    (folder / "images/train/a.jpg").rename(folder / "images/train/a.HEIC")
    with pytest.raises(DataError, match=r"no image in .*, but 1 file in formats that are not read \(1 HEIC\)"):
        convert_yolo(folder, tmp_path / "out")


def test_every_error_comes_in_one_list_with_its_line(tmp_path: Path) -> None:
    lines = [
        "0 0.5 0.5 0.5 0.5", "2 0.5 0.5 0.5 0.5", "-1 0.5 0.5 0.5 0.5", "wasp 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 0.5 0.9", "0 0.5 nan 0.5 0.5", "0 0.5 0.5 -0.5 0.5", "0 60 50 20 20", "0 0.5 0.5 0.5 half",
        "9" * 5000 + " 0.5 0.5 0.5 0.5",
    ]  # fmt: skip
    folder = small(tmp_path / "set", "\n".join(lines))
    build(folder, {"labels/train/lost.txt": "0 0.5 0.5 0.5 0.5", "labels/val/b.txt": "1 1"})
    (folder / "images/val/c.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        convert_yolo(folder, tmp_path / "out")
    message = str(caught.value)
    assert "(10 errors)" in message
    for number in (2, 3, 4, 5, 7, 9, 10, 11):
        assert f"{folder / 'labels/train/a.txt'}:{number}: " in message
    assert "a.txt:1: " not in message
    assert "a.txt:6: " not in message, "a confidence is noted"
    for expected in ("b.txt:1: 2 values", str(folder / "images/val/c.jpg")):
        assert expected in message
    assert not (tmp_path / "out").exists()


def test_a_split_without_any_label_file_is_an_error(tmp_path: Path) -> None:
    folder = build(tmp_path / "set", {"classes.txt": "ant", "images/a.jpg": "", "images/b.jpg": ""})
    with pytest.raises(DataError, match="none of 2 images has a label file"):
        convert_yolo(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("names: [ant, ~]\ntrain: images/train", "class 1 is None"),
        ("names: ant, bee\ntrain: images/train", "such as names: .cat, dog.; found 'ant, bee'"),
        ("", "empty, or larger"),
        ("names: [ant, bee]\nnc: 3\ntrain: images/train", "nc is 3 but names has 2"),
        ("names: {0: ant, 2: bee}\ntrain: images/train", "without a gap, found 0, 2"),
        ("names: {0: ant, 0: bee}\ntrain: images/train", "key 0 is given more than once"),
        ("train: images/train", "names must list the classes"),
        ("names: [ant, bee]\ntrain: ../other/images", "--split train=PATH"),
        ("names: [ant, bee]\npath: /\ntrain: images/tain", "no /images/tain"),
        ("names: [ant, bee]\ntrain: images/train\nkpt_shape: [2]", "kpt_shape must be"),
        ("names: [ant, bee]\ntrain: images/tain", "no .*images/tain"),
        ("names: [ant, bee]\ntrain: 7", "expected a path, found 7"),
        ("names: [ant, bee]\ntrain: images/tain", r"there is images.train and images.val"),
        ("names: [ant, bee\n", "cannot be read as YAML: line 2"),
        ("names: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
        ("a: &a [x]\nnames: *a\ntrain: images/train", "without aliases"),
        ("? [a, b]\n: c\nnames: [ant, bee]\ntrain: images/train", "cannot be read as YAML"),
        ("names: [ant, ant]\ntrain: images/train", "class 'ant' is listed twice"),
        ("just text", "expected keys"),
        ("[" * 100_000, "nested at most"),
        ("names: [ant, 2024-13-45]\ntrain: images/train", "cannot be read as YAML"),
    ],
)
def test_invalid_descriptions_are_explained(tmp_path: Path, description: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        convert_yolo(small(tmp_path / "set", "0 0.5 0.5 0.5 0.5", description), tmp_path / "out")


FOREIGN = "1 path is written for another place in data.yaml: those here are used; for example "
KEY_POINTS = "1 line has key points (kpt_shape), which are left out"


@pytest.mark.parametrize(
    ("description", "note"),
    [
        ("names: [ant, bee]", "data.yaml names no split, so the folders' names do: train, val"),
        (
            "names: [ant, bee]\npath: /\ntrain: images/train",
            FOREIGN + "images/train is ",
        ),
        (
            "names: [ant, bee]\ntrain: C:\\set\\images\\train",
            FOREIGN + "C:",
        ),
        (
            "names: [ant, bee]\ntrain: /kaggle/input/set/images/train",
            FOREIGN + "/kaggle",
        ),
    ],
)
def test_paths_of_another_place_are_found_in_the_folder(tmp_path: Path, description: str, note: str) -> None:
    folder = small(tmp_path / "set", "0 0.5 0.5 0.5 0.5", description)
    written = convert_yolo(folder, tmp_path / "out")
    assert f"note: {note}" in written[-1].summary
    assert [annotation["category_id"] for annotation in content(tmp_path / "out/train.json")["annotations"]] == [1]


@pytest.mark.parametrize(
    ("lines", "description", "boxes", "note"),
    [
        (
            "0 0.5 0.5 0.4 0.4 0.5 0.6 2 0.4 0.4 1",
            "kpt_shape: [2, 3]",
            [[60, 30, 80, 40]],
            KEY_POINTS,
        ),
        (
            "0 0.5 0.5 0.4 0.4 0.5 0.6 0.4 0.4",
            "kpt_shape: [2, 2]",
            [[60, 30, 80, 40]],
            KEY_POINTS,
        ),
        ("0 0.5 0.5 0.4 0.4 0.93", "", [[60, 30, 80, 40]], "1 line has a confidence, which is left out"),
        ("0.0 0.5 0.5 0.4 0.4", "", [[60, 30, 80, 40]], ""),
        ("0.000000e+00 5.0e-01 0.5 0.4 0.4", "", [[60, 30, 80, 40]], ""),
        ("0, 0.5, 0.5, 0.4, 0.4", "", [[60, 30, 80, 40]], ""),
        (
            "0 0.5 0.5 0.4 0.4 0.93 1\n0 0.5 0.5 0.4 0.4 0.81 17",
            "",
            [[60, 30, 80, 40]] * 2,
            "2 lines have a confidence and the number of a track, which are left out",
        ),
        ("0 0.3 0.3 0.7 0.3 0.7 1", "", [[60, 30, 80, 70]], ""),
        ("0 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8", "", [[20, 20, 80, 60]], ""),
        ("0 0,5 0,5 0,4 0,400", "", [[60, 30, 80, 40]], "4 numbers have a decimal comma; for example 0,5"),
        ("0,0.5,0.5,0.4,0.4", "", [[60, 30, 80, 40]], ""),
        ("ant 0.5 0.5 0.4 0.4", "", [[60, 30, 80, 40]], "1 line has the names of classes"),
        ("ant\t0.5 0.5 0.4 0.4\r\n", "", [[60, 30, 80, 40]], ""),
        ("# class cx cy w h\n0 0.5 0.5 0.4 0.4", "", [[60, 30, 80, 40]], "1 line begins with #"),
        ("0 0.5 0.5 -0.4 0.4", 'nc: "1"', [[60, 30, 80, 40]], "1 box has a negative width or height, which is read"),
    ],
)
def test_lines_of_other_kinds(
    tmp_path: Path, lines: str, description: str, boxes: list[list[float]], note: str
) -> None:
    folder = small(tmp_path / "set", lines, f"names: [ant]\ntrain: images/train\n{description}")
    written = convert_yolo(folder, tmp_path / "out")
    assert bboxes(tmp_path / "out/train.json") == boxes
    assert note in written[-1].summary


def test_key_points_without_their_shape_are_not_taken_for_polygons(tmp_path: Path) -> None:
    pose = "0 0.5 0.5 0.4 0.4 0.5 0.6 0.4 0.4 0.6 0.4"
    with pytest.raises(DataError, match=r"key points, not polygons\. Add kpt_shape"):
        convert_yolo(small(tmp_path / "set", "\n".join([pose] * 3)), tmp_path / "out")
    polygons = ["0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4 0.1 0.3"] * 3
    convert_yolo(small(tmp_path / "other", "\n".join(polygons)), tmp_path / "out")


def test_files_without_their_counterpart_are_counted(tmp_path: Path) -> None:
    folder = small(tmp_path / "set", "0 0.5 0.5 0.5 0.5")
    build(folder, {"labels/train/lost.txt": "0 0.5 0.5 0.5 0.5", "images/train/plain.jpg": ""})
    summary = convert_yolo(folder, tmp_path / "out")[-1].summary
    assert "note: 1 label file has no image, and is left out; " in summary
    assert "note: 1 image has no label file, and is read as empty; " in summary


def test_given_splits_may_lie_outside_the_folder(tmp_path: Path) -> None:
    folder = build(tmp_path / "set", {"data.yaml": "names: [ant]\ntrain: ../elsewhere/images\n"})
    other = build(tmp_path / "elsewhere", {"images/a.jpg": "", "labels/a.txt": "0 0.5 0.5 0.5 0.5"})
    (split,) = convert_yolo(folder, tmp_path / "out", {"train": other / "images"})
    assert split.images == other / "images"
    assert bboxes(tmp_path / "out/train.json") == [[50, 25, 100, 50]]


def test_a_split_may_be_a_list_of_images_or_of_folders(tmp_path: Path) -> None:
    folder = build(
        tmp_path / "set",
        {
            "data.yaml": "names: [ant]\ntrain: train.txt\nval: [images/x, images/y]\n",
            "train.txt": "./images/x/a.jpg\nimages/y/b.jpg\n",
            "images/x/a.jpg": "", "labels/x/a.txt": "0 0.5 0.5 0.5 0.5", "images/y/b.jpg": "",
        },
    )  # fmt: skip
    convert_yolo(folder, tmp_path / "out")
    for split in ("train", "val"):
        names = [image["file_name"] for image in content(tmp_path / f"out/{split}.json")["images"]]
        assert names == ["x/a.jpg", "y/b.jpg"]
    build(folder, {"train.txt": "../outside.jpg\nimages/x/lost.jpg\nimages/x/a.jpg"})
    with pytest.raises(DataError) as caught:
        convert_yolo(folder, tmp_path / "other")
    assert "train.txt:1: no image ../outside.jpg" in str(caught.value)
    assert "train.txt:2: no image" in str(caught.value)


@pytest.mark.parametrize("split", ["train", "val"])
def test_folders_named_after_splits_need_no_data_yaml(tmp_path: Path, split: str) -> None:
    place = "valid" if split == "val" else split
    files = {"classes.txt": "ant", f"{place}/images/a.jpg": "", f"{place}/labels/a.txt": "0 0.5 0.5 0.5 0.5"}
    (written,) = convert_yolo(build(tmp_path / "set", files), tmp_path / "out")
    assert written.name == split
    assert len(bboxes(written.annotations)) == 1


def test_a_folder_without_class_names_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data\.yaml, obj\.names or classes\.txt"):
        convert_yolo(build(tmp_path / "set", {"a.jpg": ""}), tmp_path / "out")
    with pytest.raises(DataError, match="no such folder"):
        convert_yolo(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "boxes", "message"),
    [
        ("0 0.3 0.2 0.9 0.9", [60, 20, 120, 70], "boxes are read as two corners, class x1 y1 x2 y2"),
        ("0 0.1 0.6 0.5 0.3", [20, 60, 100, 30], "boxes are read as a corner and a size, class x1 y1 w h"),
        ("0 0.1 0.1 0.6 0.7", None, "two corners, class x1 y1 x2 y2 or a corner and a size"),
    ],
)
def test_boxes_that_are_no_centres_as_a_whole(
    tmp_path: Path, lines: str, boxes: list[float] | None, message: str
) -> None:
    folder = small(tmp_path / "set", "\n".join([lines] * 5))
    if boxes is None:
        with pytest.raises(DataError, match=message):
            convert_yolo(folder, tmp_path / "out")
    else:
        written = convert_yolo(folder, tmp_path / "out")
        assert bboxes(tmp_path / "out/train.json") == [boxes] * 5
        assert message in written[-1].summary


def test_a_list_of_names_and_classes_of_label_studio(tmp_path: Path) -> None:
    files = {"images/a.jpg": "", "images/b.jpg": "", "labels/a.txt": "1 0.5 0.5 0.4 0.4", "labels/b.txt": ""}
    notes = '{"categories": [{"id": 1, "name": "bee"}, {"id": 0, "name": "ant"}]}'
    folder = build(tmp_path / "set", {**files, "notes.json": notes, "train.txt": "b\na\n"})
    written = convert_yolo(folder, tmp_path / "out", {"train": folder / "train.txt"})
    assert [row["name"] for row in content(tmp_path / "out/train.json")["categories"]] == ["ant", "bee"]
    assert bboxes(tmp_path / "out/train.json") == [[60, 30, 80, 40]]
    assert "notes.json" in written[-1].summary


def test_images_that_share_a_label_file_are_noted(tmp_path: Path) -> None:
    folder = build(small(tmp_path / "set", "0 0.5 0.5 0.4 0.4"), {"images/train/a.png": ""})
    assert "2 images share a label file" in convert_yolo(folder, tmp_path / "out")[-1].summary


@pytest.mark.parametrize(
    ("name", "text"), [("labels/classes.txt", "ant\n"), ("cfg/data.yaml", "path: ..\ntrain: images\nnames: [ant]\n")]
)
def test_classes_are_found_in_a_subfolder(tmp_path: Path, name: str, text: str) -> None:
    files = {"images/a.jpg": "", "labels/a.txt": "0 0.5 0.5 0.4 0.4", name: text}
    written = convert_yolo(build(tmp_path / "set", files), tmp_path / "out")
    assert [row["name"] for row in content(written[0].annotations)["categories"]] == ["ant"]
    assert f"the classes are those of {name}" in written[-1].summary
