"""The layout of a YOLO data set: its classes, splits and image lists, wherever its paths were written for.

data.yaml (Ultralytics, Roboflow), obj.data with obj.names (Darknet's "YOLO 1.1", CVAT) or classes.txt (labelImg, Label
Studio) name the classes.
"""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from retinanet.data.file_names import SPLITS
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json, read_text
from retinanet.prepare.conversion import find_here, read_lines
from retinanet.prepare.listing import YAML_NAMES, describing_yaml, exists, files_below, find_folder, find_inside

MAX_YAML_BYTES = 1 << 20
MAX_YAML_LEVELS = 16


class YoloLayout(NamedTuple):
    """Classes and splits."""

    classes: list[str]
    sources: dict[str, list[Path]]
    """Split name -> folders of images, or text files that list images."""
    key_points: int = 0
    """Numbers of the key points in a line; 0 for a data set without."""


def find_layout(
    folder: Path, splits: Mapping[str, Path] | None, errors: list[str], notes: KindNotes, described: Path | None = None
) -> YoloLayout:
    """The layout of a folder; every error is added to `errors`.

    splits: folders of images or lists of them, by name, which replace those of the folder. described: its data.yaml;
    None searches it. Raises DataError where nothing names the classes.
    """
    sources = {name: [path] for name, path in (splits or {}).items()}
    described = described or describing_yaml(folder)
    names, listed = find_inside(folder, ("obj.names",)), find_inside(folder, ("classes.txt",))
    if described is names is listed is None:
        described, listed = _named_below(folder, notes)
    key_points = 0
    if described is not None:
        content = _read_yaml(described)
        classes = _yaml_classes(described, content, errors)
        key_points = _key_points(described, content, errors)
        sources = sources or _yaml_sources(folder, described, content, errors, notes)
    elif names is not None:
        classes = [line.strip() for line in read_lines(names) if line.strip()]
        sources = sources or _darknet_sources(folder) or _folder_sources(folder)
    elif listed is not None:
        lines = read_lines(listed)
        while lines and not lines[-1].strip():
            lines.pop()
        classes = [line.strip() for line in lines]
        errors.extend(f"{listed}:{n}: empty line" for n, name in enumerate(classes, 1) if not name)
        sources = sources or _folder_sources(folder)
    elif (named := _noted_classes(folder)) is not None:
        classes = named
        notes.say("the classes are those of notes.json, which Label Studio writes")
        sources = sources or _folder_sources(folder)
    else:
        raise DataError(
            f"{folder}: has no data.yaml, obj.names or classes.txt, so classes have no names; add one of them, such "
            "as classes.txt with the name of class 0 in its first line, of class 1 in its second ..."
        )
    errors.extend(f"class {name!r} is listed twice" for name, count in Counter(classes).items() if count > 1)
    return YoloLayout(classes, sources, key_points)


def _named_below(folder: Path, notes: KindNotes) -> tuple[Path | None, Path | None]:
    """The only data.yaml, or else the only classes.txt, that a subfolder has, as labelImg leaves it with the labels."""
    files = files_below(folder)
    for wanted in (YAML_NAMES, ("classes.txt", "predefined_classes.txt")):
        found = [file for file in files if file.name.lower() in wanted]
        if len(found) == 1:
            notes.say(f"the classes are those of {found[0].relative_to(folder).as_posix()}")
            return (found[0], None) if wanted is YAML_NAMES else (None, found[0])
    return None, None


def _noted_classes(folder: Path) -> list[str] | None:
    """The names in notes.json, which Label Studio writes next to classes.txt; None where they do not count from 0."""
    file = find_inside(folder, ("notes.json",))
    content = read_json(file) if file is not None else None
    rows = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    names = {row.get("id"): row.get("name") for row in rows}
    if not all(isinstance(names.get(number), str) for number in range(len(rows))):
        return None
    return [str(names[number]).strip() for number in range(len(rows))]


