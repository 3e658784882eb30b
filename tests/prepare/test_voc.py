"""Pascal VOC folders on disk, converted."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from places import SHARED

from retinanet.data.images import image_header
from retinanet.errors import ConfigError, DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import LabeledSet, split_paths, train_command
from retinanet.prepare.recognise import read_any
from retinanet.prepare.voc import convert_voc, read_voc

BCCD = SHARED / "bccd"

Box = tuple[str, float, float, float, float]


def xml(boxes: list[Box], size: tuple[int, int] = (40, 60), filename: str = "", extra: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    side = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{side}{objects}</annotation>"


def picture(path: Path, size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (9, 99, 199)).save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of VOC's layout: name -> XML text; each gets a picture of 60 x 40."""

    def build(annotations: dict[str, str], sets: dict[str, list[str]] | None = None) -> Path:
        folder = tmp_path / "voc"
        (folder / "Annotations").mkdir(parents=True)
        for name, text in annotations.items():
            (folder / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
            picture(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        for name, members in (sets or {}).items():
            (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(members) + "\n", encoding="utf-8")
        return folder

    return build


def document(path: Path) -> dict[str, Any]:
    content = read_json(path)
    assert isinstance(content, dict)
    return content


def boxes_of(path: Path) -> list[list[float]]:
    return [annotation["bbox"] for annotation in document(path)["annotations"]]


def test_one_based_inclusive_corners_become_coco_boxes(voc: Callable[..., Path], tmp_path: Path) -> None:
    whole, first, point = ("a", 1, 1, 60, 40), ("a", 1, 1, 2, 1), ("a", 5, 6, 5, 6)
    convert_voc(voc({"p": xml([whole, first, point])}), tmp_path / "out")
    assert boxes_of(tmp_path / "out/all.json") == [[0, 0, 60, 40], [0, 0, 2, 1], [4, 5, 0, 0]]


def test_zero_based_exclusive_corners_become_coco_boxes(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc({"p": xml([("a", 0, 0, 60, 40), ("a", 3, 4, 10, 9)])})
    convert_voc(folder, tmp_path / "out", zero_based=True)
    assert boxes_of(tmp_path / "out/all.json") == [[0, 0, 60, 40], [3, 4, 7, 5]]


def test_document_ids_sizes_areas_and_sorted_classes(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc(
        {"p": xml([("zebra", 1, 1, 10, 5), ("ant", 2, 2, 3, 3)]), "q": xml([]), "r": xml([("bee", 1, 1, 2, 2)])},
        {"train": ["q", "p"], "val": ["r"]},
    )
    written = convert_voc(folder, tmp_path / "out")
    assert [split.name for split in written] == ["train", "val"]
    train, val = (document(tmp_path / f"out/{name}.json") for name in ("train", "val"))
    assert train["images"] == [
        {"id": 1, "file_name": "q.jpg", "height": 40, "width": 60},
        {"id": 2, "file_name": "p.jpg", "height": 40, "width": 60},
    ]
    names = [(category["id"], category["name"]) for category in train["categories"]]
    assert names == [(1, "ant"), (2, "bee"), (3, "zebra")]
    assert val["categories"] == train["categories"]
    assert [a["category_id"] for a in train["annotations"]] == [3, 1]
    assert [a["id"] for a in train["annotations"]] == [1, 2]
    assert [a["image_id"] for a in train["annotations"]] == [2, 2]
    assert [a["area"] for a in train["annotations"]] == [50, 4]


def test_given_classes_fix_the_ids_and_refuse_others(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc({"p": xml([("b", 1, 1, 5, 5), ("a", 1, 1, 5, 5)])})
    convert_voc(folder, tmp_path / "out", classes=["b", "never", "a"])
    content = document(tmp_path / "out/all.json")
    assert [annotation["category_id"] for annotation in content["annotations"]] == [1, 3]
    with pytest.raises(DataError, match="class 'a' occurs"):
        convert_voc(folder, tmp_path / "other", classes=["b"])


def test_difficult_objects_become_crowds(voc: Callable[..., Path], tmp_path: Path) -> None:
    hard = xml([("a", 1, 1, 5, 5)], extra="<difficult>1</difficult>")
    convert_voc(voc({"p": hard, "q": xml([("a", 1, 1, 5, 5)])}), tmp_path / "out")
    content = document(tmp_path / "out/all.json")
    assert [annotation["iscrowd"] for annotation in content["annotations"]] == [1, 0]


def test_every_error_comes_in_one_list(voc: Callable[..., Path], tmp_path: Path) -> None:
    good = ("a", 1, 1, 5, 5)
    folder = voc(
        {
            "size": xml([good], size=(60, 40)),
            "cut": xml([good])[:-20],
            "tag": "<annotations/>",
            "nameless": xml([("", 1, 1, 5, 5)]),
            "outside": xml([("a", 0, 1, 5, 5), ("a", 1, 1, 61, 5)]),
            "words": xml([("a", "one", 1, 5, 5)]),  # type: ignore[list-item]
            "nan": xml([("a", float("nan"), 1, 5, 5)]),
            "gone": xml([good]),
            "broken": xml([good]),
            "hard": xml([good], extra="<difficult>maybe</difficult>"),
        }
    )
    (folder / "JPEGImages/gone.jpg").unlink()
    (folder / "JPEGImages/broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        convert_voc(folder, tmp_path / "out")
    message = str(caught.value)
    assert "(11 errors)" in message
    for expected in (
        "size.xml: states height 60 and width 40, but size.jpg has 40 and 60", "cut.xml: malformed XML",
        "tag.xml: the outermost tag is not <annotation>", "nameless.xml: object 1: no <name>",
        "outside.xml: object 1: a: box", "outside.xml: object 2: a: box",
        "--zero-based", "words.xml: object 1: a: <bndbox> without a number in <xmin>: 'one'",
        "nan.xml: object 1: a: <bndbox> without a number in <xmin>: 'nan'",
        "gone.xml: no image gone.*", "broken.jpg", "<difficult> is 'maybe'",
    ):  # fmt: skip
        assert expected in message
    assert not (tmp_path / "out").exists()


def test_clipping_cuts_boxes_at_the_border(voc: Callable[..., Path], tmp_path: Path) -> None:
    convert_voc(voc({"p": xml([("a", -3, 0, 70, 30)])}), tmp_path / "out", clip=True)
    assert boxes_of(tmp_path / "out/all.json") == [[0, 0, 60, 30]]


ENTITIES = '<!DOCTYPE a [<!ENTITY e "x"><!ENTITY f "&e;&e;&e;">]><annotation><filename>&f;</filename></annotation>'
OUTER = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation><filename>&e;</filename></annotation>'


BARE_DTD = '<!DOCTYPE annotation SYSTEM "voc.dtd"><annotation/>'


@pytest.mark.parametrize("text", [ENTITIES, OUTER, BARE_DTD])
def test_entities_are_refused(voc: Callable[..., Path], tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="DTD or entities"):
        convert_voc(voc({"p": text}), tmp_path / "out")


def test_image_sets_must_name_annotated_images_once(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc({"p": xml([("a", 1, 1, 5, 5)])}, {"train": ["p", "p", "missing", "p -1", "../p"]})
    with pytest.raises(DataError) as caught:
        convert_voc(folder, tmp_path / "out")
    assert "(4 errors)" in str(caught.value)
    for expected in (
        "train.txt:2: p is listed twice",
        "train.txt:3: no missing.xml",
        "train.txt:4: 'p -1'",
        "train.txt:5",
    ):
        assert expected in str(caught.value)


def test_given_splits_replace_those_of_the_folder(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc({"p": xml([("a", 1, 1, 5, 5)]), "q": xml([])}, {"train": ["p"]})
    (tmp_path / "mine.txt").write_text("q\np\n", encoding="utf-8")
    splits = split_paths([f"both={tmp_path / 'mine.txt'}"])
    assert [split.name for split in convert_voc(folder, tmp_path / "out", splits)] == ["both"]
    content = document(tmp_path / "out/both.json")
    assert [image["file_name"] for image in content["images"]] == ["q.jpg", "p.jpg"]


@pytest.mark.parametrize("pairs", [["train"], ["=x"], ["train="], ["a=x", "a=y"]])
def test_split_arguments_are_checked(pairs: list[str]) -> None:
    with pytest.raises(ConfigError, match="--split"):
        split_paths(pairs)


def test_a_flat_folder_finds_images_by_stem_then_by_filename(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for image in ("p.PNG", "renamed.jpg", "two.jpg", "two.png"):
        picture(flat / image)
    for stem, filename in (("p", "old name.jpg"), ("q", "renamed.jpg"), ("two", "two.png")):
        (flat / f"{stem}.xml").write_text(xml([("a", 1, 1, 5, 5)], filename=filename), encoding="utf-8")
    convert_voc(flat, tmp_path / "out")
    content = document(tmp_path / "out/all.json")
    assert [image["file_name"] for image in content["images"]] == ["p.PNG", "renamed.jpg", "two.png"]
    (flat / "two.xml").write_text(xml([("a", 1, 1, 5, 5)], filename="../p.PNG"), encoding="utf-8")
    with pytest.raises(DataError, match="several images match"):
        convert_voc(flat, tmp_path / "other")


def test_existing_files_are_replaced_only_on_request(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc({"p": xml([("a", 1, 1, 5, 5)])})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/all.json").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="--overwrite"):
        convert_voc(folder, tmp_path / "out")
    assert (tmp_path / "out/all.json").read_text(encoding="utf-8") == "mine"
    convert_voc(folder, tmp_path / "out", overwrite=True)
    assert boxes_of(tmp_path / "out/all.json") == [[0, 0, 5, 5]]


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_folders_without_annotations_are_errors(tmp_path: Path, folder: str) -> None:
    with pytest.raises(DataError, match=r"no such folder|no \.xml"):
        convert_voc(tmp_path / folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("written", "note"),
    [
        (
            "<width>0</width><height>0</height>",
            "1 image has a size of 0 in the XML: that of the file is taken; for example p.xml",
        ),
        (
            "<width>10.0</width><height>8.0</height>",
            "1 size is not written as whole numbers; for example 10.0 x 8.0 in p.xml",
        ),
    ],
)
def test_sizes_that_say_nothing_else_than_the_image(
    voc: Callable[..., Path], tmp_path: Path, written: str, note: str
) -> None:
    folder = voc({"p": xml([("a", 1, 1, 5, 5)])})
    file = next(folder.rglob("p.xml"))
    size = f"<size>{written}</size>"
    text = re.sub(r"<size>.*?</size>", size, file.read_text(encoding="utf-8"), flags=re.DOTALL)
    height, width = image_header(next(folder.rglob("p.jpg")))
    file.write_text(text.replace("10.0", f"{width}.0").replace("8.0", f"{height}.0"), encoding="utf-8")
    written_splits = convert_voc(folder, tmp_path / "out")
    wanted = note.replace("10.0 x 8.0", f"{width}.0 x {height}.0")
    assert f"note: {wanted}" in written_splits[-1].summary
    assert boxes_of(tmp_path / "out/all.json") == [[0, 0, 5, 5]]


def test_decimal_commas_are_read_and_cut_boxes_noted(voc: Callable[..., Path]) -> None:
    folder = voc({"p": xml([("dog", 3, 4, 5, 5), ("dog", 50, 30, 99, 35)])})
    (file,) = folder.rglob("p.xml")
    file.write_text(file.read_text(encoding="utf-8").replace("<xmin>3<", "<xmin>3,5<"), encoding="utf-8")
    read = read_voc(folder, clip=True)
    assert [box.bbox for box in read.splits["all"].images[0].boxes] == [(2.5, 3, 2.5, 2), (49, 29, 11, 6)]
    notes = "; ".join(read.notes)
    assert "1 number has a decimal comma; for example 3,5" in notes
    assert "1 box is cut at the border of the image; for example (49, 29, 99, 35)" in notes


def test_corners_of_zero_count_from_zero(voc: Callable[..., Path]) -> None:
    folder = voc({"p": xml([("Dog", 0, 0, 5, 5), ("dog", 1, 2, 5, 5)])})
    read = read_voc(folder, zero_based=None)
    assert [box.bbox for box in read.splits["all"].images[0].boxes] == [(0, 0, 5, 5), (1, 2, 4, 3)]
    assert any("corners are counted from 0" in note for note in read.notes)


def test_train_command_names_what_was_written(voc: Callable[..., Path], tmp_path: Path) -> None:
    folder = voc({"p": xml([("a", 1, 1, 5, 5)]), "q": xml([])}, {"train": ["p"], "val": ["q"]})
    written = convert_voc(folder, tmp_path / "out put")
    command = train_command(written, tmp_path / "out put")
    assert command.startswith("retinanet train own 'data.root=")
    for expected in (
        "data.train_annotations=train.json", f"data.train_images={folder.resolve() / 'JPEGImages'}",
        "data.val_annotations=val.json", f"data.val_images={folder.resolve() / 'JPEGImages'}",
    ):  # fmt: skip
        assert expected in command


@pytest.mark.skipif(not BCCD.is_dir(), reason="the BCCD data set is not next to this checkout")
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_real_blood_cells_equal_their_coco_file(tmp_path: Path, split: str) -> None:
    expected = document(BCCD / "annotations" / f"{split}.json")
    names = [Path(image["file_name"]).stem for image in expected["images"]]
    (tmp_path / "set.txt").write_text("\n".join(names), encoding="utf-8")
    convert_voc(BCCD / "voc", tmp_path / "out", {split: tmp_path / "set.txt"}, BCCD / "images")
    converted = document(tmp_path / "out" / f"{split}.json")
    for key in ("images", "annotations", "categories"):
        assert converted[key] == expected[key]


def test_values_of_other_programs(voc: Callable[..., Path]) -> None:
    """Corners in another order, a word for difficult, roLabelImg's rotated box, an image without XML."""
    rotated = (
        "<object><name>b</name><robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>1.5707963</angle></robndbox>"
        "</object></annotation>"
    )
    folder = voc({"p": xml([("a", 9, 5, 1, 2)]), "q": xml([], extra="").replace("</annotation>", rotated)})
    hard = xml([("a", 1, 1, 5, 5)], extra="<difficult>True</difficult>")
    (folder / "Annotations/r.xml").write_text(hard, encoding="utf-8")
    for name in ("r", "alone"):
        picture(folder / f"JPEGImages/{name}.jpg")
    read = read_voc(folder, zero_based=True)
    found = {image.file_name: image.boxes for image in read.splits["all"].images}
    assert found["p.jpg"][0].bbox == (1, 2, 8, 3)
    assert found["q.jpg"][0].bbox == pytest.approx((25, 10, 10, 20), abs=1e-5)
    assert found["r.jpg"][0].crowd
    notes = "; ".join(read.notes)
    assert "1 box is written from another corner; for example (9, 5, 1, 2)" in notes
    assert "1 object has a rotated box (<robndbox>)" in notes
    assert "1 image is without an XML file or in no list, and is left out" in notes


def test_lists_may_name_images_and_xml_may_be_in_any_encoding(voc: Callable[..., Path]) -> None:
    folder = voc({"p": xml([]), "q": xml([])}, {"train": ["p.jpg"], "val": ["JPEGImages/q.jpg"]})
    text = "<?xml version='1.0' encoding='GB2312'?>" + xml([("狗", 1, 1, 5, 5)])
    (folder / "Annotations/p.xml").write_bytes(text.encode("gb2312"))
    read = read_voc(folder)
    assert {split: [one.file_name for one in labeled.images] for split, labeled in read.splits.items()} == {
        "train": ["p.jpg"],
        "val": ["q.jpg"],
    }
    assert read.classes == ["狗"]


@pytest.mark.parametrize("place", ["labels", "xml", "Annotations"])
def test_labels_in_a_folder_of_another_name_are_voc(tmp_path: Path, place: str) -> None:
    picture(tmp_path / "images/a.jpg")
    (tmp_path / place).mkdir()
    (tmp_path / place / "a.xml").write_text(xml([("cat", 1, 1, 20, 30)]), encoding="utf-8")
    found = read_any(tmp_path)
    assert isinstance(found, LabeledSet)
    assert [[box.bbox for box in image.boxes] for image in found.splits["all"].images] == [[(0, 0, 20, 30)]]


def test_objects_marked_as_deleted_are_left_out(voc: Callable[..., Path]) -> None:
    kept, deleted = (xml([(n, 1, 1, 20, 30)], extra=f"<deleted>{k}</deleted>") for k, n in enumerate(("cat", "dog")))
    read = read_voc(voc({"a": kept, "b": deleted}))
    assert read.classes == ["cat"]
    assert "1 object is marked as deleted, and is left out; for example dog" in "; ".join(read.notes)
