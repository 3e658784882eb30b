"""Loading and validating COCO-format data: what is accepted or dropped, and that all errors are reported at once."""

import copy
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import SHARED

from retinanet.data.coco import CocoDataset, first_images, load_coco, summary, with_objects
from retinanet.data.ground_truth import load_ground_truth
from retinanet.errors import DataError

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data folder next to the checkout")


def good() -> dict:
    """Two classes with a gap, three images out of order, one empty, one crowd region."""
    return {
        "info": {"description": "made by hand"},
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [
            {"id": 20, "file_name": "b.jpg", "width": 60, "height": 40},
            {"id": 10, "file_name": "a.jpg", "width": 50, "height": 30},
            {"id": 30, "file_name": "sub/c.png", "width": 8, "height": 9},
        ],
        "annotations": [
            {"id": 1, "image_id": 20, "category_id": 7, "bbox": [5, 6, 10, 20], "area": 99.5, "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 3, "bbox": [0.5, 1, 4, 5], "area": 20, "iscrowd": 0},
            {"id": 3, "image_id": 20, "category_id": 3, "bbox": [0, 0, 60, 40], "area": 2400, "iscrowd": 1},
            {"id": 4, "image_id": 20, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
        ],
    }


class Place:
    """A folder with an annotation file and its images."""

    def __init__(self, root: Path) -> None:
        self.images = root / "images"
        self.file = root / "instances.json"
        (self.images / "sub").mkdir(parents=True)
        for entry in good()["images"]:
            self.paint(entry["file_name"], entry["width"], entry["height"])

    def paint(self, name: str, width: int, height: int, **options: object) -> None:
        Image.new("RGB", (width, height), (90, 120, 30)).save(self.images / name, **options)

    def load(self, data: object, check: str = "header") -> CocoDataset:
        self.file.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        return load_coco(self.file, self.images, check, workers=2)  # type: ignore[arg-type]

    def error(self, data: object, check: str = "header") -> str:
        with pytest.raises(DataError) as caught:
            self.load(data, check)
        assert str(self.file) in str(caught.value)
        return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("check", ["none", "header", "decode"])
def test_a_good_data_set(place: Place, check: str) -> None:
    dataset = place.load(good(), check)
    assert dataset.categories == ((3, "cat"), (7, "dog"))
    assert [image.id for image in dataset.images] == [10, 20, 30]
    first, second, third = dataset.images
    assert first.path == place.images / "a.jpg"
    assert (second.height, second.width) == (40, 60)
    np.testing.assert_array_equal(first.boxes_G4, [[0.5, 1, 4.5, 6]])
    np.testing.assert_array_equal(second.boxes_G4, [[5, 6, 15, 26], [1, 2, 4, 6]])
    np.testing.assert_array_equal(second.classes_G, [1, 0])
    np.testing.assert_array_equal(second.crowd_C4, [[0, 0, 60, 40]])
    assert third.boxes_G4.shape == third.crowd_C4.shape == (0, 4)
    assert third.classes_G.shape == (0,)
    for image in dataset.images:
        assert (image.boxes_G4.dtype, image.classes_G.dtype) == (np.float32, np.int64)
        assert image.crowd_C4.dtype == np.float32
    assert dataset.dropped == {"zero_area": 0, "outside": 0}
    assert dataset.clipped == 0
    assert dataset.notes == ()
    assert dataset.ground_truth == {**good(), "licenses": []}


def test_gzip_and_byte_order_mark(place: Place) -> None:
    packed = place.file.with_suffix(".json.gz")
    packed.write_bytes(gzip.compress(json.dumps(good()).encode()))
    assert len(load_coco(packed, place.images).images) == 3
    assert len(place.load("\ufeff" + json.dumps(good())).images) == 3
    packed.write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(DataError, match="truncated gzip"):
        load_coco(packed, place.images)


def test_boxes_are_dropped_or_clipped_and_counted(place: Place) -> None:
    data = good()
    boxes = [
        [5, 5, 0, 4],
        [5, 5, 4, -1],
        [61, 5, 4, 4],
        [-9, 5, 9, 4],
        [-4, -2, 10, 12],
        [50, 30, 99, 99],
        [1, 1, 1e-9, 2],
    ]
    data["annotations"] = [
        {"id": n, "image_id": 20, "category_id": 3, "bbox": box, "area": 1, "iscrowd": 0}
        for n, box in enumerate([*boxes, [0, 0, 60.01, 40.005], [0, 0, 1e308, 1e308]], start=1)
    ]
    dataset = place.load(data)
    assert dataset.dropped == {"zero_area": 3, "outside": 2}
    assert dataset.clipped == 3
    expected = [[0, 0, 6, 10], [50, 30, 60, 40], [0, 0, 60, 40], [0, 0, 60, 40]]
    np.testing.assert_array_equal(dataset.images[1].boxes_G4, expected)
    assert [row["bbox"] for row in dataset.ground_truth["annotations"][:7]] == boxes
    assert any("annotation 3 of image 20 (" in note and "), 4 of image 20 (" in note for note in dataset.notes)


def test_summary_names_what_matters(place: Place) -> None:
    data = good()
    data["annotations"][3]["bbox"] = [1, 2, 0, 4]
    text = summary(place.load(data))
    assert "3 images (1 without objects), 2 objects, 1 crowd region" in text
    assert "dog 1" in text
    assert "1 zero area, 0 outside" in text


def test_missing_keys_that_scoring_needs_are_filled_and_noted(place: Place) -> None:
    data = good()
    del data["info"], data["annotations"][0]["area"], data["annotations"][1]["iscrowd"]
    dataset = place.load(data)
    rows = dataset.ground_truth["annotations"]
    assert rows[0]["area"] == 200
    assert rows[1]["iscrowd"] == 0
    assert dataset.ground_truth["info"] == {}
    assert len(dataset.notes) == 2


@pytest.mark.parametrize("first_id", [0, None])
def test_annotation_ids_of_zero_or_none_are_renumbered(
    place: Place, first_id: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    data = good()
    if first_id is None:
        del data["annotations"][0]["id"], data["annotations"][2]["id"]
    else:
        data["annotations"][0]["id"] = data["annotations"][2]["id"] = 0
    dataset = place.load(data)
    assert [row["id"] for row in dataset.ground_truth["annotations"]] == [1, 2, 3, 4]
    assert any("renumbered" in note for note in dataset.notes)
    load_ground_truth(place.file)
    assert "renumbered" in caplog.text


def test_polygons_are_not_kept(place: Place) -> None:
    data = good()
    data["annotations"][0]["segmentation"] = [[0, 0, 1, 0, 1, 1]]
    assert "segmentation" not in place.load(data).ground_truth["annotations"][0]


def test_same_name_twice_is_a_note(place: Place) -> None:
    data = good()
    data["categories"][1]["name"] = "dog"
    assert any("'dog'" in note for note in place.load(data).notes)


def test_no_annotations_is_a_note(place: Place) -> None:
    dataset = place.load({**good(), "annotations": []})
    assert [len(image.boxes_G4) for image in dataset.images] == [0, 0, 0]
    assert any("no annotations" in note for note in dataset.notes)


def test_every_error_at_once(place: Place) -> None:
    data = good()
    data["categories"].append({"id": 3, "name": ""})
    data["images"][0]["width"] = "60"
    data["images"][1]["file_name"] = "../x.jpg"
    data["images"] += [{"id": 20, "file_name": "gone.jpg", "width": 1, "height": 0}, 5]
    data["annotations"] += [
        {"id": 4, "image_id": 20, "category_id": 7, "bbox": [1, 2, 3]},
        {"id": "x", "image_id": 99, "category_id": 4, "bbox": [1, 2, 3, True]},
        {"id": 2**70, "image_id": "20", "category_id": 7.0, "area": -1, "iscrowd": 2},
        {"id": 9, "category_id": None, "bbox": [1, 2, 3, 10**400], "image_id": 20, "area": "5"},
        [],
    ]
    text = place.error(data)
    for expected in (
        "categories[2] (id 3) has the same id as categories[1]",
        "categories[2] (id 3) has 'name' ''",
        "images[0] (id 20) has 'width' '60'; write 60, an integer without quotes",
        "images[3] (id 20) has the same id as images[0]",
        "images[3] (id 20) has 'height' 0; at least 1 is needed",
        "images[4] is 5, not an object",
        "image 10, file '../x.jpg': an absolute path or '..'",
        "image 20, file 'gone.jpg': no such file",
        "annotations[4] (id 4) has 'bbox' [1, 2, 3]; it has 3 numbers",
        "annotations[5] (id 'x') has 'image_id' 99, which no entry of images has",
        "annotations[5] (id 'x') has 'category_id' 4, which no entry of categories has",
        "annotations[5] (id 'x') has 'bbox' [1, 2, 3, True]; four finite numbers",
        "has 'image_id' '20'; write 20, an integer without quotes",
        "has 'category_id' 7.0; write 7, an integer",
        "has 'area' -1",
        "has 'iscrowd' 2; 0 or 1 is needed",
        "has no 'bbox'",
        "annotations[7] (id 9) has 'category_id' None",
        "annotations[7] (id 9) has 'area' '5'; a finite number",
        "annotations[8] is [], not an object",
    ):
        assert expected in text
    assert re.search(r"annotations\[6\] \(id 118\S+\) has 'id' 118", text)
    assert re.search(r"annotations\[7\] \(id 9\) has 'bbox' .*four finite numbers", text)


@pytest.mark.parametrize("sign", [1, -1])
def test_ids_that_scoring_would_change_are_refused(place: Place, sign: int) -> None:
    largest, beyond = sign * 2**53, sign * (2**53 + 1)
    for image_id, category_id in ((largest, 3), (20, largest), (beyond, 3), (20, beyond), (beyond, beyond)):
        data = good()
        data["images"][0]["id"] = image_id
        data["categories"][1]["id"] = category_id
        for row in data["annotations"]:
            row["image_id"] = image_id if row["image_id"] == 20 else row["image_id"]
            row["category_id"] = category_id if row["category_id"] == 3 else row["category_id"]
        expected = [
            f"{section} (id {beyond}) has 'id' {beyond}; ids beyond plus or minus 9007199254740992 (2 to the 53rd) "
            f"cannot be scored exactly; renumber {section[:-3]}"
            for section, given in (("images[0]", image_id), ("categories[1]", category_id))
            if given == beyond
        ]
        if not expected:
            assert {image_id, 10, 30} == {image.id for image in place.load(data).images}
            load_ground_truth(place.file)
            continue
        text = place.error(data)
        assert f"({len(expected)} error{'s' if len(expected) > 1 else ''})" in text
        assert all(line in text for line in expected)
        with pytest.raises(DataError, match="2 to the 53rd"):
            load_ground_truth(place.file)


def test_integers_beyond_64_bits_are_not_called_something_else(place: Place) -> None:
    data = good()
    data["images"][0]["id"] = 2**70
    assert "an integer of at most 64 bits is needed" in place.error(data)


def test_many_errors_of_one_kind_do_not_hide_another(place: Place) -> None:
    data = good()
    data["annotations"] = [{"id": n, "image_id": 99, "category_id": 3, "bbox": [1, 2, 3, 4]} for n in range(1, 1001)]
    data["annotations"][700]["bbox"] = [1, 2, 3, "4"]
    text = place.error(data)
    assert "and 995 more of annotations like it" in text
    assert "annotations[700] (id 701) has 'bbox' [1, 2, 3, '4']" in text


def test_an_invalid_row_does_not_own_an_id(place: Place) -> None:
    data = good()
    data["images"] += [{"id": "x", "file_name": "a.jpg", "width": 50, "height": 30}]
    data["images"] += [{"id": 0, "file_name": name, "width": 50, "height": 30} for name in ("a.jpg", "b.jpg")]
    text = place.error(data)
    assert "images[5] (id 0) has the same id as images[4]" in text
    assert "same id as images[3]" not in text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the file contains a list, not an object"),
        ("null", "the file contains null"),
        ({}, "the file has no 'images'"),
        ({**good(), "images": []}, "'images' is an empty list"),
        ({**good(), "categories": []}, "'categories' is an empty list"),
        ({**good(), "annotations": {}}, "'annotations' {}; a list is needed"),
        ("", "the file is empty"),
        ('{"images": [\n  {"id": 1,', "line 2, column 12: .*truncated"),
        ('{"images": [}', "line 1, column 13"),
        ('{"name": "Infinity",\n "images": [1, Infinity]}', "line 2, column 16: Infinity"),
        ('{"images": [-Infinity]}', "line 1, column 13: -Infinity"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
        ("1" * 5000, "JSON that cannot be used"),
    ],
)  # fmt: skip
def test_content_that_is_not_a_data_set(place: Place, data: object, message: str) -> None:
    assert re.search(message, place.error(data))


def test_overflowing_numbers_are_not_finite(place: Place) -> None:
    text = json.dumps(good()).replace("[1, 2, 3, 4]", "[1, 2, 1e999, 4]")
    assert "annotations[3] (id 4) has 'bbox' [1, 2, inf, 4]; four finite numbers" in place.error(text)


def test_files_that_cannot_be_read(place: Place, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        load_coco(tmp_path / "none.json", place.images)
    with pytest.raises(DataError, match="cannot be read"):
        load_coco(tmp_path, place.images)
    place.file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        load_coco(place.file, place.images)
    place.load(good())
    with pytest.raises(DataError, match="nowhere: the image folder does not exist"):
        load_coco(place.file, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/hostname", "absolute path or '..'"),
        ("C:\\a.jpg", "absolute path or '..'"),
        ("../images/a.jpg", "absolute path or '..'"),
        ("sub/../../images/a.jpg", "absolute path or '..'"),
        ("sub\\..\\..\\x.jpg", "absolute path or '..'"),
        ("", "'file_name' ''; a string is needed"),
        (".", "not a file"),
        ("sub", "not a file"),
        ("a\0.jpg", "not a usable file name"),
        ("a" * 300, "not a usable file name"),
    ],
)
def test_names_that_are_not_files_within_the_folder(place: Place, name: str, message: str) -> None:
    data = good()
    data["images"][0]["file_name"] = name
    text = place.error(data, "none")
    assert message in text
    assert "(1 error)" in text
    text.encode("utf-8")


@pytest.mark.parametrize("kind", ["file", "folder", "dangling"])
def test_symbolic_links_out_of_the_folder(place: Place, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (60, 40)).save(outside / "b.jpg")
    data = good()
    if kind == "folder":
        (place.images / "link").symlink_to(outside)
        data["images"][0]["file_name"] = "link/b.jpg"
    else:
        (place.images / "b.jpg").unlink()
        (place.images / "b.jpg").symlink_to(outside / ("b.jpg" if kind == "file" else "gone.jpg"))
    message = "no such file" if kind == "dangling" else "a symbolic link leads outside the image folder"
    assert message in place.error(data, "none")


def test_links_within_and_to_the_folder_are_fine(place: Place, tmp_path: Path) -> None:
    (place.images / "b.jpg").rename(place.images / "sub" / "real.jpg")
    (place.images / "b.jpg").symlink_to(place.images / "sub" / "real.jpg")
    place.load(good())
    (tmp_path / "alias").symlink_to(place.images)
    assert load_coco(place.file, tmp_path / "alias", "header").images[0].path == tmp_path / "alias" / "a.jpg"


def test_missing_files_are_listed_and_counted(place: Place) -> None:
    data = good()
    data["images"] += [{"id": 100 + n, "file_name": f"gone{n}.jpg", "width": 1, "height": 1} for n in range(25)]
    for check in ("none", "header"):
        text = place.error(data, check)
        assert "file 'gone0.jpg': no such file" in text
        assert "and 15 more images like it" in text


def test_the_size_must_be_that_of_the_file(place: Place) -> None:
    place.paint("b.jpg", 40, 60)
    text = place.error(good())
    assert "image 20, file 'b.jpg': the JSON says 60 x 40 (width x height), the file has 40 x 60" in text
    assert len(place.load(good(), "none").images) == 3


def test_size_of_an_exif_rotated_image(place: Place) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    place.paint("b.jpg", 40, 60, exif=exif)
    place.load(good())
    place.paint("b.jpg", 60, 40, exif=exif)
    text = place.error(good())
    assert "image 20, file 'b.jpg'" in text
    assert "60 x 40" in text
    assert "40 x 60" in text
    assert "before the file's EXIF rotation" in text


def test_damage_is_found_as_thoroughly_as_requested(place: Place) -> None:
    (place.images / "a.jpg").write_bytes((place.images / "a.jpg").read_bytes()[:-20])
    path = place.images / "sub" / "c.png"
    Image.effect_noise((8, 9), 80).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 4
    data[at : at + 6] = b"\0" * 6
    path.write_bytes(data)
    assert len(place.load(good(), "none").images) == 3
    text = place.error(good(), "header")
    assert "'a.jpg': the image is truncated" in text
    assert "c.png" not in text
    text = place.error(good(), "decode")
    assert "'a.jpg': the image is truncated" in text
    assert "'sub/c.png': the image cannot be decoded" in text


def test_damage_that_a_decoder_passes_over_is_noted_where_pixels_are_decoded(place: Place) -> None:
    path = place.images / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((50, 30)).save(path, quality=95)
    data, whole = good(), path.read_bytes()
    assert place.load(data, "decode").notes == ()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + whole[middle + 100 :])
    assert place.load(data, "header").notes == ()
    (note,) = place.load(data, "decode").notes
    assert re.search(r"^1 JPEGs are damaged, part of their pixels may be wrong: a\.jpg \(.+\)$", note)


def test_ground_truth_for_scoring_needs_no_files_or_sizes(place: Place) -> None:
    data = good()
    data["images"] = [{"id": entry["id"]} for entry in data["images"]]
    expected = copy.deepcopy(data)
    place.error(data, "none")
    assert load_ground_truth(place.file) == {**expected, "licenses": []}
    place.file.write_text(json.dumps({**data, "annotations": [{"image_id": 5}]}), encoding="utf-8")
    with pytest.raises(DataError, match="3 errors"):
        load_ground_truth(place.file)


@needs_shared
@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("bccd/annotations/train.json", "bccd/images", (205, 2804, 0, 1)),
        ("bccd/annotations/val.json", "bccd/images", (87, 1137, 0, 1)),
        ("bccd/annotations/test.json", "bccd/images", (72, 945, 0, 0)),
        ("coco144/annotations/instances_train2017.json", "coco144/train2017", (70, 681, 6, 0)),
        ("coco144/annotations/instances_val2017.json", "coco144/val2017", (74, 621, 8, 0)),
    ],
)
def test_real_data_sets_load_unaltered(name: str, folder: str, counts: tuple[int, ...]) -> None:
    dataset = load_coco(SHARED / name, SHARED / folder, "header")
    boxes = sum(len(image.boxes_G4) for image in dataset.images)
    crowd = sum(len(image.crowd_C4) for image in dataset.images)
    assert (len(dataset.images), boxes, crowd, dataset.dropped["zero_area"]) == counts
    assert dataset.dropped["outside"] == dataset.clipped == 0


def test_the_first_images_only(place: Place) -> None:
    whole = place.load(good())
    part = first_images(whole, 1)
    assert part.images == whole.images[:1]
    assert [row["id"] for row in part.ground_truth["images"]] == [whole.images[0].id]
    assert {row["image_id"] for row in part.ground_truth["annotations"]} <= {whole.images[0].id}
    assert part.categories == whole.categories
    assert any("only the first 1 of" in note for note in part.notes)
    assert first_images(whole, None) is whole
    assert first_images(whole, len(whole.images)) is whole


def test_images_without_objects_can_be_left_out(place: Place) -> None:
    data = good()
    data["annotations"] = [row for row in data["annotations"] if row["image_id"] != 10]
    data["annotations"].append(
        {"id": 9, "image_id": 10, "category_id": 3, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 1}
    )
    part = with_objects(place.load(data))
    assert [image.id for image in part.images] == [20], "a crowd region is no object"
    assert [row["id"] for row in part.ground_truth["images"]] == [20]
    assert {row["image_id"] for row in part.ground_truth["annotations"]} == {20}
    assert part.categories == ((3, "cat"), (7, "dog"))
    assert "2 images without objects are left out" in summary(part)
    assert with_objects(part) is part
