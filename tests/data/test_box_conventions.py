"""Boxes in another convention than [x, y, width, height] in pixels, and notes on a set as a whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycocotools_mask

from retinanet.data.annotation_arrays import annotation_arrays
from retinanet.data.box_conventions import Floats, read_areas, read_boxes
from retinanet.data.box_values import parsed_box
from retinanet.data.coco import load_coco
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.masks import mask_box
from retinanet.data.set_notes import set_notes
from retinanet.errors import DataError

WIDTH, HEIGHT = 100, 80


def boxes(count: int, seed: int = 0) -> Floats:
    """(N, 4) [x, y, width, height] all over images of WIDTH x HEIGHT."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(8, 45, (count, 2))
    low = rng.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - sizes)
    low[: count // 4] = np.array([WIDTH, HEIGHT]) - sizes[: count // 4]  # some touch the border
    low[count // 4 : count // 2] = 0
    return np.concatenate([low, sizes], axis=1).round(2)


def written(convention: str, boxes_N4: Floats) -> Floats:
    low, size = boxes_N4[:, :2], boxes_N4[:, 2:]
    first, second = {
        "sizes": (low, size),
        "corners": (low, low + size),
        "centres": (low + size / 2, size),
    }[convention]
    return np.concatenate([first, second], axis=1)


def read(boxes_N4: Floats, areas_N: Floats | None = None) -> Any:
    limits_N2 = np.tile(np.array([WIDTH, HEIGHT], float), (len(boxes_N4), 1))
    return read_boxes(boxes_N4, np.full(len(boxes_N4), np.nan) if areas_N is None else areas_N, limits_N2)


@pytest.mark.parametrize("convention", ["corners", "centres"])
@pytest.mark.parametrize("unit", ["pixels", "fractions"])
def test_what_one_convention_alone_explains_is_read_by_it(convention: str, unit: str) -> None:
    wanted = boxes(40)
    given = written(convention, wanted)
    if unit == "fractions":
        given = given / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    reading = read(given)
    assert not reading.errors
    np.testing.assert_allclose(reading.boxes_N4, wanted, atol=1e-9)
    assert len(reading.notes) == 1
    assert ("fractions" in reading.notes[0]) == (unit == "fractions")


def test_fractions_of_corner_and_size_are_read() -> None:
    wanted = boxes(40)
    np.testing.assert_allclose(read(wanted / [WIDTH, HEIGHT, WIDTH, HEIGHT]).boxes_N4, wanted, atol=1e-9)


def test_fractions_that_may_be_two_things_are_refused() -> None:
    (error,) = read(np.array([[0.4, 0.4, 0.2, 0.2], [0.5, 0.5, 0.1, 0.1]])).errors
    assert "[x, y, width, height] or [centre x, centre y, width, height]" in error
    assert "multiply by the image's width and height" in error


@pytest.mark.parametrize("area", ["of the boxes", "of the numbers", "of masks"])
def test_areas_of_corners(area: str) -> None:
    wanted = boxes(4)
    given = written("corners", wanted)
    own = wanted[:, 2] * wanted[:, 3]
    areas = {"of the boxes": own, "of the numbers": given[:, 2] * given[:, 3], "of masks": own * 0.6}[area]
    reading = read(given, areas)
    if area == "of the boxes":
        np.testing.assert_allclose(reading.boxes_N4, wanted)
        np.testing.assert_allclose(read_areas(given, reading, areas), own)
    else:
        assert reading.boxes_N4 is None
        assert "two corners" in reading.errors[0], "too few to be certain, but most of them leave their image"
    reading = read(written("corners", boxes(40)), np.tile(areas, 10))
    assert reading.boxes_N4 is not None


@pytest.mark.parametrize("count", [1, 2, 5, 40, 400])
def test_boxes_as_they_should_be_stay(count: int) -> None:
    given = boxes(count, seed=count)
    reading = read(given, given[:, 2] * given[:, 3])
    assert (reading.boxes_N4, reading.notes, reading.errors) == (None, [], [])


def test_a_few_boxes_over_the_border_are_no_convention() -> None:
    given = boxes(40)
    given[:3, :2] += 9
    assert read(given).boxes_N4 is None


@pytest.mark.parametrize("convention", ["sizes", "corners"])
def test_boxes_that_fit_with_x_and_y_exchanged_alone_are_refused(convention: str) -> None:
    exchanged = np.array([[5.0, 62 + n, 20, 30 - n] for n in range(8)])
    (error,) = read(written(convention, exchanged)).errors
    assert "would with x and y exchanged" in error


def test_a_side_of_minus_one_is_no_flipped_box() -> None:
    assert read(np.array([[5.0, 5, -1, -1], [8, 6, 30, 24]])).boxes_N4 is None


def notes(boxes_N4: Floats, scale: int = 1, **columns: Any) -> list[str]:
    rows = [
        {
            "id": n,
            "image_id": n % 10,
            "category_id": 1,
            "bbox": box,
            **{key: value[n] for key, value in columns.items()},
        }
        for n, box in enumerate(boxes_N4.tolist())
    ]
    data = {"images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(10)], "annotations": rows}
    limits_N2 = np.tile(np.array([WIDTH, HEIGHT], float) * scale, (len(rows), 1))
    return set_notes(data, annotation_arrays(rows), limits_N2)


def test_an_ordinary_set_has_no_notes() -> None:
    assert notes(boxes(40)) == []


@pytest.mark.parametrize(
    ("factor", "words"), [(0.4, "of smaller images"), (3.0, "of larger images")], ids=["smaller", "larger"]
)
def test_boxes_of_another_resolution_are_noted(factor: float, words: str) -> None:
    (note,) = notes(boxes(40) * factor)
    assert words in note


def test_percentages_are_noted() -> None:
    percent_N4 = boxes(40) * 100 / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    (note,) = notes(percent_N4, scale=10)
    assert "no box reaches beyond 100 pixels, in images of up to 1000: they look like percentages" in note


def test_a_dozen_percentages_and_a_few_boxes_of_larger_images_are_noted() -> None:
    percent_N4 = boxes(12) * 100 / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    assert "they look like percentages" in "; ".join(notes(percent_N4, scale=10))
    few = np.array([[10.0, 10, 100, 85], [5, 20, 60, 75], [50, 9, 60, 60]])
    (note,) = notes(few)
    assert "3 of 3 boxes leave their image on the right or below: they look like boxes of larger images; use" in note
    (note,) = notes(boxes(12) * 10)
    assert "of larger images, or like thousandths of the image's size (multiply by width / 1000" in note
    assert notes(few[:2]) == []


@pytest.mark.parametrize(("parts", "unit"), [(100, "per cent"), (1000, "thousandths")])
def test_areas_in_pixels_show_boxes_in_parts_of_the_image(parts: int, unit: str) -> None:
    wanted = boxes(4) * np.array([6.4, 6.0, 6.4, 6.0])
    sides = np.array([WIDTH * 6.4, HEIGHT * 6.0])
    areas_N = wanted[:, 2] * wanted[:, 3]
    given = wanted * parts / np.concatenate([sides, sides])
    reading = read_boxes(given, areas_N, np.tile(sides, (4, 1)))
    np.testing.assert_allclose(reading.boxes_N4, wanted)
    assert f"in {unit} of the image's size, since every 'area' is that of such a box in pixels" in reading.notes[0]
    for other in (given[:, 2] * given[:, 3], np.full(4, np.nan), areas_N * [1, 1, 2, 3]):
        assert read_boxes(given, other, np.tile(sides, (4, 1))).boxes_N4 is None


def test_areas_decide_what_fractions_are() -> None:
    given = np.array([[0.1, 0.1, 0.4, 0.3], [0.2, 0.3, 0.5, 0.6]])
    assert "can be " in read(given).errors[0]
    across, down = (given[:, 2:] - given[:, :2]).T
    for whole in (1, WIDTH * HEIGHT):
        reading = read(given, across * down * whole)
        assert "two corners [x1, y1, x2, y2] in fractions" in reading.notes[0]
        np.testing.assert_allclose(reading.boxes_N4[0], [10, 8, 30, 16])


def test_repeated_boxes_are_counted() -> None:
    given = boxes(40)
    given[[10, 30]] = given[[0, 0]]
    given[21] = given[0]  # in another image
    (note,) = notes(given)
    assert note.startswith("2 annotations repeat the image, class and box of another")


@pytest.mark.parametrize(
    ("key", "words"),
    [("score", "is this ground truth?"), ("ignore", "'ignore' 1, which is not read"), ("rotation", "upright 'bbox'")],
)
def test_keys_of_other_programs_that_matter_are_named(key: str, words: str) -> None:
    assert [words in note for note in notes(boxes(8), **{key: [1] * 8})] == [True]
    assert notes(boxes(8), keypoints=[[1, 2, 2]] * 8) == []


def test_crowd_regions_alone_of_their_class_are_noted() -> None:
    (note,) = notes(boxes(12), iscrowd=[int(n == 3) for n in range(12)])
    assert note.startswith("1 of 1 annotations with iscrowd 1 are alone of their class in their image")
    assert notes(boxes(12), iscrowd=[int(n == 0) for n in range(12)]) == [], "annotation 10 is of the same image"


@pytest.mark.parametrize(
    "value",
    [
        "[1, 2, 3, 4]", "1 2 3 4", "(1.0; 2; 3; 4)", ["1", "2", "3", "4"],
        {"x": 1, "y": 2, "w": 3, "h": "4"}, {"left": 1, "top": 2, "width": 3, "height": 4},
        {"xmin": 1, "ymin": 2, "xmax": 4, "ymax": 6}, {"X1": 1, "Y1": 2, "X2": 4, "Y2": 6},
    ],
)  # fmt: skip
def test_boxes_in_quotes_and_with_named_sides(value: object) -> None:
    found = parsed_box(value)
    assert found is not None
    assert found[0] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", ["1 2 3", "a b c d", {"x": 1, "y": 2}, {"x": 1, "y": 2, "w": None, "h": 4}, [[1, 2]]])
def test_boxes_that_mean_nothing(value: object) -> None:
    assert parsed_box(value) is None


@pytest.mark.parametrize(
    ("mask", "box"),
    [
        ([[8, 6, 38, 6, 38, 30, 8, 30]], [8, 6, 30, 24]),
        ([[8, 6, 38, 6, 38, 30], [1, 2, 3, 4, 5, 40]], [1, 2, 37, 38]),
        ([8, 6, 38, 6, 38, 30], [8, 6, 30, 24]),
        ([[8, 6], [38, 6], [38, 30]], [8, 6, 30, 24]),
        ([], None),
        ([[1, 2, 3]], None),
        ({"counts": [12], "size": [3, 4]}, None),
        ({"counts": [1, 99], "size": [3, 4]}, None),
        ({"counts": "!", "size": [3, 4]}, None),
        ("text", None),
    ],
)
def test_the_box_around_polygons(mask: object, box: list[float] | None) -> None:
    assert mask_box(mask) == box


def test_the_box_around_an_encoded_mask_is_pycocotools_own() -> None:
    rng = np.random.default_rng(3)
    for density in (0.001, 0.01, 0.3, 1.0):
        pixels = np.asfortranarray((rng.uniform(size=(37, 53)) < density).astype(np.uint8))
        pixels[20, 30] = 1
        compressed = pycocotools_mask.encode(pixels)
        wanted = pycocotools_mask.toBbox(compressed).tolist()
        flat = pixels.flatten(order="F")
        ends = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *ends, flat.size]).tolist()
        counts = [0, *counts] if flat[0] else counts
        assert mask_box({"counts": compressed["counts"].decode(), "size": [37, 53]}) == wanted
        assert mask_box({"counts": counts, "size": [37, 53]}) == wanted


def content(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def one(image_id: object, category_id: object = 1, box: object = (1, 2, 3, 4)) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": box}


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (content([{"id": 5, "file_name": "x.jpg"}], [one("x.jpg", "b")]), [(5, 2)]),
        (content([{"id": "k7"}, {"id": "a2"}], [one("a2"), one("k7", 2)]), [(2, 1), (1, 2)]),
        (content([{"id": 5, "file_name": "images/x.jpg"}], [one("x"), one("x", 2)]), [(5, 1), (5, 2)]),
        (content([{"id": 5, "file_name": "images/x.jpg"}], [one("x.jpg") | {"id": "f81d4fae"}]), [(5, 1)]),
        (content([{"id": 5, "annotations": [{"category_id": 2, "bbox": [1, 2, 3, 4]}]}], []), [(5, 2)]),
        ({**content([{"id": 5}], [one(5, 0), one(5, 1)]), "categories": ["a", "b"]}, [(5, 0), (5, 1)]),
        ({**content([{"id": 5}], [one(5, 2)]), "categories": {"1": "a", "2": "b"}}, [(5, 2)]),
        ({**content([], [one(5)]), "images": {"5": {"file_name": "x.jpg"}}}, [(5, 1)]),
        ({**content([{"id": 5}], [one(5, 2)]), "categories": {"a": 1, "b": 2}}, [(5, 2)]),
        (content([{"id": 5}], [one([5], [2]) | {"iscrowd": [0], "area": [12.0]}]), [(5, 2)]),
        (content([{"image_id": 5}], [one(5, 2) | {"iscrowd": "false"}]), [(5, 2)]),
        ({**content([{"id": 5}], [one(5, 2)]), "categories": [{"category_id": 2, "label": "b"}]}, [(5, 2)]),
        (content([{"id": 5}], [one(5, 2, [[1, 2], [4, 2], [4, 6], [1, 6]])]), [(5, 2)]),
    ],
)
def test_ids_and_layouts_of_other_programs(tmp_path: Path, data: object, wanted: list[tuple[int, int]]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
    truth = load_ground_truth(tmp_path / "a.json")
    assert [(row["image_id"], row["category_id"]) for row in truth["annotations"]] == wanted
    assert {row["image_id"] for row in truth["annotations"]} <= {row["id"] for row in truth["images"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (content([{"id": 5}], [one(5, 0), one(5, 1)]), "look counted from 0; add 1 to every 'category_id'"),
        ({**content([{"id": 5}], [one(5, 1)]), "categories": ["a", "b"]}, r"categories\[0\] is 'a', not an object"),
        (
            {**content([{"id": 5}], []), "categories": [{"id": 1, "supercategory": "pet"}]},
            "'pet': if that is",
        ),
        ({"images": [{"id": 5}], "annotations": [one(5, 3)]}, r"for each category_id in use: \[3\]"),
        (content([{"id": 5}], [one("5"), one(5)]), "write 5, an integer without quotes"),
        (content([{"id": 5}], [{"image_id": 5, "category_id": 1, "bbox": []}]), "bbox"),
    ],
)
def test_ids_that_are_ambiguous_are_refused_with_their_cause(tmp_path: Path, data: object, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_ground_truth(tmp_path / "a.json")


@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize(("box", "is_certain"), [([1, 1, 5, 30], True), ([1, 1, 30, 5], False), ([1, 1, 5, 5], None)])
def test_swapped_sizes(tmp_path: Path, box: list[int], is_certain: bool | None, exif: bool) -> None:
    """The JSON has 40 x 20; the image, as viewers show it, is 20 x 40."""
    tag = Image.Exif()
    tag[0x0112] = 6
    image = Image.new("RGB", (40, 20) if exif else (20, 40))
    image.save(tmp_path / "x.jpg", exif=tag if exif else Image.Exif())
    data = content([{"id": 1, "file_name": "x.jpg", "width": 40, "height": 20}], [one(1, 1, box)])
    (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
    if is_certain or (is_certain is None and not exif):
        for check in ("none", "header"):
            dataset = load_coco(tmp_path / "a.json", tmp_path, check)  # type: ignore[arg-type]
            assert (dataset.images[0].width, dataset.images[0].height) == (20, 40)
            assert "width and height swapped" in " ".join(dataset.notes)
    else:
        with pytest.raises(DataError, match="the JSON says 40 x 20"):
            load_coco(tmp_path / "a.json", tmp_path, "header")
