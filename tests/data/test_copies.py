"""Files of the same content under several names."""

from pathlib import Path

import pytest

from retinanet.data import copies
from retinanet.data.copies import find_copies


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_only_files_of_the_same_content_are_copies(tmp_path: Path) -> None:
    middle = b"m" * 9000
    first = write(tmp_path / "first", b"1" + middle + b"1")
    write(tmp_path / "other", b"2" + middle + b"2")
    again = write(tmp_path / "again", b"1" + middle + b"1")
    uniform = write(tmp_path / "uniform", b"3" + middle + b"3")  # same size and middle
    empty = write(tmp_path / "empty", b"")
    gone = tmp_path / "gone"
    assert find_copies([first, empty, gone], [again, uniform, empty, gone]) == [(first, again)]
    assert find_copies([uniform], [again]) == []
    assert find_copies([], [again]) == []


def test_more_files_than_the_limit_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"1")
    monkeypatch.setattr(copies, "MOST_COMPARED", 1)
    assert find_copies([first], [again]) == [(first, again)]
    assert find_copies([first], [again, first]) == []
