"""Downloading the public COCO 2017 archives, verifying and unpacking them.

An archive must have the published size and MD5 before it is opened, and every file of it appears under its final name
only once it is whole. An interrupted download resumes where it stopped.
"""

import hashlib
import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from retinanet.display.progress import transfer_progress
from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.files import read_json, write_json

BLOCK = 1 << 20
TIMEOUT_SECONDS = 30.0
SPARE_BYTES = 1 << 28
"""Left free on the disk in addition to what a download or an archive needs."""


class Archive(NamedTuple):
    """One published zip file."""

    url: str
    md5: str
    size: int
    """Bytes of the zip file."""
    unpacked: int
    """Bytes that its files take, rounded up; used for the disk-space check before the download."""


COCO_HOME = "http://images.cocodataset.org"
"""Its server has no certificate for this name, hence http; the checksums below verify what it sends."""

COCO_ARCHIVES: Mapping[str, Archive] = {
    "annotations": Archive(
        url=f"{COCO_HOME}/annotations/annotations_trainval2017.zip",
        md5="f4bbac642086de4f52a3fdda2de5fa2c",
        size=252_907_541,
        unpacked=9 * 10**8,
    ),
    "val": Archive(
        url=f"{COCO_HOME}/zips/val2017.zip",
        md5="442b8da7639aecaf257c1dceb8ba8c80",
        size=815_585_330,
        unpacked=85 * 10**7,
    ),
    "train": Archive(
        url=f"{COCO_HOME}/zips/train2017.zip",
        md5="cced6f7f71b7629ddf16f17bbcfab6b2",
        size=19_336_861_798,
        unpacked=2 * 10**10,
    ),
}


class Download(NamedTuple):
    """An archive and the file that it is downloaded to."""

    archive: Archive
    destination: Path

    @property
    def part(self) -> Path:
        """What has arrived so far, until it is whole and verified."""
        return self.destination.with_name(self.destination.name + ".part")

    @property
    def record(self) -> Path:
        """The paths and sizes of the archive's files, written once all of them are unpacked."""
        return self.destination.with_name(self.destination.name + ".unpacked.json")

    def arrived(self) -> int:
        """Bytes on the disk, of the archive or of a part of it."""
        return next((file.stat().st_size for file in (self.destination, self.part) if file.exists()), 0)

    def is_unpacked(self, root: Path) -> bool:
        """Whether every file of the archive is in `root` with its size."""
        content = read_json(self.record) if self.record.exists() else None
        if not isinstance(content, dict) or content.get("md5") != self.archive.md5:
            return False
        files = content["files"]
        return all((root / name).is_file() and (root / name).stat().st_size == files[name] for name in files)

    def by_hand(self) -> str:
        """How to do without this machine's network."""
        url, md5, size = self.archive[:3]
        return (
            f"If this machine has no network access: download {url} ({size} bytes, MD5 {md5}) on another one, copy it "
            f"to\n  {self.destination.resolve()}\nand run the same command again; it verifies and uses that file."
        )


def fetch_coco(root: Path, splits: Sequence[str], archives: Mapping[str, Archive] = COCO_ARCHIVES) -> None:
    """Download and unpack COCO 2017 into `root`: annotations/ and, for each split of train and val, <split>2017/.

    Archives are kept in root/downloads/; one that a user put there is verified and used. What an earlier
    call has unpacked is not downloaded again, even if its archive was deleted since.
    Raises ConfigError for an unknown split, ResourceError for too little disk space or no network,
    DataError for a file that is not the published one.
    """
    unknown = sorted(set(splits) - {"train", "val"})
    if unknown or not splits:
        raise ConfigError(f"splits: expected train, val or both, got {', '.join(unknown) or 'none'}")
    needed = [archives[name] for name in ("annotations", "val", "train") if name in {"annotations", *splits}]
    downloads = [Download(archive, root / "downloads" / archive.url.rsplit("/", 1)[1]) for archive in needed]
    missing = [download for download in downloads if not download.is_unpacked(root)]
    _require_space(root, sum(d.archive.unpacked + max(0, d.archive.size - d.arrived()) for d in missing))
    for download in downloads:
        if download not in missing:
            print(f"{download.destination.name}: already unpacked in {root}")
            continue
        try:
            fetch_archive(download)
        except ResourceError as error:
            later = [d for d in missing[missing.index(download) + 1 :] if not d.destination.exists()]
            raise ResourceError("\n".join((str(error), *(d.by_hand() for d in later)))) from error
        listing = extract_archive(download.destination, root)
        write_json(download.record, {"md5": download.archive.md5, "files": listing})


