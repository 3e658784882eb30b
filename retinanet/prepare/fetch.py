"""Downloading the public COCO 2017 archives, verifying them and unpacking them safely.

Nothing is trusted before it is checked: a download must have the published size and MD5, an archive's
listing must be free of paths, links and sizes that reach outside the folder, and every file appears
under its final name only once it is whole.
"""

import hashlib
import http.client
import re
import shutil
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from retinanet.display.progress import transfer_progress
from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.files import read_json, write_json

BLOCK = 1 << 20
TIMEOUT_SECONDS = 30.0
SPARE_BYTES = 1 << 28
"""Left free on the disk beyond what a download or an archive needs."""


class Archive(NamedTuple):
    """One published zip file."""

    url: str
    md5: str
    size: int
    """Bytes of the zip file."""
    unpacked: int
    """Bytes that its files take, rounded up; used for the disk-space check before the download."""


COCO_HOME = "http://images.cocodataset.org"
"""Its server has no certificate for this name, hence http; the checksums below do the verifying."""

COCO_ARCHIVES: Mapping[str, Archive] = {
    "annotations": Archive(
        f"{COCO_HOME}/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        252_907_541,
        9 * 10**8,
    ),
    "val": Archive(f"{COCO_HOME}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330, 85 * 10**7),
    "train": Archive(f"{COCO_HOME}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798, 2 * 10**10),
}


def fetch_coco(root: Path, splits: Sequence[str], archives: Mapping[str, Archive] = COCO_ARCHIVES) -> None:
    """Bring COCO 2017 to `root`: annotations/ and, for each split of train and val, <split>2017/.

    Archives are kept in root/downloads/; one that a user put there is verified and used. What an earlier
    call has unpacked is not fetched again, even if its archive was deleted since.
    Raises ConfigError for an unknown split, ResourceError for too little disk or no network,
    DataError for a file that is not the published one.
    """
    unknown = sorted(set(splits) - {"train", "val"})
    if unknown or not splits:
        raise ConfigError(f"splits: expected train, val or both, got {', '.join(unknown) or 'none'}")
    wanted = {name: archives[name] for name in ("annotations", "val", "train") if name in {"annotations", *splits}}
    downloads = root / "downloads"
    places = {name: downloads / archive.url.rsplit("/", 1)[1] for name, archive in wanted.items()}
    missing = [name for name in wanted if not _is_unpacked(places[name], root, wanted[name].md5)]
    needed = 0
    for name in missing:
        held = next((file for file in (places[name], _part_of(places[name])) if file.exists()), None)
        arrived = held.stat().st_size if held else 0
        needed += wanted[name].unpacked + max(0, wanted[name].size - arrived)
    _require_space(root, needed)
    for name in wanted:
        if name not in missing:
            print(f"{places[name].name}: already unpacked in {root}")
            continue
        try:
            fetch_archive(wanted[name].url, places[name], wanted[name].md5, wanted[name].size)
        except ResourceError as error:
            later = [other for other in missing[missing.index(name) + 1 :] if not places[other].exists()]
            others = (_by_hand(wanted[other].url, places[other], *wanted[other][1:3]) for other in later)
            raise ResourceError("\n".join((str(error), *others))) from error
        listing = extract_archive(places[name], root)
        write_json(_record_of(places[name]), {"md5": wanted[name].md5, "files": listing})


def fetch_archive(url: str, destination: Path, md5: str, size: int, attempts: int = 5, pause: float = 2.0) -> None:
    """Download `url` to `destination`, which appears only once `size` bytes with checksum `md5` (hex) are there.

    A partial download waits in `destination` + ".part" and is resumed, in this call after a cut connection
    (up to `attempts` in a row that bring nothing, `pause` seconds apart and doubling) and in later calls.
    A file already at `destination` is verified instead.
    Raises ResourceError when the network or the disk fails, DataError when a file is not the expected one.
    """
    if destination.exists():
        _verify_existing(destination, md5, size)
        return
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url}: only http and https addresses can be fetched")
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(destination)
    resumed = part.exists() and 0 < part.stat().st_size <= size
    if part.exists() and not resumed:
        part.unlink()
    _require_space(destination.parent, size - (part.stat().st_size if resumed else 0))
    by_hand = _by_hand(url, destination, md5, size)
    _download(url, part, size, attempts, pause, by_hand)
    right = _md5(part) == md5
    if not right and resumed:
        print(f"{part.name}: the resumed download has a wrong checksum; starting again from the beginning")
        part.unlink()
        _download(url, part, size, attempts, pause, by_hand)
        right = _md5(part) == md5
    if not right:
        part.unlink()
        raise DataError(f"{url}: what arrived is not the published file (MD5 differs from {md5}).\n{by_hand}")
    part.replace(destination)


def _part_of(destination: Path) -> Path:
    return destination.with_name(destination.name + ".part")


def _record_of(destination: Path) -> Path:
    """What an archive held, written once all of it is unpacked."""
    return destination.with_name(destination.name + ".unpacked.json")


def _is_unpacked(destination: Path, root: Path, md5: str) -> bool:
    record = _record_of(destination)
    if not record.exists():
        return False
    content = read_json(record)
    if not isinstance(content, dict) or content.get("md5") != md5 or not isinstance(content.get("files"), dict):
        return False
    return all((root / name).is_file() and (root / name).stat().st_size == n for name, n in content["files"].items())


def _verify_existing(destination: Path, md5: str, size: int) -> None:
    found = destination.stat().st_size
    if found != size or _md5(destination) != md5:
        raise DataError(
            f"{destination}: not the published file (expected {size} bytes with MD5 {md5}, found {found} bytes"
            f"{' with another MD5' if found == size else ''}). Move it away and run the command again."
        )


def _by_hand(url: str, destination: Path, md5: str, size: int) -> str:
    how = f"Without this machine's network: fetch {url} ({size} bytes, MD5 {md5}) on another"
    return f"{how}, put it at\n  {destination.resolve()}\nand run the same command again; it verifies and uses it."


def _download(url: str, part: Path, size: int, attempts: int, pause: float, by_hand: str) -> None:
    """Append to `part` until it holds `size` bytes, over as many connections as it takes."""
    failures = 0
    start = part.stat().st_size if part.exists() else 0
    with transfer_progress(part.name.removesuffix(".part"), size, start) as report:
        while (before := part.stat().st_size if part.exists() else 0) < size:
            reason = _one_connection(url, part, size, before, report, by_hand)
            after = part.stat().st_size if part.exists() else 0
            failures = 0 if after > before else failures + 1
            if failures >= attempts:
                raise ResourceError(
                    f"{url}: download failed after {after} of {size} bytes ({reason}). What arrived is kept; "
                    f"run the same command again to resume.\n{by_hand}"
                )
            if after < size:
                time.sleep(pause * 2 ** max(0, failures - 1))


def _one_connection(url: str, part: Path, size: int, start: int, report: Callable[[int], None], by_hand: str) -> str:
    """Read from byte `start` until the end or a cut; says why it ended. A server's refusal is an error."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in (408, 429):
            raise ResourceError(f"{url}: the server answered {error.code} {error.reason}.\n{by_hand}") from error
        return f"the server answered {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with response:
        total = response.headers.get("Content-Length", "")
        if response.status == 206:
            first, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if first.partition("-")[0] != str(start):
                part.unlink(missing_ok=True)
                return "the server answered another range than asked"
        else:
            start = 0
        if total.isdigit() and int(total) != size:
            raise DataError(f"{url}: the server offers {total} bytes, the published file has {size}.\n{by_hand}")
        return _append(response, part, start, size, report)


def _append(
    response: http.client.HTTPResponse, part: Path, start: int, size: int, report: Callable[[int], None]
) -> str:
    """Write the body behind byte `start` of `part`, which is cut to that length first; never beyond `size`."""
    try:
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            done = start
            while done < size:
                try:
                    block = response.read(min(BLOCK, size - done))
                except (OSError, http.client.HTTPException) as error:
                    return str(error) or type(error).__name__
                if not block:
                    return "the connection was cut"
                file.write(block)
                done += len(block)
                report(done)
    except OSError as error:
        raise ResourceError(f"{part}: cannot be written ({error.strerror or error})") from error
    return "complete"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, transfer_progress(f"verifying {path.name}", path.stat().st_size, 0) as report:
        while block := file.read(BLOCK):
            digest.update(block)
            report(file.tell())
    return digest.hexdigest()


def _require_space(folder: Path, needed: int) -> None:
    """ResourceError unless the disk of `folder` (which need not exist) has `needed` bytes and some spare."""
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + SPARE_BYTES:
        raise ResourceError(
            f"{folder}: {(needed + SPARE_BYTES) / 1e9:.1f} GB are needed on this disk and {free / 1e9:.1f} GB are "
            "free; free some space or choose a folder on another disk"
        )


def extract_archive(
    archive: Path, folder: Path, most_bytes: int = 1 << 36, most_files: int = 1_000_000
) -> dict[str, int]:
    """Unpack a zip file into `folder`; returns every file's path in it and its size in bytes.

    Files already there with the right size are kept; others of the same name are an error, never overwritten.
    Raises DataError for an unreadable archive and, before anything is written, for one whose listing has
    unsafe paths, links, devices, duplicates or more than `most_bytes` or `most_files`; ResourceError for the disk.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            listing = {entry.filename: entry.file_size for entry in entries}
            errors = _listing_errors(content.infolist(), most_bytes, most_files)
            missing = [entry for entry in entries if not (folder / entry.filename).exists()] if not errors else []
            for name, size in listing.items() if not errors else ():
                place = folder / name
                if place.is_symlink() or (place.exists() and (not place.is_file() or place.stat().st_size != size)):
                    errors.append(f"{place} is there already and is not this file; move it away")
            if errors:
                raise DataError(list_errors(f"{archive}: cannot be unpacked into {folder}", errors))
            _require_space(folder, sum(entry.file_size for entry in missing))
            _unpack(content, missing, folder, archive.name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(f"{archive}: damaged zip file ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise ResourceError(f"{archive}: cannot be unpacked into {folder} ({error})") from error
    return listing


def _listing_errors(entries: list[zipfile.ZipInfo], most_bytes: int, most_files: int) -> list[str]:
    errors = []
    total = sum(entry.file_size for entry in entries)
    if total > most_bytes or len(entries) > most_files:
        errors.append(f"{len(entries)} entries of {total} bytes, more than the {most_files} of {most_bytes} allowed")
    files = {entry.filename.casefold() for entry in entries if not entry.is_dir()}
    seen: set[str] = set()
    for entry in entries[:most_files]:
        name, path = entry.orig_filename, PurePosixPath(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or not path.parts or re.search(r"[\\:\x00-\x1f]", name):
            errors.append(f"{name!r}: path that is unsafe or leaves the folder")
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            errors.append(f"{name!r}: a link or device")
        elif entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            errors.append(f"{name!r}: encrypted or compressed in an unknown way")
        elif path.as_posix().casefold() in seen or any(str(up).casefold() in files for up in path.parents):
            errors.append(f"{name!r}: comes twice, or lies below a file")
        seen.add(path.as_posix().casefold())
    return errors


def _unpack(content: zipfile.ZipFile, entries: list[zipfile.ZipInfo], folder: Path, title: str) -> None:
    """Write each entry under a temporary name and rename it when whole and its CRC is right."""
    folder.mkdir(parents=True, exist_ok=True)
    total, done = sum(entry.file_size for entry in entries), 0
    with (
        tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary,
        transfer_progress(f"unpacking {title}", total, 0) as report,
    ):
        for entry in entries:
            whole = Path(temporary) / "entry"
            with content.open(entry) as source, whole.open("wb") as target:
                shutil.copyfileobj(source, target, BLOCK)
            if whole.stat().st_size != entry.file_size:
                raise zipfile.BadZipFile(f"{entry.filename} is shorter than its listing says")
            place = folder / entry.filename
            place.parent.mkdir(parents=True, exist_ok=True)
            whole.replace(place)
            done += entry.file_size
            report(done)
