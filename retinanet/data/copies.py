"""Files of the same content under several names. Imports no tensor library."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

MOST_COMPARED = 2000
"""Files that are looked for among others: a data set of more, such as COCO's val split, is not searched for copies."""
_BLOCK = 4096  # bytes from the middle of a file, which in a compressed image are rarely those of another


def find_copies(files: Sequence[Path], others: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each of `others` that has the content of one of `files`, with that one first; none for over MOST_COMPARED others.

    Only files of the same size are opened. Files that cannot be read, and empty ones, have no copy.
    """
    if len(others) > MOST_COMPARED:
        return []
    sizes = {other: _size(other) for other in others}
    wanted = {size for size in sizes.values() if size > 0}
    first: dict[tuple[int, bytes], Path] = {}
    for file in files:
        if (size := _size(file)) in wanted:
            first.setdefault((size, _middle(file, size)), file)
    pairs = [(first.get((size, _middle(other, size))), other) for other, size in sizes.items() if size in wanted]
    return [(file, other) for file, other in pairs if file is not None and _same(file, other)]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _middle(file: Path, size: int) -> bytes:
    try:
        with file.open("rb") as content:
            content.seek(max((size - _BLOCK) // 2, 0))
            return content.read(_BLOCK)
    except OSError:
        return b""


def _same(file: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(file, other, shallow=False)
    except OSError:
        return False
