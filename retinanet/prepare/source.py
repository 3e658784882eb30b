"""One's own data, whatever program wrote them: recognised, converted once into a cache, divided where needed."""

import hashlib
import os
import re
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from filelock import FileLock

from retinanet.errors import DataError, ResourceError
from retinanet.files import make_folder, read_json, write_json
from retinanet.prepare.check import find_image_folder
from retinanet.prepare.conversion import ConvertedSplit, LabeledSet, coco_document
from retinanet.prepare.recognise import CocoFiles, read_any
from retinanet.prepare.split import hold_out

VERSION = 1
"""Raised when the same files would be read differently, so that caches of before are not used."""
LARGEST_ZIP = 200 << 30
"""Bytes that an archive may unpack to."""


class Part(NamedTuple):
    """One split."""

    annotations: Path
    images: Path


class Source(NamedTuple):
    """A data set ready to train on."""

    form: str
    train: Part
    val: Part
    test: Part | None
    lines: list[str]
    """What was found and done, for the reader."""


def cache_folder() -> Path:
    """$RETINANET_CACHE, otherwise retinanet/ in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("RETINANET_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinanet"
    return (Path(own) if own else base).expanduser().absolute() / "data"


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
    home = cache_folder() / f"{_safe(path.stem)}-{_digest(path, held_out, seed)}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / "source.lock")
        lock.acquire()
    except OSError as error:
        raise ResourceError(
            f"{home}: cannot be written ({error.strerror}); set RETINANET_CACHE to a folder with space"
        ) from error
    with lock:
        summary = home / "source.json"
        if summary.is_file():
            return _from_plain(read_json(summary))
        source = _make(unpacked(path, home) if zipfile.is_zipfile(path) else path, home, held_out, seed)
        write_json(summary, _plain(source))
        return source


def _make(path: Path, home: Path, held_out: float, seed: int) -> Source:
    read = read_any(path)
    parts, lines = (_coco_parts(read), []) if isinstance(read, CocoFiles) else _write_parts(read, home)
    form = "COCO JSON" if isinstance(read, CocoFiles) else read.form
    train = parts.pop("train", None) or parts.pop("all", None)
    if train is None:
        # Only one split, whatever it is called, is there to learn from.
        if len(parts) != 1:
            raise DataError(f"{path}: has the splits {', '.join(parts)} but none to train on; give one file or folder")
        train = parts.popitem()[1]
    val, test = parts.get("val"), parts.get("test")
    if val is None and test is not None:
        lines.append("there is no val split: test is evaluated on")
        val, test = test, None
    if val is None:
        train, val, made = divide(train, home, held_out, seed)
        lines.append(made)
    return Source(form=form, train=train, val=val, test=test, lines=lines)


def _coco_parts(read: CocoFiles) -> dict[str, Part]:
    return {
        split: Part(file, find_image_folder(file, read_json(file, leave_out="segmentation")))
        for split, file in read.splits.items()
    }


def _write_parts(read: LabeledSet, home: Path) -> tuple[dict[str, Part], list[str]]:
    if not read.classes:
        raise DataError(f"no object is labelled in this data set ({read.form})")
    parts = {}
    for split, labeled in read.splits.items():
        file = home / f"{_safe(split)}.json"
        write_json(file, coco_document(labeled.images, read.classes, f"converted from {read.form}"))
        parts[split] = Part(file, labeled.folder)
    return parts, [f"note: {note}" for note in read.notes]


def divide(part: Part, folder: Path, held_out: float, seed: int) -> tuple[Part, Part, str]:
    """Write train.json and val.json of one split into `folder`; also a line on how many images each has."""
    content: Any = read_json(part.annotations)
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f"{part.annotations}: has no list {', '.join(missing)}")
    if len(content["images"]) < 2:
        raise DataError(f"{part.annotations}: has {len(content['images'])} image; two are needed to hold one out")
    train, val = hold_out(content, part.images, held_out, seed)
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


def split_source(path: Path, output: Path, held_out: float, seed: int, overwrite: bool) -> Source:
    """Write output/train.json and val.json of a data set of one split, or of its train split.

    Raises DataError as `open_source`, and for files that exist where `overwrite` is not set.
    """
    existing = [file for file in (output / "train.json", output / "val.json") if file.exists()]
    if existing and not overwrite:
        raise DataError(f"{existing[0]} exists; --overwrite replaces it")
    source = open_source(path, held_out, seed)
    train, val = source.train, source.val
    if any("there is no val split" in line for line in source.lines):
        make_folder(output)
        for name, part in (("train", train), ("val", val)):
            content: Any = read_json(part.annotations)
            write_json(output / f"{name}.json", content)
        train, val = (Part(output / f"{name}.json", part.images) for name, part in (("train", train), ("val", val)))
        return source._replace(
            train=train, val=val, lines=[*source.lines, f"written to {output}/train.json and val.json"]
        )
    raise DataError(f"{path}: has a val split already ({source.val.annotations}), so there is nothing to divide")


def describe_classes(train: dict[str, Any], val: dict[str, Any]) -> str:
    """Which classes are on one side only."""
    names = {row["id"]: str(row["name"]) for row in train["categories"]}
    sides = [{row["category_id"] for row in side["annotations"]} for side in (train, val)]
    alone = sides[0] ^ sides[1]
    lone = [f"{name} only in {'train' if key in sides[0] else 'val'}" for key, name in names.items() if key in alone]
    return ", ".join(lone[:5]) + (" ..." if len(lone) > 5 else "") if lone else "every class is on both sides"


def unpacked(path: Path, home: Path) -> Path:
    """The folder that a zip is unpacked to, once. Raises DataError for one that is damaged or leaves its folder."""
    folder = home / "unpacked"
    done = home / "unpacked.json"
    if done.is_file():
        return folder
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir() and _is_wanted(info)]
        if sum(info.file_size for info in members) > LARGEST_ZIP:
            raise DataError(
                f"{path}: unpacks to more than {LARGEST_ZIP >> 30} GiB; unpack it yourself and give the folder"
            )
        for info in members:
            target = (folder / info.filename.replace("\\", "/")).resolve()
            if not target.is_relative_to(folder.resolve()) or stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(
                    f"{path}: {info.filename} would be written outside of its folder, or is a link; not unpacked"
                )
        try:
            for info in members:
                archive.extract(info, folder)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(f"{path}: cannot be unpacked ({error})") from error
    write_json(done, {"files": len(members)})
    return folder


def _is_wanted(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename.replace("\\", "/")).parts
    return not any(part == "__MACOSX" or part.startswith("._") for part in parts)


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


def _plain(source: Source) -> dict[str, Any]:
    parts = {"train": source.train, "val": source.val, "test": source.test}
    return {
        "form": source.form,
        "parts": {name: [str(part.annotations), str(part.images)] for name, part in parts.items() if part is not None},
        "lines": source.lines,
    }


def _from_plain(content: Any) -> Source:
    parts = {name: Part(Path(files[0]), Path(files[1])) for name, files in content["parts"].items()}
    return Source(
        form=content["form"],
        train=parts["train"],
        val=parts["val"],
        test=parts.get("test"),
        lines=list(content["lines"]),
    )
