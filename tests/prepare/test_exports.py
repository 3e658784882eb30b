"""Exports of labelling programs as they are: each is read right, or refused with the cause and what to do.

Every image has 64 x 48 pixels and a dog with the corners (8, 6, 38, 30).
"""

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet.errors import DataError
from retinanet.prepare.check import check_parts
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.recognise import CocoFiles, read_any

BOX = (8.0, 6.0, 30.0, 24.0)
APPLE_DOUBLE = b"\0\5\x16\7" + bytes(60)
"""How the files begin that macOS leaves on memory sticks."""
XML = (
    "<annotation><filename>{name}</filename><size><width>64</width><height>48</height></size><object><name>dog</name>"
    "<bndbox><xmin>9</xmin><ymin>7</ymin><xmax>38</xmax><ymax>30</ymax></bndbox></object></annotation>"
)
YOLO = f"0 {23 / 64} {18 / 48} {30 / 64} {24 / 48}\r\n"
Make = Callable[[Path], object]


def image(path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(path, **options)


def write(path: Path, content: object, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))


def xml(path: Path, name: str = "a.jpg") -> None:
    write(path, XML.format(name=name))


def cvat(root: Path) -> None:
    image(root / "images" / "a.jpg")
    shapes = (
        '<box label="dog" xtl="8" ytl="6" xbr="38" ybr="30"><attribute name="age">3</attribute></box>'
        '<polygon label="dog" points="8,6;38,10;20,30"/>'
        '<mask label="dog" rle="9" left="8" top="6" width="30" height="24"/>'
        '<ellipse label="dog" cx="23" cy="18" rx="15" ry="12"/><points label="dog" points="3,3"/>'
    )
    head = '<?xml version="1.0" encoding="utf-8"?><!-- <annotation> -->'
    write(root / "annotations.xml", f'{head}<annotations><image id="0" name="a.jpg">{shapes}</image></annotations>')


def label_studio(root: Path) -> None:
    image(root / "images" / "1a2b3c4d-a.jpg")
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    place = {"x": 12.5, "y": 12.5, "width": 46.875, "height": 50, "rotation": 0}
    results = [
        {"id": "p", "type": "rectanglelabels", "value": place | {"rectanglelabels": ["dog"]}, **size},
        {"id": "q", "type": "rectangle", "value": place, **size},
        {"id": "q", "type": "labels", "value": place | {"labels": ["dog"]}, **size},
        {"id": "r", "type": "choices", "value": {"choices": ["outdoors"]}},
    ]
    task = {"id": 7, "data": {"image": "/data/upload/3/1a2b3c4d-a.jpg"}, "annotations": [{"result": results}]}
    write(root / "project.json", [task])


def label_studio_min(root: Path) -> None:
    image(root / "images" / "a.jpg")
    # A quarter turn about the upper left corner: height and width change places, in pixels.
    turned = {"x": 59.375, "y": 12.5, "width": 37.5, "height": 62.5, "rotation": 90, "rectanglelabels": ["dog"]}
    row = {"image": "/data/local-files/?d=images/a.jpg", "id": 1, "annotator": 1, "annotation_id": 2}
    write(root / "min.json", [row | {"label": [turned | {"original_width": 64, "original_height": 48}]}])


def create_ml(root: Path) -> None:
    image(root / "train" / "a.jpg")
    found = {"label": "dog", "coordinates": {"x": 23, "y": 18, "width": 30, "height": 24}}
    write(root / "train" / "_annotations.createml.json", [{"image": "a.jpg", "annotations": [found]}])


def datumaro(root: Path) -> None:
    image(root / "images" / "default" / "a.jpg")
    box = {"type": "bbox", "label_id": 1, "bbox": [8, 6, 30, 24]}
    polygon = {"type": "polygon", "label_id": 1, "points": [8, 6, 38, 10, 20, 30]}
    item = {"id": "a", "annotations": [box, polygon, {"type": "label", "label_id": 0}], "image": {"path": "a.jpg"}}
    labels = {"label": {"labels": [{"name": "cat"}, {"name": "dog"}]}}
    write(root / "annotations" / "default.json", {"info": {}, "categories": labels, "items": [item]})


