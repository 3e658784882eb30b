"""`data.source` and the paths that it replaces: the later layer counts, both in one are a contradiction."""

from pathlib import Path

import pytest

from retinanet.config.load import load_config
from retinanet.config.origins import InvalidConfig


def written(folder: Path, text: str) -> Path:
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return folder / "a.yaml"


PATHS = "data: {root: r, train_annotations: t.json, val_images: v}\n"


@pytest.mark.parametrize("word", ["data=photos/", "data.source=photos/"])
def test_a_source_on_the_command_line_replaces_the_files_paths(tmp_path: Path, word: str) -> None:
    data = load_config(written(tmp_path, PATHS), [word]).data
    assert (data.source, data.root, data.val_images) == ("photos/", "data/coco", "val2017")


def test_a_path_on_the_command_line_replaces_the_files_source(tmp_path: Path) -> None:
    data = load_config(written(tmp_path, "data: photos/\n"), ["data.root=r"]).data
    assert (data.source, data.root) == (None, "r")


def test_other_keys_of_the_section_stay(tmp_path: Path) -> None:
    data = load_config(
        written(tmp_path, "data: {source: a, flip: 0.1}\n"), ["data.hold_out=0.3", "data.workers=1"]
    ).data
    assert (data.source, data.flip, data.hold_out, data.workers) == ("a", 0.1, 0.3, 1)


def test_both_in_one_command_line_are_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"data\.source: is given together with data\.root, data\.val_images"):
        load_config(written(tmp_path, ""), ["data=photos", "data.val_images=v", "data.root=r"])
