"""JSON is read strictly, and files are written whole or not at all."""

import contextlib
import gc
from pathlib import Path

import pytest

from retinanet.errors import DataError, ResourceError
from retinanet.files import read_json, write_json


@pytest.mark.parametrize("text", ["[1]", "[1", "[NaN]"])
@pytest.mark.parametrize("was_on", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was(tmp_path: Path, text: str, was_on: bool) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    try:
        gc.enable() if was_on else gc.disable()
        with contextlib.suppress(DataError):
            read_json(path)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes('{"name": "größe 犬"}'.encode(encoding))
    assert read_json(path) == {"name": "größe 犬"}


def test_what_is_written_reads_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    for content in ({"AP": 0.1 + 0.2, "name": "größe 犬"}, [1, 2]):
        write_json(path, content, indent=2)
        assert read_json(path) == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    write_json(path, {"AP": 0.5})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"AP": float("nan")})
    assert read_json(path) == {"AP": 0.5}
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResourceError, match="cannot be written"):
        write_json(tmp_path / "folder", {})
    with pytest.raises(ResourceError, match="cannot be written"):
        write_json(path / "below-a-file.json", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eval.json", "folder"]


def test_a_key_can_be_left_out_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [{"big": [1], "small": 2}], "big": 3})
    assert read_json(path, leave_out="big") == {"a": [{"small": 2}]}