def supervisely(root: Path) -> None:
    image(root / "ds0" / "img" / "a.jpg")
    mask = io.BytesIO()
    Image.new("1", (30, 24), 1).save(mask, "PNG")
    packed = base64.b64encode(zlib.compress(mask.getvalue())).decode()
    shapes: list[dict[str, Any]] = [
        {"geometryType": "rectangle", "points": {"exterior": [[38, 30], [8, 6]]}},
        {"geometryType": "bitmap", "bitmap": {"origin": [8, 6], "data": packed}},
    ]
    objects = [{"classTitle": "dog"} | shape for shape in shapes]
    write(root / "meta.json", {"classes": [{"title": "dog", "shape": "rectangle"}], "tags": []})
    write(root / "ds0" / "ann" / "a.jpg.json", {"size": {"height": 48, "width": 64}, "objects": objects})


def via_table(root: Path) -> None:
    image(root / "a.jpg")
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    shape = '"{""name"":""rect"",""x"":8,""y"":6,""width"":30,""height"":24}"'
    write(root / "via.csv", f'{head}\na.jpg,9,"{{}}",1,0,{shape},"{{""class"":""dog""}}"\n')


def open_images(root: Path) -> None:
    image(root / "images" / "000a.jpg")
    head = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
    write(root / "train-annotations-bbox.csv", f"{head}\n000a,xclick,/m/0bt9lr,1,0.125,0.59375,0.125,0.625,0,0\n")
    write(root / "class-descriptions-boxable.csv", "/m/0bt9lr,dog\n/m/01yrx,cat\n")


def semicolons_in_utf16(root: Path) -> None:
    image(root / "a.jpg")
    write(
        root / "Labels.CSV", "File Name;Class;BBox_X;BBox_Y;Box Width;Box Height\r\na.jpg;dog;8,0;6;30;24\r\n", "utf-16"
    )


def tables_of_splits(root: Path) -> None:
    for name in ("train", "test"):
        image(root / "images" / f"{name}.jpg")
        write(
            root / f"{name}_labels.csv",
            f"filename,width,height,class,xmin,ymin,xmax,ymax\n{name}.jpg,64,48,dog,8,6,38,30\n",
        )


def voc_in_capitals(root: Path) -> None:
    image(root / "A.JPG")
    xml(root / "A.XML", "A.JPG")


def voc_beside_images(root: Path) -> None:
    image(root / "images" / "A.png")
    xml(root / "annotations" / "a.xml", "/home/me/a.png")


def voc_by_split(root: Path) -> None:
    for split in ("train", "valid"):
        image(root / "images" / split / "a.jpg")
        xml(root / "annotations" / split / "a.xml")


def voc_far_below(root: Path) -> None:
    image(root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "a.jpg")
    xml(root / "VOCdevkit" / "VOC2012" / "Annotations" / "a.xml")


def voc_of_equal_names(root: Path) -> None:
    for folder in ("x", "y"):
        image(root / folder / "a.jpg")
        xml(root / folder / "a.xml")


def voc_in_fractions(root: Path) -> None:
    image(root / "a.jpg")
    text = XML.format(name="a.jpg")
    for old, new in ((">9<", ">0.125<"), (">7<", ">0.125<"), (">38<", ">0.59375<"), (">30<", ">0.625<")):
        text = text.replace(old, new)
    write(root / "a.xml", text)


def voc_without_endings(root: Path) -> None:
    image(root / "JPEGImages" / "a", format="JPEG")
    xml(root / "Annotations" / "a.xml", "a")


def voc_from_a_mac(root: Path) -> None:
    image(root / "a.jpg")
    xml(root / "a.xml")
    for name in ("._a.jpg", "._a.xml", ".DS_Store", "Thumbs.db", "__MACOSX/b.xml", ".ipynb_checkpoints/c.xml"):
        write(root / name, APPLE_DOUBLE)