def _key_points(path: Path, content: dict[object, object], errors: list[str]) -> int:
    """Numbers of the key points of a line: the product of data.yaml's kpt_shape, 0 without it."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
        errors.append(f"{path}: kpt_shape must be [points, 2] or [points, 3], found {_shown(shape)}")
        return 0
    return int(shape[0] * shape[1])


def _darknet_sources(folder: Path) -> dict[str, list[Path]]:
    """The lists that obj.data names, otherwise train.txt, valid.txt and test.txt."""
    written = {"train": "train.txt", "valid": "valid.txt", "val": "val.txt", "test": "test.txt"}
    data = find_inside(folder, ("obj.data",))
    if data is not None:
        pairs = [line.partition("=") for line in read_lines(data) if "=" in line]
        written |= {key.strip(): value.strip() for key, _, value in pairs if key.strip() in written}
    found: dict[str, list[Path]] = {}
    for key, value in written.items():
        place = find_here(value, [folder])
        if place is not None:
            found.setdefault("val" if key == "valid" else key, []).append(place)
    return found


def _folder_sources(folder: Path) -> dict[str, list[Path]]:
    """images/<split>/ or <split>/images/ where there are such folders, otherwise everything as one split "all"."""
    known = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
    found: dict[str, list[Path]] = {}
    for name, split in known:
        for parts in (("images", name), (name, "images")):
            place = find_inside(folder, parts)
            if place is not None and place.is_dir():
                found.setdefault(split, []).append(place)
    return found or {"all": [find_folder(folder, "images") or folder]}


def _read_yaml(path: Path) -> dict[object, object]:
    """The top-level mapping of data.yaml, with the names of classes as the texts that are written there.

    Raises DataError where it is not a mapping, has a key twice or uses an alias.
    """
    text = read_text(path) if path.stat().st_size <= MAX_YAML_BYTES else ""
    if not text.strip():
        raise DataError(
            f"{path}: empty, or larger than {MAX_YAML_BYTES} bytes; keys such as names and train are needed"
        )
    try:
        plain = _is_plain_yaml(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader) if plain else None
        content = yaml.safe_load(text) if plain else None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DataError(f"{path}: cannot be read as YAML: {place}{problem or error}") from error
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise DataError(
            f"{path}: expected keys such as names and train, nested at most {MAX_YAML_LEVELS} deep and without aliases"
        )
    mappings = [node, *(value for _, value in node.value if isinstance(value, yaml.MappingNode))]
    errors = []
    for mapping in mappings:
        lines: dict[str, list[int]] = {}
        for key, _ in mapping.value:
            lines.setdefault(str(key.value), []).append(key.start_mark.line + 1)
        errors += [
            f"key {key} is given more than once, in lines {found}" for key, found in lines.items() if len(found) > 1
        ]
    if errors:
        raise DataError(list_errors(f"{path}: ambiguous", errors))
    return content | {key.value: _texts(value) for key, value in node.value if key.value == "names"}


def _texts(node: yaml.Node) -> object:
    """Scalars of a list or a mapping as they are written, so that a class may be called no, 007 or 2.50; else None."""
    match node:
        case yaml.ScalarNode():
            return None if node.tag == "tag:yaml.org,2002:null" else node.value
        case yaml.SequenceNode():
            return [_texts(child) for child in node.value]
        case yaml.MappingNode():
            return {key.value: _texts(child) for key, child in node.value}
    return None


def _is_plain_yaml(text: str) -> bool:
    """Whether there are neither aliases, which can multiply, nor the deep nesting that PyYAML needs very long for."""
    level = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MAX_YAML_LEVELS or isinstance(event, yaml.AliasEvent):
            return False
    return True


def _yaml_classes(path: Path, content: dict[object, object], errors: list[str]) -> list[str]:
    """The names in the order of their numbers; `names` is a list, numbers with names, or names with numbers."""
    names = content.get("names")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if sorted(map(str, names.values())) == sorted(numbers) != sorted(names):
            names = {str(number): name for name, number in names.items()}
        if sorted(names) != sorted(numbers):
            given = ", ".join(map(str, list(names)[:8]))
            errors.append(
                f"{path}: the keys of names must be 0 to {len(names) - 1} without a gap, found {given}; add the names "
                "of those that are missing"
            )
            return []
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names:
        found = "nothing" if names is None else _shown(names)
        errors.append(f"{path}: names must list the classes, such as names: [cat, dog]; found {found}")
        return []
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            errors.append(f"{path}: names: class {number} is {_shown(name)}; write its name")
    count = content.get("nc", len(names))
    if str(count).strip() != str(len(names)):
        errors.append(f"{path}: nc is {_shown(count)} but names has {len(names)}; correct one of them")
    return [str(name).strip() for name in names]


def _shown(value: object) -> str:
    return type(value).__name__ if isinstance(value, (list, dict)) else repr(value)


def _yaml_sources(
    folder: Path, path: Path, content: dict[object, object], errors: list[str], notes: KindNotes
) -> dict[str, list[Path]]:
    root = content.get("path", "") or ""
    if not isinstance(root, str):
        errors.append(f"{path}: path must be a string, found {_shown(root)}")
        return {}
    sources: dict[str, list[Path]] = {}
    for split in ("train", "val", "test"):
        keys = [split, *(word for word, meant in SPLITS.items() if meant == split)]
        value = next((content[key] for key in keys if content.get(key)), None)
        for entry in value if isinstance(value, list) else [value] if value else []:
            if not isinstance(entry, str):
                errors.append(f"{path}: {split}: expected a path, found {_shown(entry)}")
                continue
            place = place_of(folder, root, entry)
            if place is None:
                outside = Path(os.path.normpath(folder / root / entry))
                cause = f"{outside} is outside {folder}" if exists(outside) else f"there is no {outside}"
                near = [str(one.relative_to(folder)) for ones in _folder_sources(folder).values() for one in ones]
                hint = f" (there is {' and '.join(near)})" if near != ["."] else ""
                errors.append(
                    f"{path}: {split}: {cause}{hint}; correct it, or give it to retinanet data convert with "
                    f"--split {split}=PATH"
                )
                continue
            if place != Path(os.path.normpath(folder / root / entry)):
                kind = f"paths are written for another place in {path.name}: those here are used"
                notes.add(kind, f"{entry} is {place}")
            sources.setdefault(split, []).append(place)
    if not sources and not errors:
        found = _folder_sources(folder)
        if "all" in found:
            errors.append(
                f"{path}: has neither train nor val nor test; correct it, or give one to retinanet data "
                "convert with --split NAME=PATH"
            )
        notes.say(f"{path.name} names no split, so the folders' names do: {', '.join(found)}")
        sources = found
    return sources


def place_of(folder: Path, root: str, entry: str) -> Path | None:
    """Where an entry of data.yaml is: at its path if that is inside `folder`, otherwise as `find_here` finds it."""
    place = Path(os.path.normpath(folder / root / entry))
    if exists(place) and place.resolve().is_relative_to(folder.resolve()):
        return place
    homes = [folder / root, folder] if root and (folder / root).resolve().is_relative_to(folder.resolve()) else [folder]
    here = find_here(entry, homes)
    if here is not None and here.is_dir() and any((here / name).is_dir() for name in ("train", "val", "valid", "test")):
        here = None  # the folder of all splits is not one of them
    return here or _renamed_split(entry, folder)


def _renamed_split(entry: str, folder: Path) -> Path | None:
    """val/images for valid/images and the other way round, where only that is there."""
    for one, other in (("valid", "val"), ("val", "valid")):
        parts = [other if part == one else part for part in entry.replace("\\", "/").split("/")]
        if one in entry.replace("\\", "/").split("/") and (place := find_here("/".join(parts), [folder])) is not None:
            return place
    return None
