"""Data sets as labelling programs export them: each is recognised, and gives the same boxes."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet.data.coco import load_coco
from retinanet.errors import DataError
from retinanet.prepare.recognise import CocoFiles, read_any, split_of
from retinanet.prepare.source import Source, open_source

SIZE = (64, 48)
"""Width and height of every image."""
BOX = (8.0, 6.0, 38.0, 30.0)
"""Corners of the object of class dog in each."""
WANTED = [8.0, 6.0, 30.0, 24.0]


def image(folder: Path, name: str = "a.jpg", colour: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (colour, 9, 9)).save(folder / name)
    return folder / name


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def coco(*names: str) -> dict[str, Any]:
    return {
        "images": [{"id": n, "file_name": name, "width": 64, "height": 48} for n, name in enumerate(names, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": WANTED, "area": 720, "iscrowd": 0}
            for n in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }


YOLO_LINE = f"0 {23 / 64} {18 / 48} {30 / 64} {24 / 48}\n"
XML = (
    "<annotation><filename>a.jpg</filename><size><width>64</width><height>48</height></size><object><name>dog</name>"
    "<bndbox><xmin>9</xmin><ymin>7</ymin><xmax>38</xmax><ymax>30</ymax></bndbox></object></annotation>"
)


def roboflow_coco(root: Path) -> None:
    for colour, split in enumerate(("train", "valid", "test")):
        image(root / split, f"{split}.jpg", colour)
        write(root / split / "_annotations.coco.json", coco(f"{split}.jpg"))


def cvat_coco(root: Path) -> None:
    for colour, name in enumerate(("a.jpg", "b.jpg")):
        image(root / "images" / "default", name, colour)
    write(root / "annotations" / "instances_default.json", coco("a.jpg", "b.jpg"))


def label_studio_coco(root: Path) -> None:
    for colour, name in enumerate(("a.jpg", "b.jpg")):
        image(root / "images", name, colour)
    write(root / "result.json", coco("images/a.jpg", "images/b.jpg"))


def label_studio_yolo(root: Path) -> None:
    for colour, name in enumerate(("a", "b")):
        image(root / "images", f"{name}.jpg", colour)
        write(root / "labels" / f"{name}.txt", YOLO_LINE)
    write(root / "classes.txt", "dog\n")
    write(root / "notes.json", {"categories": [{"id": 0, "name": "dog"}], "info": {}})


def roboflow_yolo(root: Path) -> None:
    for colour, split in enumerate(("train", "valid")):
        image(root / split / "images", f"{split}.jpg", colour)
        write(root / split / "labels" / f"{split}.txt", YOLO_LINE)
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['dog']\n")


def ultralytics(root: Path) -> None:
    for colour, split in enumerate(("train", "val")):
        image(root / "images" / split, f"{split}.jpg", colour)
        write(root / "labels" / split / f"{split}.txt", YOLO_LINE)
    write(root / "set.yaml", "path: C:\\work\\set\ntrain: images\\train\nval: images\\val\nnames: {0: dog}\n")


def darknet(root: Path) -> None:
    for colour, name in enumerate(("a", "b")):
        image(root / "obj_train_data", f"{name}.jpg", colour)
        write(root / "obj_train_data" / f"{name}.txt", YOLO_LINE)
    write(root / "obj.names", "dog\n")
    write(root / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(root / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")


def label_img(root: Path) -> None:
    for colour, name in enumerate(("a", "b")):
        image(root, f"{name}.jpg", colour)
        write(root / f"{name}.xml", XML.replace("a.jpg", f"{name}.jpg"))


def roboflow_voc(root: Path) -> None:
    for colour, split in enumerate(("train", "valid")):
        image(root / split, f"{split}.jpg", colour)
        write(root / split / f"{split}.xml", XML.replace("a.jpg", f"{split}.jpg"))


def via(root: Path) -> None:
    shape = {"name": "rect", "x": 8, "y": 6, "width": 30, "height": 24}
    corners = {"name": "polygon", "all_points_x": [8, 38, 20], "all_points_y": [6, 10, 30]}
    content = {
        f"{name}{colour}": {
            "filename": f"{name}.jpg",
            "size": 9,
            "regions": [{"shape_attributes": found, "region_attributes": {"kind": "dog"}}],
        }
        for colour, (name, found) in enumerate((("a", shape), ("b", corners)))
    }
    for colour, name in enumerate(("a", "b")):
        image(root, f"{name}.jpg", colour)
    write(root / "via_project.json", {"_via_settings": {}, "_via_img_metadata": content})


def labelme(root: Path) -> None:
    shapes = (
        {"label": "dog", "points": [[38, 30], [8, 6]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[8, 6], [38, 10], [20, 30]], "shape_type": "polygon"},
    )
    for colour, (name, shape) in enumerate(zip("ab", shapes, strict=True)):
        image(root, f"{name}.jpg", colour)
        content = {"version": "5", "imagePath": f"..\\elsewhere\\{name}.jpg", "shapes": [shape], "imageData": None}
        write(root / f"{name}.json", content)


def table(root: Path) -> None:
    for colour, name in enumerate(("a", "b")):
        image(root / "images", f"{name}.jpg", colour)
    rows = [f"{name}.jpg,64,48,dog,8,6,38,30" for name in "ab"]
    write(root / "_annotations.csv", "\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *rows]))


FORMATS = {
    "roboflow_coco": (roboflow_coco, "given"),
    "cvat_coco": (cvat_coco, "made"),
    "label_studio_coco": (label_studio_coco, "made"),
    "label_studio_yolo": (label_studio_yolo, "made"),
    "roboflow_yolo": (roboflow_yolo, "given"),
    "darknet": (darknet, "made"),
    "label_img": (label_img, "made"),
    "roboflow_voc": (roboflow_voc, "given"),
    "via": (via, "made"),
    "labelme": (labelme, "made"),
    "table": (table, "made"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def check(source: Source) -> None:
    """Both splits have an image with the object, and the images are where the files say."""
    names = set()
    for part in (source.train, source.val):
        content = json.loads(part.annotations.read_text())
        assert [row["bbox"] for row in content["annotations"]] == [WANTED] * len(content["images"])
        assert [row["name"] for row in content["categories"]] == ["dog"]
        assert all((part.images / row["file_name"]).is_file() for row in content["images"])
        names |= {part.images / row["file_name"] for row in content["images"]}
    assert len(names) == 2, "no image is on both sides"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_export_is_recognised_and_divided_where_needed(name: str, packed: bool, tmp_path: Path) -> None:
    make, val = FORMATS[name]
    root = tmp_path / "set"
    make(root)
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, Path("export") / file.relative_to(root))
            archive.writestr("__MACOSX/export/._a.json", b"\0")
    source = open_source(tmp_path / "set.zip" if packed else root, 0.5)
    check(source)
    assert (source.divided is not None) == (val == "made")
    assert open_source(tmp_path / "set.zip" if packed else root, 0.5) == source, "the cache gives the same"


def test_a_described_file_is_enough(tmp_path: Path) -> None:
    ultralytics(tmp_path / "set")
    source = open_source(tmp_path / "set" / "set.yaml", 0.5)
    check(source)
    assert any(
        "2 paths are written for another place in set.yaml: those here are used" in line for line in source.lines
    )


def test_a_changed_file_is_read_again_and_a_lost_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    darknet(tmp_path / "set")
    first = open_source(tmp_path / "set", 0.5)
    write(tmp_path / "set" / "obj_train_data" / "a.txt", YOLO_LINE * 2)
    second = open_source(tmp_path / "set", 0.5)
    assert first.train != second.train
    for file in sorted(cache.rglob("*.json")):
        file.unlink()
    assert open_source(tmp_path / "set", 0.5) == second


@pytest.mark.parametrize("lost", ["source.json", "train.json", "unpacked.json", "unpacked/export/a.jpg"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_cache_is_made_again(lost: str, damage: str, tmp_path: Path, cache: Path) -> None:
    label_img(tmp_path / "export")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "export").iterdir()):
            archive.write(file, Path("export") / file.name)
    first = open_source(tmp_path / "set.zip", 0.5)
    (file,) = cache.glob(f"data/*/{lost}")
    if damage == "gone" or file.suffix == ".jpg":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert open_source(tmp_path / "set.zip", 0.5) == first
    check(first)


def nothing(archive: zipfile.ZipFile) -> None:
    """An archive without files."""


def two_of_a_name(archive: zipfile.ZipFile) -> None:
    archive.writestr("a", "x")
    archive.writestr("a/b", "x")


def long_name(archive: zipfile.ZipFile) -> None:
    archive.writestr("a" * 300, "x")


def another(archive: zipfile.ZipFile) -> None:
    archive.writestr("inner.zip", b"x")


def wrong_label(archive: zipfile.ZipFile) -> None:
    archive.writestr("obj.names", "dog")
    archive.writestr("train.txt", "lost.jpg")
    archive.writestr("other.jpg", "")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (nothing, "set.zip: an archive without files"),
        (two_of_a_name, "set.zip: a name in it cannot be that of a file here"),
        (long_name, "set.zip: a name in it cannot be that of a file here"),
        (another, "set.zip: no data set is recognised.* There: inner.zip, an archive"),
        (wrong_label, "set.zip/train.txt:1: no image lost.jpg"),
    ],
)
def test_errors_of_an_archive_name_it_and_not_the_cache(
    fill: Callable[[zipfile.ZipFile], None], message: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        fill(archive)
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / "set.zip", 0.5)
    assert "cache" not in str(caught.value)


def test_other_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "set.tar.gz", "x")
    with pytest.raises(DataError, match="of the archives only"):
        open_source(tmp_path / "set.tar.gz", 0.5)


def test_copies_of_one_image_cannot_be_divided(tmp_path: Path, cache: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        image(tmp_path / "set", name)
    write(tmp_path / "set/a.json", coco("a.jpg", "b.jpg"))
    with pytest.raises(DataError, match="its 2 images are copies of one"):
        open_source(tmp_path / "set", 0.5)


def test_nan_is_a_value_that_is_missing(tmp_path: Path, cache: Path) -> None:
    names = ["a.jpg", "b.jpg"]
    content = coco(*names)
    for n, row in enumerate(content["annotations"]):
        image(tmp_path, names[n], 20 * n)
        row["area"] = float("nan")
    write(tmp_path / "a.json", content)
    source = open_source(tmp_path, 0.5)
    assert len(load_coco(source.val.annotations, source.val.images).images) == 1


def test_a_val_split_without_annotations_is_not_passed_over(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        image(tmp_path / split)
        write(tmp_path / split / "_annotations.coco.json", coco("a.jpg"))
    content = coco("a.jpg")
    del content["annotations"]
    write(tmp_path / "valid/_annotations.coco.json", content)
    with pytest.raises(DataError, match=r"valid.*has images but no 'annotations'"):
        read_any(tmp_path)


def test_images_that_are_still_packed_are_pointed_to(tmp_path: Path) -> None:
    write(tmp_path / "a.json", coco("a.jpg"))
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    with pytest.raises(DataError, match=r"unpack pictures\.zip there, or give"):
        read_any(tmp_path)


def test_one_image_cannot_be_divided(tmp_path: Path) -> None:
    image(tmp_path / "set")
    write(tmp_path / "set" / "a.xml", XML)
    with pytest.raises(DataError, match=r"set: has 1 image; two are needed"):
        open_source(tmp_path / "set", 0.5)


def test_yolo_boxes_that_leave_their_image_are_cut_and_noted(tmp_path: Path) -> None:
    darknet(tmp_path / "set")
    write(tmp_path / "set" / "obj_train_data" / "a.txt", "0 0.1 0.5 0.6 0.5")
    source = open_source(tmp_path / "set", 0.5)
    assert any("1 box is cut at the border of" in line for line in source.lines)


def test_test_is_evaluated_on_where_there_is_no_val(tmp_path: Path) -> None:
    roboflow_coco(tmp_path / "set")
    (tmp_path / "set" / "valid" / "_annotations.coco.json").unlink()
    source = open_source(tmp_path / "set", 0.5)
    assert source.val.annotations.parent.name == "test"
    assert source.test is None
    assert "there is no val split: the test split is evaluated on" in source.lines


@pytest.mark.parametrize(
    ("place", "split"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("my-test-set.json", "test"),
        ("a.json", None),
        ("train_and_val.json", None),
        ("training/labels.json", "train"),
    ],
)
def test_names_say_which_split_a_file_is(place: str, split: str | None) -> None:
    assert split_of(Path("set") / place, Path("set")) == split


def two_files(root: Path) -> None:
    for name in ("a.json", "b.json"):
        write(root / name, coco("x.jpg"))


def two_sets(root: Path) -> None:
    label_img(root / "one")
    darknet(root / "two")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: image(root), "1 image and no labels"),
        (lambda root: root.mkdir(), "There: nothing that is known"),
        (two_files, "several annotation files for all: a.json, b.json"),
        (two_sets, "several data sets below it"),
        (lambda root: write(root / "a.json", []), "There: a.json: a list"),
        (lambda root: write(root / "a.json", [{"file_name": "a", "annotations": []}]), "a.json: detectron2's own"),
        (lambda root: write(root / "a.json", [{"filename": "a", "ann": {}}]), "a.json: mmdetection's own format"),
        (lambda root: write(root / "a.json", {"metainfo": {}, "data_list": []}), "a.json: mmdetection's own format"),
        (lambda root: write(root / "captions_a.json", coco()), "captions_a.json: COCO JSON without boxes"),
        (lambda root: write(root / "a.odgt", "{}"), "a.odgt: annotations of CrowdHuman"),
        (lambda root: write(root / "gt.txt", "1,1,8,6,30,24,1,1,1\n"), "as MOTChallenge has them, which are not read"),
        (lambda root: write(root / "a.txt", "8,6,30,24,1,4,0,0\n"), "as VisDrone has them, which are not read"),
        (lambda root: write(root / "a.csv", "image,class,box"), "There: a.csv: a table .* no column xmin, ymin"),
        (lambda root: write(root / "x.tfrecord", "x"), "x.tfrecord: TFRecords, which are not read; export COCO"),
    ],
)
def test_what_is_not_recognised_is_said_with_what_is_there(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        read_any(tmp_path / "set")


def test_detections_and_single_labels_are_no_data_set(tmp_path: Path) -> None:
    write(tmp_path / "d.json", [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}])
    write(tmp_path / "a.xml", XML)
    with pytest.raises(DataError, match=r"detections .COCO results., not annotations"):
        read_any(tmp_path / "d.json")
    with pytest.raises(DataError, match="one label file; give the folder"):
        read_any(tmp_path / "a.xml")
    with pytest.raises(DataError, match="no such file or folder; data=PATH is a folder"):
        open_source(tmp_path / "nothing", 0.2)


def test_a_single_data_set_below_is_taken(tmp_path: Path) -> None:
    label_img(tmp_path / "set" / "export")
    read = read_any(tmp_path / "set")
    assert not isinstance(read, CocoFiles)
    assert len(read.splits["all"].images) == 2


@pytest.mark.parametrize("name", ["../../escaped.txt", "/tmp/escaped.txt", "a/../../../escaped.txt"])
def test_a_zip_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, "x")
        archive.writestr("obj.names", "dog")
    with pytest.raises(DataError, match="outside of its folder"):
        open_source(tmp_path / "bad.zip", 0.2)
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_region_attribute_that_could_be_two_is_asked_for(tmp_path: Path) -> None:
    via(tmp_path)
    content = json.loads((tmp_path / "via_project.json").read_text())
    for row in content["_via_img_metadata"].values():
        row["regions"][0]["region_attributes"]["colour"] = "red"
    write(tmp_path / "via_project.json", content)
    with pytest.raises(DataError, match=r"which region attribute is the class. Attributes are colour, kind"):
        read_any(tmp_path)


def test_what_a_whole_file_decides_is_read_before_it_is_divided(tmp_path: Path, cache: Path) -> None:
    """Corners, which two boxes of a val split would not show, and images without a file_name."""
    names = [f"{n}.jpg" for n in range(10)]
    for n, name in enumerate(names):
        image(tmp_path, name, 20 * n)
    content = coco(*names)
    for row in content["annotations"]:
        row["bbox"] = [4, 20, 60, 44]
        del row["area"]
    for row in content["images"]:
        row["coco_url"] = f"http://example.org/{row.pop('file_name')}"
    write(tmp_path / "a.json", content)
    source = open_source(tmp_path, 0.2)
    sides = [json.loads(part.annotations.read_text(encoding="utf-8")) for part in (source.train, source.val)]
    assert [len(side["images"]) for side in sides] == [8, 2]
    assert all(row["bbox"] == [4, 20, 56, 24] for side in sides for row in side["annotations"])
    assert any("10 boxes are read as two corners" in line for line in source.lines)
    assert any("'coco_url' is used" in line for line in source.lines)
