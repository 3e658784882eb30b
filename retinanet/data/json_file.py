"""JSON files, read strictly and written whole or not at all."""

import contextlib
import gc
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from retinanet.errors import DataFault, ResourceFault

_GZIP_MAGIC = b"\x1f\x8b"

_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


class _NotJson(ValueError):
    """A constant that Python's parser takes and JSON does not know."""


def read_json(path: Path, leave_out: str | None = None) -> object:
    """The content of a UTF-8 JSON file, gzipped or not (told by its first bytes, not by its name).

    `leave_out` is a key that is dropped from every object while parsing: COCO without
    its "segmentation" takes a third of the memory and half the time.

    Raises DataFault naming the file, and line and column where there is one: missing, unreadable, empty, damaged
    gzip, not UTF-8, broken or truncated JSON, NaN or Infinity, nested too deep.
    """
    text = _read_text(path)
    if not text.strip():
        raise DataFault(f"{path}: the file is empty; a JSON document is needed")
    try:
        with _no_search_for_cycles():
            return json.loads(text, parse_constant=_refuse_constant, object_hook=_dropping(leave_out))
    except json.JSONDecodeError as error:
        cut = " (the file ends too early: is it truncated?)" if error.pos >= len(text.rstrip()) else ""
        raise DataFault(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}{cut}"
        ) from error
    except _NotJson as error:
        line, column = _find_constant(text)
        raise DataFault(
            f"{path}: line {line}, column {column}: {error} is not JSON and no usable number; "
            "write a finite number or leave the entry out"
        ) from error
    except RecursionError as error:
        raise DataFault(f"{path}: the JSON is nested too deep to be a data set or detections") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataFault(f"{path}: not usable JSON: {error}") from error


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Replaces `path` by `content` in one step: a reader sees the old file or the new one, never a part.

    Raises ValueError where `content` holds NaN or infinity, ResourceFault where the file cannot be written.
    """
    text = json.dumps(content, allow_nan=False, indent=indent, ensure_ascii=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ResourceFault(
            f"{path}: cannot be written ({error.strerror or error}); check the folder, its permissions and free space"
        ) from error


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataFault(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataFault(f"{path}: cannot be read ({error.strerror or error})") from error
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataFault(f"{path}: damaged or truncated gzip ({error}); copy or download it again") from error
    try:
        return data.decode("utf-8-sig")  # takes a byte order mark, which some Windows programs write
    except UnicodeDecodeError as error:
        raise DataFault(f"{path}: not UTF-8 text at byte {error.start:,}; it must be a JSON file") from error


@contextlib.contextmanager
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
