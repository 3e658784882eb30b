"""One's own data, whatever program wrote them: recognised, converted once into a cache, divided where needed."""

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from retinanet.data.content import read_annotations
from retinanet.data.content_with_files import FileOptions, content_with_files
from retinanet.errors import DataError, ResourceError, check_name
from retinanet.files import cache_folder, make_folder, read_json, write_json
from retinanet.prepare.conversion import ConvertedSplit, LabeledSet, coco_document
from retinanet.prepare.recognise import CocoFiles, Part, read_any
from retinanet.prepare.split import hold_out
from retinanet.prepare.unpack import is_unpacked, unpacked

VERSION = 5
"""Raised when the same files would be read differently, so that caches of before are not used."""


class Source(NamedTuple):
    """A data set ready to train on."""

    form: str
    train: Part
    val: Part
    test: Part | None
    divided: str | None
    """How the val split was made, in a line; None for a data set that has one."""
    lines: list[str]
    """What else was found and done, for the reader."""

    def describe(self) -> list[str]:
        """Everything that was found and done."""
        return [*self.lines, *([self.divided] if self.divided else [])]


def open_source(path: Path, held_out: float, seed: int = 0) -> Source:
    """The data set at `path`: a folder, zip or file in any format that `recognise` knows.

    held_out: part of the images that become the val split where there is none. What is converted or divided is kept in
    the cache and used again until a file changes; images stay where they are, except those of a zip. Safe to call from
    several processes at once. Raises DataError for data that cannot be used, ResourceError if the cache cannot be
    written.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; data=PATH is a folder, a .zip, a .json, a data.yaml or a .csv"
        )
    with _cache_of(path, held_out, seed) as home:
        kept = _kept(home)
        if kept is not None:
            return kept
        try:
            source = _make(unpacked(path, home) if zipfile.is_zipfile(path) else path, home, held_out, seed)
        except DataError as error:
            # Of files in the cache, the reader of a message knows only what they were made from.
            made = re.compile(re.escape(str(home)) + r"[\\/](unpacked|[\w.-]+\.json)")
            raise DataError(made.sub(lambda _: str(path), str(error))) from error
        write_json(home / "source.json", _plain(source, home))
        return source


def unpacked_archive(path: Path, held_out: float) -> Path:
    """The folder that a zip is unpacked to, once, which `open_source` uses, too. Raises as that does."""
    path = path.expanduser().absolute()
    with _cache_of(path, held_out, 0) as home:
        return unpacked(path, home)


@contextmanager
def _cache_of(path: Path, held_out: float, seed: int) -> Iterator[Path]:
    """The folder in the cache of what is made from `path`, locked. Raises as `open_source`."""
    check_name(path)
    home = cache_folder("data") / f"{_safe(path.stem)}-{_digest(path, held_out, seed)}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / "source.lock")
        lock.acquire()
    except OSError as error:
        raise ResourceError(
            f"{home}: cannot be written ({error.strerror}); set RETINANET_CACHE to another folder"
        ) from error
    with lock:
        yield home


def _kept(home: Path) -> Source | None:
    """The source of an earlier call; None if there is none, or if a file of it is lost or is not as it was written."""
    try:
        content: Any = read_json(home / "source.json")
        source = _from_plain(content)
        same = _checksums(source, home) == content["checksums"]
        whole = not (home / "unpacked.json").is_file() or is_unpacked(home)
    except (DataError, KeyError, IndexError, TypeError, AttributeError, OSError):
        return None
    return source if same and whole else None


def _checksums(source: Source, home: Path) -> list[int]:
    """A checksum of each annotation file in the cache; others are known by their size and time (`_digest`)."""
    files = [part.annotations for part in (source.train, source.val, source.test) if part is not None]
    return [zlib.crc32(file.read_bytes()) if file.is_relative_to(home) else int(file.is_file()) for file in files]


def _make(path: Path, home: Path, held_out: float, seed: int) -> Source:
    read = read_any(path)
    parts, lines = (read.splits, []) if isinstance(read, CocoFiles) else _write_parts(read, home)
    form = "COCO JSON" if isinstance(read, CocoFiles) else read.form
    train = parts.pop("train", None) or parts.pop("all", None)
    if train is None:
        # Only one split, whatever it is called, is there to learn from.
        if len(parts) != 1:
            raise DataError(f"{path}: has the splits {', '.join(parts)} but none to train on; give one file or folder")
        train = parts.popitem()[1]
    val, test = parts.get("val"), parts.get("test")
    if val is None and test is not None:
        lines.append("there is no val split: the test split is evaluated on")
        val, test = test, None
    divided = None
    if val is None:
        train, notes = in_usual_form(train, home, path if path.is_dir() else path.parent)
        lines += notes
        train, val, divided = divide(train, home, held_out, seed)
    return Source(form=form, train=train, val=val, test=test, divided=divided, lines=lines)


def _write_parts(read: LabeledSet, home: Path) -> tuple[dict[str, Part], list[str]]:
    if not read.classes:
        raise DataError(f"no object is labelled in this data set ({read.form})")
    parts = {}
    for split, labeled in read.splits.items():
        file = home / f"{_safe(split)}.json"
        write_json(file, coco_document(labeled.images, read.classes, f"converted from {read.form}"))
        parts[split] = Part(file, labeled.folder)
    return parts, [f"note: {note}" for note in read.notes]


def in_usual_form(part: Part, folder: Path, root: Path) -> tuple[Part, list[str]]:
    """One split whose file is in COCO's own form, written into `folder` where it is not, and notes on that.

    What the file as a whole decides, such as the convention of its boxes, must be read before it is divided. root: the
    data set's folder. Raises DataError with the file's errors.
    """
    options = FileOptions(root=root)
    content = content_with_files(read_annotations(part.annotations), part.annotations, part.images, options)
    if not content.notes:
        return part, []
    again = content_with_files(content.data, part.annotations, part.images, options)
    read_otherwise = [note for note in content.notes if note not in again.notes]
    if not read_otherwise:
        return part, []
    write_json(folder / "all.json", content.data)
    return Part(folder / "all.json", part.images), [f"note: {note}" for note in read_otherwise]


def divide(part: Part, folder: Path, held_out: float, seed: int) -> tuple[Part, Part, str]:
    """Write train.json and val.json of one split into `folder`; also a line on how many images each has."""
    content: Any = read_json(part.annotations, nan_as_null=True)
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f"{part.annotations}: has no list {', '.join(missing)}")
    if len(content["images"]) < 2:
        raise DataError(f"{part.annotations}: has {len(content['images'])} image; two are needed to hold one out")
    train, val = hold_out(content, part.images, held_out, seed)
    if not val["images"]:
        raise DataError(
            f"{part.annotations}: its {len(content['images'])} images are copies of one; two different are needed to "
            "hold one out"
        )
    files = folder / "train.json", folder / "val.json"
    for file, side in zip(files, (train, val), strict=True):
        write_json(file, side)
    line = (
        f"there is no val split: {len(val['images'])} of {len(content['images'])} images are held out (data.hold_out="
        f"{held_out:g}, seed {seed}); {describe_classes(train, val)}"
    )
    return Part(files[0], part.images), Part(files[1], part.images), line


def divide_written(written: list[ConvertedSplit], output: Path, held_out: float, seed: int) -> list[ConvertedSplit]:
    """Converted splits with the only one divided into train.json and val.json; others are returned as they are."""
    if len(written) != 1:
        return written
    only = written[0]
    train, val, line = divide(Part(only.annotations, only.images), output, held_out, seed)
    if only.annotations not in (train.annotations, val.annotations):
        only.annotations.unlink()
    return [
        only._replace(name="train", annotations=train.annotations),
        ConvertedSplit(name="val", annotations=val.annotations, images=val.images, summary=line),
    ]


def split_source(path: Path, output: Path, held_out: float, seed: int, overwrite: bool) -> list[ConvertedSplit]:
    """Write output/train.json and val.json of a data set without a val split.

    Raises DataError as `open_source`, for a data set that has one, and for files that exist where `overwrite` is not
    set.
    """
    existing = [file for file in (output / "train.json", output / "val.json") if file.exists()]
    if existing and not overwrite:
        raise DataError(f"{existing[0]} exists; --overwrite replaces it")
    source = open_source(path, held_out, seed)
    if source.divided is None:
        raise DataError(f"{path}: has a split to evaluate on already ({source.val.annotations}); nothing to divide")
    make_folder(output)
    summaries = "\n".join(source.lines), source.divided
    written = []
    for name, part, summary in zip(("train", "val"), (source.train, source.val), summaries, strict=True):
        write_json(output / f"{name}.json", read_json(part.annotations, nan_as_null=True))
        written.append(
            ConvertedSplit(name=name, annotations=output / f"{name}.json", images=part.images, summary=summary)
        )
    return written


def describe_classes(train: dict[str, Any], val: dict[str, Any]) -> str:
    """Which classes are on one side only."""
    names = {row["id"]: str(row["name"]) for row in train["categories"]}
    sides = [{row["category_id"] for row in side["annotations"]} for side in (train, val)]
    alone = sides[0] ^ sides[1]
    lone = [f"{name} only in {'train' if key in sides[0] else 'val'}" for key, name in names.items() if key in alone]
    return ", ".join(lone[:5]) + (" ..." if len(lone) > 5 else "") if lone else "every class is on both sides"


def _digest(path: Path, held_out: float, seed: int) -> str:
    """Short hash of what a source is made from: names, sizes and times of all its files."""
    whole = hashlib.sha256(f"{VERSION} {path} {held_out} {seed}".encode())
    alone = path.is_file() and path.suffix.lower() in (".zip", ".json", ".gz")
    root = path if path.is_dir() else path.parent
    for file in [path] if alone else sorted(root.rglob("*")):
        status = file.lstat()
        if not stat.S_ISDIR(status.st_mode):
            whole.update(
                f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "replace")
            )
    return whole.hexdigest()[:16]


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:60] or "data"


def _plain(source: Source, home: Path) -> dict[str, Any]:
    parts = {"train": source.train, "val": source.val, "test": source.test}
    return {
        "form": source.form,
        "parts": {name: [str(part.annotations), str(part.images)] for name, part in parts.items() if part is not None},
        "checksums": _checksums(source, home),
        "divided": source.divided,
        "lines": source.lines,
    }


def _from_plain(content: Any) -> Source:
    parts = {name: Part(Path(files[0]), Path(files[1])) for name, files in content["parts"].items()}
    return Source(
        form=content["form"],
        train=parts["train"],
        val=parts["val"],
        test=parts.get("test"),
        divided=content["divided"],
        lines=list(content["lines"]),
    )