def yolo_from_a_mac(root: Path) -> None:
    image(root / "images" / "a.jpg")
    write(root / "labels" / "a.txt", YOLO)
    for name in ("images/._a.jpg", "labels/._a.txt", "._classes.txt", "images/.ipynb_checkpoints/b.jpg"):
        write(root / name, APPLE_DOUBLE)
    write(root / "classes.txt", "\ufeffdog\r\n")


def yolo_in_capitals(root: Path) -> None:
    image(root / "Images" / "Train" / "A.JPG")
    write(root / "Labels" / "Train" / "A.TXT", YOLO)
    write(root / "My Set.YAML", "train: images/train\nnames: [dog]\n")


def labelme_apart(root: Path) -> None:
    image(root / "pictures" / "a.jpg")
    shape = {"label": "dog", "points": [[8, 6], [38, 30]], "shape_type": "rectangle"}
    write(root / "json" / "a.json", {"imagePath": "..\\pictures\\a.jpg", "shapes": [shape], "imageData": None})
    write(root / "json" / "._a.json", APPLE_DOUBLE)


READ = {
    make.__name__: (make, counts)
    for make, counts in (
        (cvat, {"all": 4}), (label_studio, {"all": 2}), (label_studio_min, {"all": 1}), (create_ml, {"train": 1}),
        (datumaro, {"all": 2}), (supervisely, {"all": 2}), (via_table, {"all": 1}), (open_images, {"all": 1}),
        (semicolons_in_utf16, {"all": 1}), (tables_of_splits, {"train": 1, "test": 1}), (voc_in_capitals, {"all": 1}),
        (voc_beside_images, {"all": 1}), (voc_by_split, {"train": 1, "val": 1}), (voc_far_below, {"all": 1}),
        (voc_of_equal_names, {"all": 2}), (voc_in_fractions, {"all": 1}), (voc_without_endings, {"all": 1}),
        (voc_from_a_mac, {"all": 1}), (yolo_from_a_mac, {"all": 1}), (yolo_in_capitals, {"train": 1}),
        (labelme_apart, {"all": 1}),
    )
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_an_export_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    make, counts = READ[name]
    make(tmp_path)
    found = read_any(tmp_path)
    assert isinstance(found, LabeledSet)
    boxes = {split: [box for one in images for box in one.boxes] for split, (_, images) in found.splits.items()}
    assert {split: len(rows) for split, rows in boxes.items()} == counts
    for box in (box for rows in boxes.values() for box in rows):
        assert box.name == "dog"
        assert box.bbox == pytest.approx(BOX, abs=0.002)
    for folder, images in found.splits.values():
        assert all((folder / one.file_name).is_file() for one in images)


def coco(root: Path) -> dict[str, Any]:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": list(BOX), "area": 720, "iscrowd": 0}
    images = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    image(root / "a.jpg")
    return {"images": images, "annotations": [row], "categories": [{"id": 1, "name": "dog"}]}


def test_a_coco_file_in_capitals_next_to_what_a_mac_leaves(tmp_path: Path) -> None:
    write(tmp_path / "set" / "my set" / "Labels.JSON", coco(tmp_path / "set" / "my set"))
    write(tmp_path / "set" / "my set" / "._Labels.JSON", APPLE_DOUBLE)
    found = read_any(tmp_path)
    assert isinstance(found, CocoFiles)
    assert [part.annotations.name for part in found.splits.values()] == ["Labels.JSON"]


def test_files_of_one_name_each_have_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "valid", "test"):
        content = coco(tmp_path / split)
        content["categories"] = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "dog", "supercategory": "pets"},
        ]
        write(tmp_path / split / "_annotations.coco.json", content)
    check_parts([(tmp_path / split / "_annotations.coco.json", None) for split in ("train", "valid", "test")])
    out = capsys.readouterr().out
    assert "objects      train      valid       test\n" in out
    assert out.count("the class 'pets' has no objects and is the supercategory of others") == 3
    assert "no errors found in 3 annotation files" in out


