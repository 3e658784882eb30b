"""Files written whole or not at all, and JSON read strictly."""

import csv
import gc
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from retinanet.errors import DataError, ResourceError

Cell = str | float | int

_GZIP_MAGIC = b"\x1f\x8b"

_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


class _NotJson(ValueError):
    """A constant that Python's parser takes and JSON does not know."""


def read_json(path: Path, leave_out: str | None = None) -> object:
    """The content of a UTF-8 JSON file, gzipped or not (told by its first bytes, not by its name).

    `leave_out` is a key that is dropped from every object while parsing: COCO without
    its "segmentation" takes a third of the memory and half the time.

    Raises DataError naming the file, and line and column where there is one: missing, unreadable, empty, damaged
    gzip, not UTF-8, broken or truncated JSON, NaN or Infinity, nested too deep.
    """
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; a JSON document is needed")
    try:
        with _no_search_for_cycles():
            return json.loads(text, parse_constant=_refuse_constant, object_hook=_dropping(leave_out))
    except json.JSONDecodeError as error:
        cut = " (the file ends too early: is it truncated?)" if error.pos >= len(text.rstrip()) else ""
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}{cut}"
        ) from error
    except _NotJson as error:
        line, column = _find_constant(text)
        raise DataError(
            f"{path}: line {line}, column {column}: {error} is not JSON and no usable number; "
            "write a finite number or leave the entry out"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}: the JSON is nested too deep to be a data set or detections") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{path}: not usable JSON: {error}") from error


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Replace `path` by `content` in one step. Raises ValueError for NaN or infinity, ResourceError as `replacing`."""
    write_text(path, json.dumps(content, allow_nan=False, indent=indent, ensure_ascii=False) + "\n")


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: damaged or truncated gzip ({error}); copy or download it again") from error
    try:
        return data.decode("utf-8-sig")  # takes a byte order mark, which some Windows programs write
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text at byte {error.start:,}; it must be a JSON file") from error


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """JSON holds no cycles; to search for some while its objects are made takes longer than to make them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _dropping(key: str | None) -> Callable[[dict], dict] | None:
    if key is None:
        return None

    def drop(parsed: dict) -> dict:
        parsed.pop(key, None)
        return parsed

    return drop


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(name)


def _find_constant(text: str) -> tuple[int, int]:
    """(line, column) from 1 of the first NaN or Infinity outside strings."""
    for match in _STRING_OR_CONSTANT.finditer(text):
        if match.group(1):
            start = match.start()
            return text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    return 1, 1


def make_folder(path: Path) -> None:
    """Make a folder for results, with its parents. ResourceError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"output: cannot make the folder {path} ({error.strerror}); give another.") from error


@contextmanager
def replacing(path: Path, *, also: tuple[type[Exception], ...] = ()) -> Iterator[Path]:
    """A new empty file next to `path`, with its suffix, that takes its place when the block ends without an error.

    A reader sees the old file or the whole new one, whenever the process dies; the folder is made where it is missing.
    Raises ResourceError, naming `path`, for an OSError of the block or one of `also` (torch.save, for one, raises
    RuntimeError when the disk is full); whatever ends the block, nothing unfinished stays behind.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    failures: tuple[type[Exception], ...] = (OSError, *also)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        # A planted symbolic link or a file of somebody else's is not written into.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except failures as error:
        plain = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = plain.replace(str(part), str(path)).replace(part.name, path.name).strip().rstrip(".")
        raise ResourceError(
            f"{path}: cannot be written ({reason}); check its folder, permissions and free space."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step. Raises ResourceError as `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Replace a CSV file in one step; NaN becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell != cell else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())
