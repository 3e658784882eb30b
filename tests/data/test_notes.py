"""Notes: one sentence a kind, with a count, in the singular for one."""

import pytest

from retinanet.data.notes import KindNotes, counted


@pytest.mark.parametrize(
    ("count", "kind", "text"),
    [
        (1, "file names have backslashes", "1 file name has backslashes"),
        (1, "boxes are read as corners", "1 box is read as corners"),
        (1, "classes differ in case", "1 class differs in case"),
        (1, "entries lack a name", "1 entry lacks a name"),
        (1, "annotations have no 'bbox': the boxes are made", "1 annotation has no 'bbox': the boxes are made"),
        (1, "values true and false of 'iscrowd' are read", "1 values true and false of 'iscrowd' are read"),
        (1234, "file names have backslashes", "1,234 file names have backslashes"),
    ],
)
def test_one_is_singular_where_the_sentence_begins_with_its_subject(count: int, kind: str, text: str) -> None:
    assert counted(count, kind) == text


def test_each_kind_is_counted_and_keeps_its_first_example() -> None:
    notes = KindNotes()
    notes.add("names are long", "a")
    notes.say("classes differ")
    notes.add("names are long", "b", 2)
    notes.say("classes differ")
    assert notes.texts() == ["3 names are long; for example a", "classes differ"]
