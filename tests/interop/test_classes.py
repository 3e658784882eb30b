"""The outputs of foreign class heads that are kept, and their classes."""

import json
from pathlib import Path

import pytest

from retinanet.errors import ConfigError, DataError
from retinanet.interop.classes import Classes, choose_classes, coco_categories

GAPS = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
"""Ids in 1..90 that no COCO category has."""


def chosen(
    outputs: int, rows_are_ids: bool, file: Path | None = None, known: tuple[str, ...] = (), coco_only: bool = False
) -> Classes:
    return choose_classes(outputs, rows_are_ids, file, known, coco_only)


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def annotations(path: Path, ids: list[int]) -> Path:
    categories = [{"id": i, "name": f"thing {i}", "supercategory": "x"} for i in reversed(ids)]
    return written(path, {"images": [], "annotations": [], "categories": categories})


def pairs(classes: Classes) -> list[tuple[int, str, int]]:
    return [(c.id, c.name, row) for c, row in zip(classes.categories, classes.rows, strict=True)]


def test_coco_has_its_80_categories_with_their_ids() -> None:
    coco = coco_categories()
    assert len(coco) == 80
    assert [c.id for c in coco] == [i for i in range(1, 91) if i not in GAPS]
    assert (coco[0].name, coco[11].name, coco[79]) == ("person", "stop sign", (90, "toothbrush"))


def test_all_of_torchvisions_91_outputs_are_kept_unless_coco_only_is_given() -> None:
    every = chosen(91, rows_are_ids=True)
    assert every.rows == [c.id for c in every.categories] == list(range(91))
    assert (every.categories[1].name, every.categories[12].name) == ("person", "N/A")
    classes = chosen(91, rows_are_ids=True, coco_only=True)
    assert classes.categories == coco_categories()
    assert classes.rows == [c.id for c in coco_categories()]
    assert all(f" {i}" in classes.source for i in [0, *GAPS])
    with pytest.raises(ConfigError, match="91 outputs; these weights have 20"):
        chosen(20, rows_are_ids=True, coco_only=True)


def test_80_contiguous_outputs_are_cocos_and_others_are_numbered() -> None:
    assert chosen(80, rows_are_ids=False).categories == coco_categories()
    assert chosen(80, rows_are_ids=False).rows == list(range(80))
    assert pairs(chosen(2, rows_are_ids=False)) == [(1, "class 0", 0), (2, "class 1", 1)]
    assert pairs(chosen(2, rows_are_ids=True)) == [(0, "class 0", 0), (1, "class 1", 1)]
    assert "--classes" in chosen(2, rows_are_ids=True).source


def test_names_in_the_weights_file_are_used(tmp_path: Path) -> None:
    assert pairs(chosen(2, False, known=("cat", "dog"))) == [(1, "cat", 0), (2, "dog", 1)]
    coco = tuple(c.name for c in coco_categories())
    assert chosen(80, False, known=coco).categories == coco_categories()
    assert pairs(chosen(3, False, known=("cat", "dog")))[0] == (1, "class 0", 0)
    file = written(tmp_path / "n.json", ["a", "b"])
    assert pairs(chosen(2, False, file, known=("cat", "dog"))) == [(1, "a", 0), (2, "b", 1)]


def test_a_list_of_names(tmp_path: Path) -> None:
    file = written(tmp_path / "names.json", ["cat", None, "dog"])
    assert pairs(chosen(3, False, file)) == [(1, "cat", 0), (3, "dog", 2)]
    assert pairs(chosen(3, True, file)) == [(0, "cat", 0), (2, "dog", 2)]
    assert pairs(chosen(4, True, file)) == [(1, "cat", 1), (3, "dog", 3)], "output 0 is the background's"


def test_an_annotation_file(tmp_path: Path) -> None:
    file = annotations(tmp_path / "a.json", [2, 5, 9])
    assert pairs(chosen(3, False, file)) == [(2, "thing 2", 0), (5, "thing 5", 1), (9, "thing 9", 2)]
    assert pairs(chosen(3, True, file)) == pairs(chosen(3, False, file))
    assert pairs(chosen(11, True, file)) == [(2, "thing 2", 2), (5, "thing 5", 5), (9, "thing 9", 9)]


@pytest.mark.parametrize(
    ("content", "outputs", "ids", "words"),
    [
        (["a", "b"], 3, False, "names 2 classes, but the weights have 3 outputs"),
        (["a", "b"], 4, True, "names 2 classes, but the weights have 4"),
        (["a", 3], 2, False, "a list of class names holds strings"),
        (["a", " "], 2, False, "a list of class names holds strings"),
        ([None, None], 2, False, "names no class"),
        ({"categories": []}, 2, False, "neither a list of class names nor"),
        ({"classes": ["a"]}, 1, False, "neither a list of class names nor"),
        ({"categories": [{"id": "1", "name": "a"}]}, 1, False, "neither a list of class names nor"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, 2, False, "the same id"),
        ({"categories": [{"id": 1, "name": "a"}]}, 2, False, "has 1 categories, but the weights have 2"),
        ({"categories": [{"id": 7, "name": "a"}]}, 4, True, "has 1 categories, but the weights have 4"),
        ("a", 1, False, "neither a list of class names nor"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, content: object, outputs: int, ids: bool, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        chosen(outputs, ids, written(tmp_path / "f.json", content))
    assert str(tmp_path / "f.json") in str(caught.value)


def test_coco_only_that_cannot_apply_is_refused(tmp_path: Path) -> None:
    names = written(tmp_path / "names.json", ["x"] * 91)
    with pytest.raises(ConfigError, match="--coco-only and --classes both"):
        chosen(91, True, names, coco_only=True)
    with pytest.raises(ConfigError, match="these weights have 2"):
        chosen(2, False, known=("cat", "dog"), coco_only=True)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"names\.txt: not valid JSON"):
        chosen(2, False, tmp_path / "names.txt")
