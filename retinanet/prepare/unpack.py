"""Unpacking a zip that anybody may have made: whole, inside its folder, and no larger than it can honestly be."""

import errno
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from retinanet.display.progress import transfer_progress
from retinanet.errors import DataError, ResourceError
from retinanet.files import read_json, write_json

LARGEST_ZIP, LEAST_UNPACKED, MOST_PACKED = 200 << 30, 1 << 30, 100
"""Bytes that an archive may unpack to, that any may, and times its own size that larger ones may."""


_NO_NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)
"""Errors of a name that this file system does not take, such as one of a file and of a folder."""


def unpacked(path: Path, home: Path) -> Path:
    """The folder that a zip is unpacked to, once.

    Raises DataError for one that is damaged, encrypted or leaves its folder, ResourceError where there is no space.
    """
    folder = home / "unpacked"
    if is_unpacked(home):
        return folder
    try:
        with zipfile.ZipFile(path) as archive:
            targets = _targets(archive, path, folder)
            if not targets:
                raise DataError(f"{path}: an archive without files")
            done_bytes, total = 0, sum(info.file_size for info in targets)
            with transfer_progress(f"unpacking {path.name}", total, 0) as report:
                for info, target in targets.items():
                    # Not written atomically: unpacked.json, written last, says that all are whole.
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(info) as packed, target.open("wb") as whole:
                        shutil.copyfileobj(packed, whole)
                    done_bytes += info.file_size
                    report(done_bytes)
    except OSError as error:
        if error.errno in _NO_NAMES:
            raise DataError(
                f"{path}: a name in it cannot be that of a file here ({error.strerror}: "
                f"{Path(error.filename or '...').name[:60]}); unpack it yourself"
            ) from error
        raise ResourceError(
            f"{folder}: cannot be written ({error.strerror}); free some space, or set RETINANET_CACHE to another folder"
        ) from error
    # zipfile raises RuntimeError for an encrypted member and NotImplementedError for an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); use another copy, or unpack it yourself") from error
    write_json(home / "unpacked.json", {"files": len(set(targets.values()))})
    return folder


def is_unpacked(home: Path) -> bool:
    """Whether all files of the archive are there."""
    try:
        content: Any = read_json(home / "unpacked.json")
        return bool(content["files"] == sum(file.is_file() for file in (home / "unpacked").rglob("*")))
    except (DataError, KeyError, TypeError):
        return False


def _targets(archive: zipfile.ZipFile, path: Path, folder: Path) -> dict[zipfile.ZipInfo, Path]:
    """Where each file of an archive belongs. Raises DataError if one would be outside of the folder, or is a link."""
    members = [info for info in archive.infolist() if not info.is_dir() and _is_wanted(info)]
    total, size = sum(info.file_size for info in members), path.stat().st_size
    if total > LARGEST_ZIP or total > max(LEAST_UNPACKED, MOST_PACKED * size):
        raise DataError(
            f"{path}: {size / 1e6:,.1f} MB would unpack to {total / 1e9:,.1f} GB; if you trust the file, unpack it "
            "yourself and give the folder"
        )
    # Some programs of Windows write backslashes.
    targets = {info: folder / info.filename.replace("\\", "/") for info in members}
    for info, target in targets.items():
        if (
            "\0" in info.filename
            or not target.resolve().is_relative_to(folder.resolve())
            or stat.S_ISLNK(info.external_attr >> 16)
        ):
            raise DataError(
                f"{path}: {info.filename} would be written outside of its folder, or is a link; not unpacked"
            )
    return targets


def _is_wanted(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename.replace("\\", "/")).parts
    return not any(part == "__MACOSX" or part.startswith("._") for part in parts)
