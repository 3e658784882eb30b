"""Tables of boxes, as the spreadsheets of different countries write them."""

from pathlib import Path

import pytest
from PIL import Image

from retinanet.errors import DataError
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.recognise import read_any

HEADING = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROW = "a.png,64,48,dog,8,6,38,30\n"


def read(folder: Path, text: str, encoding: str = "utf-8") -> LabeledSet:
    """The data set of a folder with one image of 64 x 48 pixels and a table."""
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    (folder / "boxes.csv").write_bytes(text.encode(encoding))
    found = read_any(folder)
    assert isinstance(found, LabeledSet)
    return found


@pytest.mark.parametrize(
    ("text", "encoding", "note"),
    [
        (HEADING + ROW, "utf-8", ""),
        (HEADING + ROW, "utf-8-sig", ""),
        (HEADING + ROW, "utf-16", ""),
        ((HEADING + ROW).replace("\n", "\r\n"), "utf-8", ""),
        ((HEADING + ROW).replace(",", ";"), "utf-8", "cells are separated by semicolons"),
        ((HEADING + ROW).replace(",", "\t"), "utf-8", "cells are separated by tabs"),
        ((HEADING + ROW).replace(",", ";").replace("8;6;", "8,0;6,0;"), "utf-8", "2 numbers have a decimal comma"),
        (HEADING + '"a.png",64,48,"dog","8,00",6,38,30\n', "utf-8", "1 number has a decimal comma"),
        ("a.png,8,6,38,30,dog\n", "utf-8", ""),
        (HEADING + ROW + HEADING, "utf-8", "1 heading is repeated within the table"),
        ("file,class,x_center,y_center,width,height\na.png,dog,23,18,30,24\n", "utf-8", "the centre of a box, width"),
        (
            'image_id,width,bbox,class\na,64,"[8.0, 6, 30, 24]",dog\na,64,,\n',
            "utf-8",
            "in one cell are read",
        ),
        (
            "filename,class,conf,x1,y1,x2,y2\na.png,dog,0.4,8,6,38,30\n",
            "utf-8",
            "1 box has a confidence",
        ),
        (HEADING + "a.png,64,48,dog,38,30,8,6\n", "utf-8", "1 box is written from another corner"),
        (HEADING + "a.png,64,48,dog,0.125,0.125,0.59375,0.625", "utf-8", "are read as fractions of the image"),
    ],
)
def test_one_table_in_many_hands_is_the_same(tmp_path: Path, text: str, encoding: str, note: str) -> None:
    found = read(tmp_path, text, encoding)
    (labeled,) = found.splits["all"].images
    assert [(box.name, box.bbox) for box in labeled.boxes] == [("dog", (8, 6, 30, 24))]
    assert note in "; ".join(found.notes)
    assert found.notes or not note


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,64,48\n", "boxes.csv:2: 3 cells, but 8 are needed"),
        ("a.png,64,48,dog,8%,6,38,30\n", "boxes.csv:2: '8%' is not a number but a percentage"),
        (ROW + 'a.png,64,48,dog,"1,234",6,38,30\n', "boxes.csv:3: '1,234' is not a number"),
        ("a.png,128,96,dog,8,6,38,30\n", "labelled at 128 x 96 .*, the file has 64 x 48; use .*, or scale its labels"),
        ("a.png,48,64,dog,8,6,38,30\n", "labelled at 48 x 64 .* 64 x 48 .its EXIF rotation may"),
        ("a.png,64,48,dog,30,20,20,18\n" * 2, "2 of 2 boxes have their second corner left of or above"),
        ("a.png,64,48,,8,6,38,30\n", "boxes.csv:2: the box has no class"),
        ("a.png,64,48,dog,nan,6,38,30\n", "boxes.csv:2: 'nan' is not a finite number"),
        (",64,48,dog,8,6,38,30\n", "boxes.csv:2: names no image"),
        ("a.png,64,48," + "d" * 200_000 + ",8,6,38,30\n", "cannot be read as a table"),
    ],
)
def test_errors_name_the_line_and_the_cause(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, HEADING + rows)


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"boxes.csv: not UTF-8 text at byte \d+, in line 2; save it"):
        read(tmp_path, HEADING + ROW.replace("dog", "B\u00e4r"), "latin-1")


def test_boxes_that_leave_their_image_are_noted(tmp_path: Path) -> None:
    found = read(tmp_path, HEADING + ROW + "a.png,64,48,dog,30,6,90,30\n")
    assert found.splits["all"].images[0].boxes[1].bbox == (30, 6, 34, 24)
    assert any("cut at the border" in note for note in found.notes)


def test_a_box_in_one_cell_has_four_numbers_and_a_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"boxes.csv:2: the box '\[8, 6, 30\]' is not \[x, y, width, height\]"):
        read(tmp_path, 'image,class,bbox\na.png,dog,"[8, 6, 30]"\n')
    with pytest.raises(DataError, match=r"'image_id,width,height,bbox,source', has no column class\. "):
        read(tmp_path, 'image_id,width,height,bbox,source\na,64,48,"[8, 6, 30, 24]",field\n')
