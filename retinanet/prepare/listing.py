"""Files and folders of a data set as its user sees them: without hidden ones, and whatever the case of their letters.

Hidden are names that begin with a dot, such as the ._photo.jpg that macOS leaves next to each file of a memory stick,
and the folder __MACOSX of its archives.
"""

import os
import re
from pathlib import Path

from retinanet.data.find_images import image_suffixes
from retinanet.errors import DataError
from retinanet.files import read_text

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".tar.gz", ".bz2", ".xz")
YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES_KEY = re.compile(r"^names\s*:", re.MULTILINE)
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
"""First bytes of JPEG, PNG, GIF, BMP, WebP and TIFF."""
_TAG = re.compile(r"<([A-Za-z_][\w.-]*)")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set."""
    return name.startswith(".") or name == "__MACOSX"


def children(folder: Path) -> list[Path]:
    """The files and folders directly in a folder, sorted; none where there is no such folder."""
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name)) if folder.is_dir() else []


def files_of(folder: Path, *suffixes: str) -> list[Path]:
    """The files directly in a folder that end in one of the suffixes (".json", ".json.gz"), in any case of letters."""
    return [path for path in children(folder) if path.name.lower().endswith(suffixes) and path.is_file()]


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, sorted; also of folders that are linked, each once."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        below[:] = [name for name in below if not is_hidden(name)] if real not in seen else []
        found += [Path(place, name) for name in names if not is_hidden(name)] if real not in seen else []
        seen.add(real)
    return sorted(found)


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its ending, or without one by its first bytes."""
    if path.suffix:
        return path.suffix.lower() in image_suffixes()
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(_STARTS)
    except OSError:
        return False


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, sorted."""
    return [path for path in files_below(folder) if is_image(path)]


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or its subfolders."""
    return any(map(is_image, files_below(folder)))


def exists(path: Path) -> bool:
    """Whether there is a file or folder; False for names that none can have, such as one of a thousand letters."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def find_inside(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """The file or folder at a relative path, in any case of letters where none has the same; None without one."""
    place = folder
    for part in parts:
        if not exists(place / part):
            folded = part.casefold()
            same = next((child for child in children(place) if child.name.casefold() == folded), None)
            if same is None:
                return None
            part = same.name
        place /= part
    return place


def find_folder(folder: Path, *names: str) -> Path | None:
    """The first of some folders that is directly in a folder, in any case of letters; None without one."""
    found = (find_inside(folder, (name,)) for name in names)
    return next((place for place in found if place is not None and place.is_dir()), None)


def describing_yaml(folder: Path) -> Path | None:
    """The YAML file of a folder that describes a YOLO data set: data.yaml, or else the only one with a key `names`.

    Raises DataError where several have it.
    """
    files = files_of(folder, ".yaml", ".yml")
    usual = [file for name in YAML_NAMES for file in files if file.name.lower() == name]
    if usual:
        return usual[0]
    found = [file for file in files if _NAMES_KEY.search(read_text(file))]
    if len(found) > 1:
        raise DataError(f"{folder}: several files name classes: {', '.join(file.name for file in found)}; give one")
    return found[0] if found else None


def root_tag(path: Path) -> str:
    """The outermost tag of an XML file, as far as its first bytes show it; empty if they do not."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return ""
    text = start.decode("utf-16", "replace") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else start.decode("latin-1")
    found = _TAG.search(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return found[1] if found else ""
