"""Boxes of annotations that name their convention."""

from typing import Any

import pytest

from retinanet.data.box_modes import with_usual_boxes
from retinanet.data.notes import KindNotes


def boxes_of(mode: object, box: list[Any], size: object = 100) -> tuple[object, list[str]]:
    notes = KindNotes()
    data = {
        "images": [{"id": 1, "width": size, "height": 50}],
        "annotations": [{"image_id": 1, "bbox": box, "bbox_mode": mode}],
    }
    return with_usual_boxes(data, notes)["annotations"][0]["bbox"], notes.texts()


@pytest.mark.parametrize(
    ("mode", "box"),
    [
        (0, [10, 20, 40, 30]),
        ("XYXY_ABS", [10, 20, 40, 30]),
        ("<BoxMode.XYXY_ABS: 0>", [10, 20, 40, 30]),
        ("pascal_voc", [10, 20, 40, 30]),
        (2, [0.1, 0.4, 0.4, 0.6]),
        ("BoxMode.XYWH_REL", [0.1, 0.4, 0.3, 0.2]),
        ("cxcywh", [25, 25, 30, 10]),
        ("yolo", [0.25, 0.5, 0.3, 0.2]),
        (4, [25, 25, 10, 30, 90]),
    ],
)
def test_each_mode_is_the_same_box(mode: object, box: list[float]) -> None:
    found, notes = boxes_of(mode, box)
    assert found == pytest.approx([10, 20, 30, 10])
    assert len(notes) == 1
    assert "read by their 'bbox_mode'" in notes[0] or "read by its" in notes[0] or "is read by" in notes[0]


def test_sizes_need_no_note() -> None:
    assert boxes_of(1, [1, 2, 3, 4]) == ([1.0, 2.0, 3.0, 4.0], [])


@pytest.mark.parametrize(("mode", "size"), [(7, 100), ("round", 100), (True, 100), (4, 100), (2, None)])
def test_what_does_not_fit_stays_and_is_noted(mode: object, size: object) -> None:
    found, (note,) = boxes_of(mode, [1, 2, 3, 4], size)
    assert found == [1, 2, 3, 4]
    assert "not known here or does not fit" in note
