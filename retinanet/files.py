"""Atomic writes, and strict reading of text and JSON."""

import codecs
import csv
import errno
import gc
import gzip
import io
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import NoReturn

from retinanet.errors import DataError, ResourceError, printable, remedy_for

CsvValue = str | float | int

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of what spreadsheets take for a formula (OWASP, CSV injection)."""

_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?%?")

_GZIP_MAGIC = b"\x1f\x8b"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_LEAST_UNZIPPED, _MOST_RATIO = 64 << 20, 100
"""Bytes that any gzip may hold, and how many times its own size larger ones may: annotations shrink to a tenth."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""One half of a character outside of the basic plane; two make one."""

_STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)')


class _NotJson(ValueError):
    """A constant that Python's parser accepts but that is not JSON."""


def wrong_download(start: bytes) -> str:
    """What was saved in place of the wanted file, with the remedy; empty for any other content.

    start: the first bytes of a file, at least 64, or all that it has.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "the file is empty (0 bytes); copy or download it again"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; fetch that with: git lfs pull"
    if text.startswith((b"<!doctype html", b"<html")):
        return (
            "a web page, not the file itself, as sites answer that want a login or a confirmation first; "
            "download the file in a browser or with the site's own program"
        )
    return ""


def start_of(path: Path) -> bytes:
    """The first bytes of a file, for `wrong_download`."""
    with path.open("rb") as file:
        return file.read(512)


def read_json(
    path: Path,
    leave_out: str | None = None,
    hook: Callable[[dict[str, object]], dict[str, object]] | None = None,
    *,
    nan_as_null: bool = False,
) -> object:
    """The content of a JSON file, gzipped or not (recognised by its first bytes, not by its name).

    `leave_out` is a key that is dropped from every object while parsing: COCO without its "segmentation" takes a third
    of the memory and half the time. `hook` changes every object in another way instead. `nan_as_null`: read NaN, which
    data frames have for a value that is missing, as null.

    Raises DataError with the file, and the line and column if known: as `read_text`, empty, invalid or truncated JSON,
    NaN or Infinity, nested too deeply.
    """
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; it must be a JSON document")
    if wrong := wrong_download(text[:512].encode(errors="replace")):
        raise DataError(f"{path}: {wrong}")
    try:
        with without_garbage_collection():
            constant = _nan_as_null if nan_as_null else _refuse_constant
            content = json.loads(text, parse_constant=constant, object_hook=hook or _dropping(leave_out))
            if _SURROGATE.search(text):
                json.dumps(content, ensure_ascii=False).encode()
            return content
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(
            f"{path}: has {half!r}, half of a character, which is no text; write the character itself"
        ) from error
    except json.JSONDecodeError as error:
        cut = " (the file ends too early: is it truncated?)" if error.pos >= len(text.rstrip()) else ""
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}{cut}"
        ) from error
    except _NotJson as error:
        line, column = _find_constant(text, str(error))
        raise DataError(
            f"{path}: line {line}, column {column}: {error} is not valid JSON; "
            "write a finite number or leave the entry out"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}: the JSON is nested too deeply for a data set or detections") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{path}: JSON that cannot be used: {error}") from error


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write `content` to `path` atomically. Raises ValueError for NaN or infinity, ResourceError as `replacing`."""
    write_text(path, json.dumps(content, allow_nan=False, indent=indent, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """The content of a text file, gzipped or not: UTF-8, or UTF-16 with a byte order mark, as on Windows.

    Raises DataError with the file: missing, unreadable, damaged gzip, in another encoding.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if data.startswith(_GZIP_MAGIC):
        try:
            data = _unzipped(data, path)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: damaged or truncated gzip ({error}); copy or download it again") from error
    try:
        return data.decode("utf-16" if data.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not UTF-8 text at byte {error.start:,}, in line {line:,}; save it with the encoding UTF-8"
        ) from error


def _unzipped(data: bytes, path: Path) -> bytes:
    """The content of gzip data. Raises DataError for more than text could become: a file made to fill the memory."""
    most = max(_LEAST_UNZIPPED, _MOST_RATIO * len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise DataError(
            f"{path}: {len(data) / 1e6:,.1f} MB of gzip hold more than {most / 1e6:,.0f} MB, which no annotations do; "
            "if you trust the file, unpack it yourself"
        )
    return found


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """The content of JSON has no reference cycles, and searching it for some takes longer than reading it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _dropping(key: str | None) -> Callable[[dict[str, object]], dict[str, object]] | None:
    if key is None:
        return None

    def drop(parsed: dict[str, object]) -> dict[str, object]:
        parsed.pop(key, None)
        return parsed

    return drop


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(name)


def _nan_as_null(name: str) -> None:
    if name != "NaN":
        raise _NotJson(name)


def _find_constant(text: str, wanted: str) -> tuple[int, int]:
    """(line, column), counted from 1, of the first NaN or Infinity, whichever is `wanted`, outside strings."""
    for match in _STRING_OR_CONSTANT.finditer(text):
        if match.group(1) and wanted in match.group(1):
            start = match.start()
            return text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    return 1, 1


def cache_folder(kind: str) -> Path:
    """Folder of what can be made again, and may be deleted at any time.

    It is `kind` in $RETINANET_CACHE, otherwise in retinanet/ in $XDG_CACHE_HOME or ~/.cache. Raises RuntimeError if a
    home folder is needed and not known.
    """
    own = os.environ.get("RETINANET_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinanet"
    return base.expanduser().absolute() / kind


def data_title(path: Path) -> str:
    """How a reader knows a file or folder of data: in the cache "name of the data set, file", elsewhere its path."""
    for home in path.parents:
        made = re.fullmatch(r"(.+)-[0-9a-f]{16}", home.name)
        if made is not None and home.parent == cache_folder("data"):
            within = path.relative_to(home).as_posix().removeprefix("unpacked/")
            return f"{made[1]}, {within.removesuffix('.json')}"
    return str(path)


def make_folder(path: Path) -> None:
    """Create a folder for results, and its parents. Raises ResourceError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"output: cannot create the folder {path} ({error.strerror}); choose another output folder."
        ) from error


@contextmanager
def replacing(path: Path, *, also: tuple[type[Exception], ...] = (), size: int = 0) -> Iterator[Path]:
    """Write `path` atomically: yields a new, empty file next to it that replaces it when the block ends without error.

    A reader sees the old file or the complete new one, even if the process is killed. The yielded file has the suffix
    of `path`; missing parent folders are created. If the block raises, the old file is untouched and the new one is
    deleted. An OSError, or an exception of the types `also` (torch.save raises RuntimeError when the disk is full),
    becomes a ResourceError that names `path`; other exceptions pass through. size: bytes that the file will have, for
    the message where there is no space for it.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}-{get_ident()}.partial{path.suffix}")
    failures: tuple[type[Exception], ...] = (OSError, *also)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        # Exclusive, so that a symbolic link or a file that somebody put there is not written through.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except failures as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise ResourceError(_describe_failed_write(path, part, error, size)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _describe_failed_write(path: Path, part: Path, error: Exception, size: int) -> str:
    """The message for a file that could not be written, after `part` has been deleted."""
    cause = _os_cause(error)
    if cause is None:
        reason = str(error).replace(str(part), str(path)).replace(part.name, path.name).strip().rstrip(".")
        return f"{path}: cannot be written ({reason}); {remedy_for(None)}."
    reason = os.strerror(cause)
    if cause in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free"
            reason += f": the new file needs {size / 1e6:,.1f} MB, {free}" if size else f": {free}"
    return f"{path}: cannot be written ({reason}); {remedy_for(cause)}."


def _os_cause(error: BaseException | None) -> int | None:
    """The errno of an exception, of one that it was raised for, or that a library of Rust has in its text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises ResourceError as `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[CsvValue]]) -> None:
    """Write a CSV file atomically; NaN becomes an empty cell. Raises ResourceError as `replacing`.

    Texts that a spreadsheet would compute as formulas get an apostrophe before them; control characters are escaped.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    write_text(path, text.getvalue())


def _csv_cell(cell: CsvValue) -> CsvValue:
    if not isinstance(cell, str):
        return "" if cell != cell else cell
    plain = printable(cell)
    return f"'{plain}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else plain


def silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail on the closed pipe."""
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a device, not a path
        try:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        except (OSError, ValueError):
            # stdout has no descriptor (it was replaced), so there is nothing to silence.
            return
