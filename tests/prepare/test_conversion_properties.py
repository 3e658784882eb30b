"""Whatever YOLO's and Pascal VOC's files hold, the boxes read are within their images or the file is named."""

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis_profiles import given, refused_at_most, st, with_one_change
from PIL import Image

from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.voc import read_voc
from retinanet.prepare.yolo import read_yolo

HEIGHT, WIDTH = 96, 160

numbers = st.one_of(
    st.floats(-2, 2),
    st.floats(),
    st.integers(-(10**30), 10**30),
    st.sampled_from(["0,5", "1e999", "nan", "", "١", "50%"]),
).map(str)
odd = st.sampled_from(["\0", "\x1b[2J", "\u2028", "\x85", ",", "\t", " ", "é", "\ufeff", "1_0"]) | st.text(max_size=3)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """x, y, width and height of a box within the image."""
    x, y = draw(st.integers(0, WIDTH - 2)), draw(st.integers(0, HEIGHT - 2))
    return x, y, draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y))


def check(read: LabeledSet) -> list[tuple[float, ...]]:
    """Check that all boxes are within their image; returns them."""
    found = [box.bbox for split in read.splits.values() for image in split.images for box in image.boxes]
    for x, y, w, h in found:
        assert min(x, y, w, h) >= 0, "no NaN either"
        assert x + w <= WIDTH + 0.002
        assert y + h <= HEIGHT + 0.002
    return found


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yolo")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images/a.png")
    return folder


@pytest.fixture(autouse=True)
def _describe(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images\nnames: [ant, bee]\n", encoding="utf-8")


@given(st.lists(boxes(), min_size=1, max_size=5))
def test_yolo_gives_back_the_boxes_that_were_written(yolo: Path, drawn: list[tuple[int, int, int, int]]) -> None:
    lines = [f"1 {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}" for x, y, w, h in drawn]
    (yolo / "labels/a.txt").write_text("\n".join(lines), encoding="utf-8")
    for found, written in zip(check(read_yolo(yolo)), drawn, strict=True):
        assert found == pytest.approx(written, abs=0.001)


@given(
    st.lists(st.lists(numbers | st.sampled_from(["0", "1", "bee"]) | odd, max_size=12).map(" ".join), max_size=4),
    st.booleans(),
)
def test_any_yolo_labels_are_read_within_the_image_or_named(yolo: Path, lines: list[str], clip: bool) -> None:
    (yolo / "labels/a.txt").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    with refused_at_most(yolo):
        check(read_yolo(yolo, clip=clip))


PIECES = (
    *("train: ", "val: ", "names: ", "kpt_shape: ", "path: ", "images\n", "[a, b]\n", "..\n", "[2, 3]\n", "/\n"),
    *("nc: 3\n", "\n", "{0: a}\n", "null\n"),
)
"""Of a data.yaml."""


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_yolo_description_is_followed_or_named(yolo: Path, text: str) -> None:
    (yolo / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.5", encoding="utf-8")
    (yolo / "data.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    with refused_at_most(yolo):
        check(read_yolo(yolo))


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voc")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    return folder


def xml(objects: list[dict[str, str]]) -> str:
    def tags(names: Iterable[str], row: dict[str, str]) -> str:
        return "".join(f"<{name}>{escape(row[name])}</{name}>" for name in names if name in row)

    rows = [
        f"<object>{tags(('name', 'difficult'), row)}<bndbox>{tags(SIDES, row)}</bndbox></object>" for row in objects
    ]
    return f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{''.join(rows)}</annotation>"


SIDES = ("xmin", "ymin", "xmax", "ymax")
voc_objects = st.builds(
    lambda box: (
        {"name": "ant", "difficult": "1"}
        | dict(zip(SIDES, map(str, (box[0] + 1, box[1] + 1, box[0] + box[2], box[1] + box[3]))))
    ),
    boxes(),
)


@given(st.lists(boxes(), min_size=1, max_size=5))
def test_voc_gives_back_the_boxes_that_were_written(voc: Path, drawn: list[tuple[int, int, int, int]]) -> None:
    rows = [dict(zip(SIDES, map(str, (x + 1, y + 1, x + w, y + h))), name="ant") for x, y, w, h in drawn]
    (voc / "a.xml").write_text(xml(rows), encoding="utf-8")
    # A box of one pixel has equal corners, which many tools write for a click: it is kept without area.
    assert check(read_voc(voc)) == [(x, y, *((0, 0) if (w, h) == (1, 1) else (w, h))) for x, y, w, h in drawn]


@given(
    st.lists(voc_objects, min_size=1, max_size=3).flatmap(lambda rows: with_one_change(rows, numbers | odd)),
    st.booleans(),
)
def test_any_voc_objects_are_read_within_the_image_or_named(voc: Path, rows: list[dict[str, str]], clip: bool) -> None:
    rows = [row for row in rows if isinstance(row, dict)]
    (voc / "a.xml").write_text(xml(rows), encoding="utf-8", errors="surrogatepass")
    with refused_at_most(voc):
        check(read_voc(voc, zero_based=None, clip=clip))


@given(st.data())
def test_any_damaged_xml_is_read_within_the_image_or_named(voc: Path, data: st.DataObject) -> None:
    text = bytearray(xml([{"name": "ant", "xmin": "3", "ymin": "4", "xmax": "50", "ymax": "60"}]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=4)
            | st.sampled_from([b"<!DOCTYPE a>", b"&lt;", b"<?xml version='1.0' encoding='utf-7'?>"])
        )
    (voc / "a.xml").write_bytes(text)
    with refused_at_most(voc):
        check(read_voc(voc))