def only_labels(root: Path) -> None:
    write(root / "obj.names", "dog")
    write(root / "obj_train_data" / "a.txt", YOLO)
    write(root / "train.txt", "data/obj_train_data/a.jpg")


def film(root: Path) -> None:
    image(root / "images" / "frame_000000.PNG")
    write(root / "annotations.xml", '<annotations><track id="0" label="dog"><box frame="0"/></track></annotations>')


def data_in_labelme(root: Path) -> None:
    shape = {"label": "dog", "points": [[8, 6], [38, 30]], "shape_type": "rectangle"}
    write(root / "a.json", {"imagePath": "a.jpg", "shapes": [shape], "imageData": "aGk="})


def turned_photograph(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image(root / "a.jpg", exif=exif)
    xml(root / "a.xml")


def latin1(root: Path) -> None:
    image(root / "a.jpg")
    write(root / "a.xml", XML.format(name="a.jpg").replace("dog", "d\u00f6g"), "latin-1")


def two_of_one_image(root: Path) -> None:
    image(root / "images" / "a.jpg")
    for folder in ("x", "y"):
        xml(root / "annotations" / folder / "a.xml")


def kitti(root: Path) -> None:
    image(root / "image_2" / "a.png")
    write(root / "label_2" / "a.txt", f"Car 0.00 0 -1.58 {' 1.0' * 11}\n")


def nothing_in_classes(root: Path) -> None:
    for kind in ("cat", "dog"):
        image(root / "train" / kind / "a.jpg")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (only_labels, "YOLO labels but no image; export them with the images"),
        (film, "tracks of a film .* export the task as CVAT for images 1.1"),
        (data_in_labelme, "only within the JSON files of labelme .imageData.; write each out"),
        (turned_photograph, "64 x 48 .* before its EXIF rotation; .* it is 48 x 64, and the boxes may fit either"),
        (latin1, "a.xml: not UTF-8 text at byte .* save it with the encoding UTF-8"),
        (two_of_one_image, "x/a.xml and y/a.xml are both of the image a.jpg"),
        (kitti, "as KITTI writes them, which are not read; convert them to COCO"),
        (nothing_in_classes, "in folders such as cat, dog: if these are classes, boxes are still needed"),
        (lambda root: write(root / "x.manifest", "{}"), "x.manifest: manifests of SageMaker .* export COCO instead"),
        (lambda root: write(root / "l.json", {"classes": [], "labels": {}}), "l.json: FiftyOne's own format"),
        (lambda root: write(root / "l.json", [{"data_row": {}}]), "l.json: an export of Labelbox"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_names_the_cause_and_the_way_out(make: Make, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        read_any(tmp_path)


LONG = "x" * 1000 + ".jpg"


def long_in_labelme(root: Path) -> None:
    labelme_apart(root)
    write(root / "json" / "b.json", {"imagePath": LONG, "shapes": [], "imageData": None})


def long_in_coco(root: Path) -> None:
    content = coco(root)
    content["images"][0]["file_name"] = LONG
    write(root / "a.json", content)


def long_in_a_list(root: Path) -> None:
    yolo_from_a_mac(root)
    write(root / "train.txt", LONG)
    write(root / "data.yaml", "train: train.txt\nnames: [dog]\n")


def long_in_yaml(root: Path) -> None:
    yolo_from_a_mac(root)
    write(root / "data.yaml", f"train: {LONG}\nnames: [dog]\n")


@pytest.mark.parametrize("make", [long_in_labelme, long_in_coco, long_in_a_list, long_in_yaml])
def test_a_name_that_no_file_can_have_is_one_of_a_missing_file(make: Make, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=r"no image x+|are in none of|no x+|there is no .*x+"):
        read_any(tmp_path)