def fetch_archive(download: Download, attempts: int = 5, pause: float = 2.0) -> None:
    """Download an archive; its destination appears only once it has the published size and MD5.

    A part of it waits in `download.part` and is resumed: in this call after a cut connection (up to `attempts` in a
    row that bring nothing, `pause` seconds apart and doubling) and in later calls.
    A file already at the destination is verified instead.
    Raises ResourceError when the network or the disk fails, DataError when a file is not the published one.
    """
    (url, md5, size, _), destination, part = download.archive, download.destination, download.part
    if destination.exists():
        found = destination.stat().st_size
        if found != size or _md5(destination) != md5:
            raise DataError(
                f"{destination}: not the published file (expected {size} bytes with MD5 {md5}, found {found} bytes"
                f"{' with another MD5' if found == size else ''}). Move it away and run the command again."
            )
        return
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url}: only http and https addresses can be downloaded")
    destination.parent.mkdir(parents=True, exist_ok=True)
    if download.arrived() > size:
        part.unlink()
    _require_space(destination.parent, size - download.arrived())
    for resumes in (True, False) if download.arrived() else (False,):
        _download(download, attempts, pause)
        if _md5(part) == md5:
            part.replace(destination)
            return
        part.unlink()
        if resumes:
            print(f"{part.name}: the resumed download has a wrong checksum; starting again from the beginning")
    raise DataError(
        f"{url}: the downloaded file is not the published one (MD5 differs from {md5}).\n{download.by_hand()}"
    )


def _download(download: Download, attempts: int, pause: float) -> None:
    """Append to the part until it is complete, over as many connections as it takes."""
    (url, _, size, _), failures = download.archive, 0
    try:
        with (
            open(download.part, "ab", opener=_no_links) as file,
            transfer_progress(download.destination.name, size, file.tell()) as report,
        ):
            while (before := file.tell()) < size:
                reason = _one_connection(download, file, report)
                after = file.tell()
                failures = 0 if after > before else failures + 1
                if failures >= attempts:
                    raise ResourceError(
                        f"{url}: the download failed after {after} of {size} bytes ({reason}). What arrived is kept; "
                        f"run the same command again to resume.\n{download.by_hand()}"
                    )
                if after < size:
                    time.sleep(pause * 2 ** max(0, failures - 1))
    except OSError as error:
        raise ResourceError(f"{download.part}: cannot be written ({error.strerror or error})") from error
    finally:
        if not download.arrived():
            download.part.unlink(missing_ok=True)


def _no_links(path: str, flags: int) -> int:
    """Opens no symbolic link, which somebody may have put there to have another file written."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _one_connection(download: Download, file: BinaryIO, report: Callable[[int], None]) -> str:
    """Append what one connection brings to the part, `file`; returns why it ended.

    Raises ResourceError where the server refuses the archive, DataError where it offers one of another size.
    """
    (url, _, size, _), start = download.archive, file.tell()
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {error.reason}"
        if error.code == 416:
            _empty(file)
        elif error.code < 500 and error.code not in (408, 429):
            raise ResourceError(f"{url}: {answer}.\n{download.by_hand()}") from error
        return answer
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with response:
        total = response.headers.get("Content-Length", "")
        if response.status == 206:
            first, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if first.partition("-")[0] != str(start):
                _empty(file)
                return "the server sent another range than the requested one"
        if total.isdigit() and int(total) != size:
            raise DataError(
                f"{url}: the server offers {total} bytes, the published file has {size}.\n{download.by_hand()}"
            )
        if response.status != 206:  # the server ignores ranges and sends the whole file
            _empty(file)
        while file.tell() < size:
            try:
                block = response.read(min(BLOCK, size - file.tell()))
            except (OSError, http.client.HTTPException) as error:
                return str(error) or type(error).__name__
            if not block:
                return "the connection was cut"
            file.write(block)
            report(file.tell())
    return "complete"


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, transfer_progress(f"verifying {path.name}", path.stat().st_size, 0) as report:
        while block := file.read(BLOCK):
            digest.update(block)
            report(file.tell())
    return digest.hexdigest()


def _require_space(folder: Path, needed: int) -> None:
    """ResourceError unless the disk of `folder` (which need not exist) has `needed` bytes and some to spare."""
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + SPARE_BYTES:
        raise ResourceError(
            f"{folder}: {(needed + SPARE_BYTES) / 1e9:.1f} GB are needed on this disk and {free / 1e9:.1f} GB are "
            "free; free some space or choose a folder on another disk"
        )


def extract_archive(archive: Path, folder: Path) -> dict[str, int]:
    """Unpack a verified zip file into `folder`; returns every file's path in it and its size in bytes.

    Each file is moved to its final name once it is whole and its CRC is right. Files already there with the right
    size are kept; others of the same name are an error, never overwritten.
    Raises DataError for a damaged archive or files in the way, ResourceError for the disk.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            errors = [
                f"{place} exists and is not this file; move it away"
                for entry in entries
                if (place := folder / entry.filename).is_symlink()
                or (place.exists() and (not place.is_file() or place.stat().st_size != entry.file_size))
            ]
            if errors:
                raise DataError(list_errors(f"{archive}: cannot be unpacked into {folder}", errors))
            missing = [entry for entry in entries if not (folder / entry.filename).exists()]
            _require_space(folder, sum(entry.file_size for entry in missing))
            _unpack(content, missing, folder, archive.name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive}: damaged zip file ({error}); delete it and run the command again") from error
    except OSError as error:
        raise ResourceError(f"{archive}: cannot be unpacked into {folder} ({error})") from error
    return {entry.filename: entry.file_size for entry in entries}


def _unpack(content: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    with (
        tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary,
        transfer_progress(f"unpacking {title}", sum(entry.file_size for entry in entries), 0) as report,
    ):
        for entry in entries:
            whole = Path(content.extract(entry, temporary))
            place = folder / whole.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            whole.replace(place)
            done += entry.file_size
            report(done)
