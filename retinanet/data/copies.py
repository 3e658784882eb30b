"""Files of the same content under several names. Imports no tensor library."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_BLOCK = 4096  # bytes from the middle of a file, which in a compressed image are those of no other


def find_copies(files: Sequence[Path], others: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each of `others` that has the content of one of `files`, with that one first.

    Content counts as the same where the size and a block from the middle are; files that cannot be read have no copy.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in files:
        by_size[_size(file)].append(file)
    blocks: dict[Path, bytes] = {}
    found = []
    for other in others:
        size = _size(other)
        candidates = by_size.get(size, []) if size > 0 else []
        block = _middle(other, size) if candidates else b""
        for file in candidates:
            if file not in blocks:
                blocks[file] = _middle(file, size)
            if block and blocks[file] == block:
                found.append((file, other))
                break
    return found


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
