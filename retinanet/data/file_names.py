"""Finding the image that a file name means where no file is called exactly so. Imports no tensor library.

Names in annotation files were often written on another machine, by another program or for another folder: with
backslashes, absolute, percent-encoded, with a folder that is not there, or with the prefix or the URL of an upload.
"""

import os
import posixpath
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from retinanet.data.find_images import image_suffixes

_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio's
_DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")


SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Words in names of files and folders -> the split that they mean."""


def split_of_name(name: str) -> str | None:
    """The split that the words of a file's or folder's name mean, such as train of instances_train2017.json.

    None if they mean none, or several.
    """
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    meant = {SPLITS[word] for word in words if word in SPLITS}
    return meant.pop() if len(meant) == 1 else None


def is_other_split(path: str, split: str | None) -> bool:
    """Whether a file's folders mean another split than `split`, so that it only has the name of what is looked for."""
    meant = {split_of_name(part) for part in path.split("/")[:-1]} - {None}
    return split is not None and bool(meant) and split not in meant


class Found(NamedTuple):
    """Files of a folder that a name may mean, by the most trusted way that leads to any."""

    paths: list[str]
    """Relative to the folder, with slashes; one where it is clear which file is meant."""
    kind: str
    """How the name differs from the file's, as the end of "names that ..."."""
    is_moved: bool
    """Whether the first file is in folders that the name does not end with; else the name only has more of them."""


class FolderIndex:
    """All files of a folder and its subfolders, except hidden ones, by their last names."""

    def __init__(self, root: str) -> None:
        """Links to folders are not followed."""
        self.files: set[str] = set()
        self.images: set[str] = set()
        suffixes = image_suffixes()
        self._by_name: dict[str, list[str]] = {}
        self._by_rest: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for folder, below, names in os.walk(root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            inside = os.path.relpath(folder, root).replace(os.sep, "/")
            for name in sorted(names):
                if not name.startswith("."):
                    is_image = Path(name).suffix.lower() in suffixes
                    self._add(name if inside == "." else f"{inside}/{name}", name, is_image)

    def _add(self, path: str, name: str, is_image: bool) -> None:
        self.files.add(path)
        self._by_name.setdefault(_folded(name), []).append(path)
        if is_image:
            self.images.add(path)
            self._by_stem.setdefault(_folded(Path(name).stem), []).append(path)
        rest = _UPLOAD_PREFIX.sub("", name, count=1)
        if rest != name:
            self._by_rest.setdefault(_folded(rest), []).append(path)

    def images_in(self, folders: Collection[str]) -> set[str]:
        """The paths of all images directly in some folders; "" is the index's own."""
        return {path for path in self.images if posixpath.dirname(path) in folders}

    def find(self, name: str) -> Found | None:
        """What a name means that is no file of the folder; None where nothing fits."""
        parts = path_parts(name)
        if not parts:
            return None
        for kind, given in _readings(name, parts):
            base = given[-1]
            found = self._by_name.get(_folded(base), [])
            if found:
                return _closest(found, given, kind or _difference(name, given, found))
        base = parts[-1]
        rest = without_upload(base)
        for kind, found in (
            ("have the prefix of an upload that the files do not have", self._by_name.get(_folded(rest), [])),
            ("lack the prefix of an upload that the files have", self._by_rest.get(_folded(base), [])),
            ("have another ending or none", self._by_stem.get(_folded(_stem(base)), [])),
            ("have another ending or none", self._by_stem.get(_folded(base), [])),
        ):
            if found:
                return _closest(found, parts, kind)
        return None


def without_upload(name: str) -> str:
    """A file's name without what an upload adds: Label Studio's prefix, and percent-encoding."""
    return _UPLOAD_PREFIX.sub("", unquote(name), count=1)


def path_in(folder: Path, name: str) -> Path:
    """A file in the folder, or near it by a name that begins with "..", whatever the folder is a link to."""
    return Path(os.path.normpath(folder / name)) if name.startswith("../") else folder / name


def shown_name(name: str) -> str:
    """A name in quotes, backslashes as they are."""
    return f"'{name}'" if name.isprintable() else repr(name)


def path_parts(name: str) -> list[str]:
    """The folders and the last name, without drive, "." and "..", with either kind of slash."""
    return [part for part in _DRIVE.sub("", name.strip()).replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _readings(name: str, parts: list[str]) -> list[tuple[str, list[str]]]:
    """Kinds and parts of the name as it is, without the rest of a URL, and decoded."""
    encoded, url = "are percent-encoded", "have the rest of an upload's URL"
    readings = [("", parts), (encoded, path_parts(unquote(name)))]
    if "?" in name or "#" in name:
        before, _, query = name.partition("?")
        readings.append((url, path_parts(unquote(before.partition("#")[0]))))
        if query.startswith("d="):  # Label Studio's local files
            readings.append((url, path_parts(unquote(query.removeprefix("d=")))))
    return [(kind, given) for kind, given in readings if given]


def _closest(found: list[str], parts: list[str], kind: str) -> Found:
    """Of several files, those with most of the name's last folders, and of these the one of the same spelling."""

    def common(path: str) -> tuple[int, bool]:
        pairs = zip(reversed(path.split("/")), reversed(parts))
        same = 0
        for depth, (own, other) in enumerate(pairs):
            if depth and _folded(own) != _folded(other):  # the last names fit in one way or another
                break
            same += 1
        return same, path.split("/")[-1] == parts[-1]

    most = max(map(common, found))
    best = [path for path in found if common(path) == most]
    folders = [_folded(part) for part in best[0].split("/")[:-1]]
    given = [_folded(part) for part in parts[:-1]]
    return Found(paths=best, kind=kind, is_moved=folders != given[len(given) - len(folders) :])


def _difference(name: str, parts: list[str], found: list[str]) -> str:
    base, given = found[0].rsplit("/", 1)[-1], parts[-1]
    if base != given:
        if unicodedata.normalize("NFC", base) == unicodedata.normalize("NFC", given):
            return "are in another Unicode form (NFC or NFD) than the files' names"
        return "differ from the files' names in upper and lower case"
    if "\\" in name and found[0].endswith("/".join(parts)):
        return "have backslashes where the folders have slashes"
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return "are absolute paths, of another machine perhaps"
    if len(parts) == 1 and "/" in found[0]:
        return "lack the folder that the files are in"
    return "are in a folder that is not there"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if "." in name.strip(".") else name
