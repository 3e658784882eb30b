"""Whatever annotations, detections and image files hold, they are read within their contracts or refused by message."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis_profiles import given, refused_at_most, scalars, st, trees, with_one_change
from PIL import Image

from retinanet.data.coco import CocoDataset, load_coco, parse_coco
from retinanet.data.images import decode_image, read_header
from retinanet.data.results import read_results

HEIGHT, WIDTH, IMAGES = 24, 32, 3
KEYS = ("images", "annotations", "categories", "id", "file_name", "width", "height", "image_id", "category_id", "bbox",
    "area", "iscrowd", "name", "score", "info", "segmentation", "counts", "size")  # fmt: skip
keys = st.sampled_from(KEYS) | st.text(max_size=6)
anything = trees(keys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        Image.new("RGB", (WIDTH, HEIGHT)).save(path / f"{number}.png")
    return path


@st.composite
def boxes(draw: st.DrawFn) -> list[float]:
    """[x, y, w, h] within the image, wider than a pixel."""
    x, y = draw(st.integers(0, 30)), draw(st.integers(0, 22))
    return [x, y, draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y))]


@st.composite
def sets(draw: st.DrawFn) -> dict[str, Any]:
    """COCO-format content without errors."""
    image_ids = draw(st.lists(st.integers(0, 2**53), min_size=IMAGES, max_size=IMAGES, unique=True))
    class_ids = draw(st.lists(st.integers(0, 999), min_size=1, max_size=3, unique=True))
    drawn = draw(
        st.lists(st.tuples(st.sampled_from(image_ids), st.sampled_from(class_ids), boxes(), st.integers(0, 1)))
    )
    return {
        "images": [
            {"id": one, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
            for number, one in enumerate(image_ids)
        ],
        "categories": [{"id": one, "name": f"class {one}"} for one in class_ids],
        "annotations": [
            {"id": i, "image_id": image, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for i, (image, k, box, crowd) in enumerate(drawn, 1)
        ],
    }  # fmt: skip


def check(dataset: CocoDataset) -> int:
    """Check a data set's contract; returns its number of boxes and crowd regions."""
    count = 0
    for image in dataset.images:
        for box_N4 in (image.boxes_G4, image.crowd_C4):
            assert box_N4.dtype == np.float32
            assert np.isfinite(box_N4).all()
            assert (box_N4 >= 0).all()
            assert (box_N4 <= np.array([image.width, image.height] * 2)).all()
            assert (box_N4[:, :2] < box_N4[:, 2:]).all()
            count += len(box_N4)
        assert len(image.classes_G) == len(image.boxes_G4)
        assert set(image.classes_G.tolist()) <= set(range(len(dataset.categories)))
    assert count + sum(dataset.dropped.values()) == len(dataset.ground_truth["annotations"])
    return count


@given(st.dictionaries(keys, anything, max_size=5) | anything)
def test_any_json_is_a_data_set_or_one_message(folder: Path, content: Any) -> None:
    path = folder / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with refused_at_most(path):
        check(load_coco(path, folder))


@given(sets(), st.randoms(use_true_random=False))
def test_a_data_set_is_the_same_in_any_order(folder: Path, content: dict[str, Any], order: Any) -> None:
    path = folder / "a.json"
    dataset = parse_coco(json.loads(json.dumps(content)), path, folder)
    assert check(dataset) == len(content["annotations"])
    shuffled = {key: order.sample(rows, len(rows)) for key, rows in content.items()}
    other = parse_coco(json.loads(json.dumps(shuffled)), path, folder)
    assert other.categories == dataset.categories
    for one, two in zip(dataset.images, other.images, strict=True):
        assert one[:4] == two[:4]
        rows = [sorted(np.c_[image.boxes_G4, image.classes_G].tolist()) for image in (one, two)]
        assert rows[0] == rows[1]
        assert sorted(one.crowd_C4.tolist()) == sorted(two.crowd_C4.tolist())


@given(st.data())
def test_a_data_set_with_one_odd_value_is_read_within_its_contract_or_refused(
    folder: Path, data: st.DataObject
) -> None:
    content = data.draw(sets().flatmap(lambda good: with_one_change(good, anything)))
    path = folder / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with refused_at_most(path):
        check(load_coco(path, folder))


TRUTH = {"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}], "categories": [{"id": 5}]}
detections = st.fixed_dictionaries(
    {
        "image_id": st.sampled_from([1, 2]),
        "category_id": st.just(5),
        "bbox": st.lists(st.floats(0, 1e6), min_size=4, max_size=4),
        "score": st.floats(-1e9, 1e9),
    }
)


@given(
    st.lists(detections), st.dictionaries(st.text(max_size=3), scalars.filter(lambda one: one != "\ud800"), max_size=2)
)
def test_good_detections_come_back_as_they_are(folder: Path, rows: list[Any], more: dict[str, Any]) -> None:
    path = folder / "r.json"
    path.write_text(json.dumps([{**more, **row} for row in rows]), encoding="utf-8")
    assert read_results(path, TRUTH) == rows


@given(st.lists(detections, min_size=1, max_size=3).flatmap(lambda good: with_one_change(good, anything)) | anything)
def test_other_detections_can_be_scored_or_are_refused(folder: Path, content: Any) -> None:
    path = folder / "r.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    rows: list[dict[str, Any]] = []
    with refused_at_most(path):
        rows = read_results(path, TRUTH)
    for row in rows:
        assert (row["image_id"] in (1, 2), row["category_id"]) == (True, 5)
        assert type(row["image_id"]) is type(row["category_id"]) is int
        assert np.isfinite([*row["bbox"], row["score"]]).all()


FORMS = (("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("BMP", "RGB"), ("TIFF", "L"),
    ("TIFF", "RGB"), ("PPM", "RGB"), ("GIF", "P"), ("WEBP", "RGB"), ("JPEG", "RGB"), ("JPEG", "L"))  # fmt: skip


@st.composite
def image_files(draw: st.DrawFn) -> tuple[str, bytes, Image.Image]:
    """The format, bytes and pixels of a small image."""
    form, mode = draw(st.sampled_from(FORMS))
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    pixels = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    file = io.BytesIO()
    image.save(file, form, **({"lossless": True} if form == "WEBP" else {}))
    return form, file.getvalue(), image


@given(image_files())
def test_an_image_is_what_pillow_says(folder: Path, made: tuple[str, bytes, Image.Image]) -> None:
    form, data, image = made
    path = folder / "one"
    path.write_bytes(data)
    decoded = decode_image(path)
    assert read_header(path).size == (image.height, image.width) == tuple(decoded.shape[1:])
    if form != "JPEG":
        np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


@pytest.mark.filterwarnings("ignore")  # Pillow's on damaged metadata
@given(image_files(), st.data())
def test_a_damaged_image_has_the_size_of_its_header_or_is_refused(
    folder: Path, made: tuple[str, bytes, Image.Image], data: st.DataObject
) -> None:
    damaged, path = bytearray(made[1]), folder / "one"
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(st.sampled_from([None, len(damaged) // 2, len(damaged) - 1]))])
    with refused_at_most(path):
        size = read_header(path).size
        assert tuple(decode_image(path, warn=False).shape) == (3, *size)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"BM"])
)
def test_bytes_are_no_image_by_chance(folder: Path, junk: bytes, start: bytes) -> None:
    path = folder / "one"
    path.write_bytes(start + junk)
    with refused_at_most(path):
        assert decode_image(path, warn=False).shape[0] == 3
