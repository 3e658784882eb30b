"""YOLO text labels (one file per image, lines of `class cx cy w h` in fractions of the image) to COCO-format JSON.

Images stay where they are. A line with a polygon, `class x1 y1 x2 y2 x3 y3 ...`, becomes its bounding box.
Boxes are (x, y, w, h) in pixels, rounded to a thousandth; boxes that leave the image by at most one pixel, the rounding
of the fractions, are cut.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import yaml

from retinanet.data.images import image_header
from retinanet.errors import DataError, list_errors
from retinanet.prepare.conversion import (
    IMAGE_SUFFIXES,
    ConvertedSplit,
    LabeledBox,
    LabeledImage,
    read_lines,
    refuse_errors,
    write_splits,
)

MAX_YAML_BYTES = 1 << 20
MAX_YAML_LEVELS = 16
ROUNDING_PIXELS = 1.0


class YoloDescription(NamedTuple):
    """Classes and splits, by data.yaml or classes.txt and the folders."""

    classes: list[str]
    sources: dict[str, list[Path]]
    """Split name -> folders of images, or text files that list images."""


def convert_yolo(
    folder: Path,
    output: Path,
    splits: Mapping[str, Path] | None = None,
    *,
    clip: bool = False,
    overwrite: bool = False,
) -> list[ConvertedSplit]:
    """Write `output`/<split>.json for every split; returns what was written.

    `folder` contains data.yaml (names; train, val and test) or classes.txt. Labels are in labels/, which mirrors
    images/, or next to the images; an image without a label file is an empty image. `splits` maps a name to a folder
    of images, or to a text file that lists them, and replaces those of data.yaml; only with it may images be outside
    `folder`. `clip` cuts boxes that cross the border instead of refusing them.
    Raises DataError with every error of the folder in one list.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    errors: list[str] = []
    described = _describe(folder, splits, errors)
    refuse_errors(folder, "YOLO", errors)
    converted: dict[str, tuple[Path, list[LabeledImage]]] = {}
    for name, sources in described.sources.items():
        files = _image_files(sources, errors)
        if not files:
            errors.append(f"{name}: no image in {', '.join(map(str, sources))}")
            continue
        base = sources[0] if len(sources) == 1 and sources[0].is_dir() else _common_folder(files)
        images = [_read_image(file, base, described.classes, clip, errors) for file in files]
        if not any(_label_of(file).is_file() for file in files):
            errors.append(f"{name}: none of {len(files)} images has a label file, for example {_label_of(files[0])}")
        errors.extend(_orphans(files))
        converted[name] = (base, images)
    refuse_errors(folder, "YOLO", errors)
    return write_splits(
        converted, described.classes, output, f"converted from YOLO labels, folder {folder.name}", overwrite
    )


def _describe(folder: Path, splits: Mapping[str, Path] | None, errors: list[str]) -> YoloDescription:
    sources = {name: [path] for name, path in (splits or {}).items()}
    described = next((folder / name for name in ("data.yaml", "data.yml") if (folder / name).is_file()), None)
    if described is not None:
        content = _read_yaml(described)
        classes = _yaml_classes(described, content, errors)
        sources = sources or _yaml_sources(folder, described, content, errors)
    elif (folder / "classes.txt").is_file():
        lines = read_lines(folder / "classes.txt")
        while lines and not lines[-1].strip():
            lines.pop()
        classes = [line.strip() for line in lines]
        errors.extend(f"{folder / 'classes.txt'}:{n}: empty line" for n, name in enumerate(classes, 1) if not name)
        sources = sources or _folder_sources(folder)
    else:
        raise DataError(
            f"{folder}: has neither data.yaml nor classes.txt, so the classes have no names; add one of them"
        )
    return YoloDescription(classes, sources)


def _folder_sources(folder: Path) -> dict[str, list[Path]]:
    """images/<split>/ or <split>/images/ where there are such folders, otherwise everything as one split "all"."""
    known = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))
    found: dict[str, list[Path]] = {}
    for name, split in known:
        for place in (folder / "images" / name, folder / name / "images"):
            if place.is_dir():
                found.setdefault(split, []).append(place)
    return found or {"all": [folder / "images" if (folder / "images").is_dir() else folder]}


def _read_yaml(path: Path) -> dict[object, object]:
    """The top-level mapping of data.yaml. Its class names have integers as keys, unlike anything in a config.

    Raises DataError where it is not a mapping, has a key twice or uses an alias.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_YAML_BYTES + 1)
        text = raw.decode("utf-8-sig")
        plain = len(raw) <= MAX_YAML_BYTES and _is_plain_yaml(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader) if plain else None
        content = yaml.safe_load(text) if plain else None
    except (OSError, yaml.YAMLError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        raise DataError(
            f"{path}: expected keys such as names and train in at most {MAX_YAML_BYTES} bytes, nested at most "
            f"{MAX_YAML_LEVELS} deep and without aliases"
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
    return content


def _is_plain_yaml(text: str) -> bool:
    """Whether there are neither aliases, which can multiply, nor the deep nesting that PyYAML needs very long for."""
    level = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MAX_YAML_LEVELS or isinstance(event, yaml.AliasEvent):
            return False
    return True


def _yaml_classes(path: Path, content: dict[object, object], errors: list[str]) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            errors.append(f"{path}: the keys of names must be 0 to {len(names) - 1} without a gap")
            return []
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        errors.append(f"{path}: names must list the classes")
        return []
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            errors.append(f"{path}: names: class {number} is {_shown(name)}, not a string; put it in quotes")
    count = content.get("nc", len(names))
    if count != len(names):
        errors.append(f"{path}: nc is {_shown(count)} but names has {len(names)}")
    return [str(name).strip() for name in names]


def _shown(value: object) -> str:
    return type(value).__name__ if isinstance(value, (list, dict)) else repr(value)


def _yaml_sources(folder: Path, path: Path, content: dict[object, object], errors: list[str]) -> dict[str, list[Path]]:
    root = content.get("path", "") or ""
    if not isinstance(root, str):
        errors.append(f"{path}: path must be a string, found {_shown(root)}")
        return {}
    sources: dict[str, list[Path]] = {}
    for split in ("train", "val", "test"):
        value = content.get(split)
        for entry in value if isinstance(value, list) else [value] if value else []:
            if not isinstance(entry, str):
                errors.append(f"{path}: {split}: expected a path, found {_shown(entry)}")
                continue
            place = Path(os.path.normpath(folder / root / entry))
            if not place.resolve().is_relative_to(folder.resolve()):
                errors.append(f"{path}: {split}: {place} is outside {folder}; give it with --split {split}=PATH")
            elif not place.exists():
                errors.append(f"{path}: {split}: there is no {place}; correct it, or give it with --split {split}=PATH")
            else:
                sources.setdefault(split, []).append(place)
    if not sources and not errors:
        errors.append(f"{path}: has neither train nor val nor test; give one with --split NAME=PATH")
    return sources


def _image_files(sources: list[Path], errors: list[str]) -> list[Path]:
    """Every image of a split, once each, sorted within each source."""
    files: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found = sorted(file for file in source.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        elif source.is_file() and source.suffix == ".txt":
            found = _listed_files(source, errors)
        else:
            errors.append(f"{source}: neither a folder of images nor a .txt file that lists them")
            continue
        files.update(dict.fromkeys(found))
    return list(files)


def _listed_files(source: Path, errors: list[str]) -> list[Path]:
    """The images that a text file lists, one path per line, relative to the file's own folder."""
    try:
        lines = read_lines(source)
    except DataError as error:
        errors.append(str(error))
        return []
    found = []
    for number, line in enumerate(lines, 1):
        file = Path(os.path.normpath(source.parent / line.strip()))
        if not line.strip():
            continue
        if not file.resolve().is_relative_to(source.parent.resolve()):
            errors.append(f"{source}:{number}: {line.strip()} is outside {source.parent}")
        elif not file.is_file():
            errors.append(f"{source}:{number}: no image {file}")
        else:
            found.append(file)
    return found


def _common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def _label_of(image: Path) -> Path:
    """Its label file: in labels/ in place of the path's last images/ if that exists, otherwise next to the image."""
    parts = image.parent.parts
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            mirrored = Path(*parts[:index], "labels")
            if mirrored.is_dir():
                return Path(mirrored, *parts[index + 1 :], image.stem + ".txt")
            break
    return image.with_suffix(".txt")


def _orphans(files: list[Path]) -> list[str]:
    """Errors for the label files of a labels/ folder that belong to no image."""
    labels = {_label_of(file) for file in files}
    folders = sorted({label.parent for label, file in zip(map(_label_of, files), files) if label.parent != file.parent})
    ignored = {"classes.txt"}
    return [
        f"{file}: label file without an image"
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.glob("*.txt"))
        if file not in labels and file.name not in ignored
    ]


def _read_image(file: Path, base: Path, classes: list[str], clip: bool, errors: list[str]) -> LabeledImage:
    """One image's header and its label file; every error is added to `errors`."""
    name = PurePosixPath(file.relative_to(base)).as_posix()
    label = _label_of(file)
    try:
        height, width = image_header(file)
        lines = read_lines(label) if label.is_file() else []
    except DataError as error:
        errors.append(str(error))
        return LabeledImage(name, (1, 1), [])
    boxes = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            boxes.append(_read_line(line.split(), height, width, classes, clip))
        except DataError as error:
            errors.append(f"{label}:{number}: {error}")
    return LabeledImage(name, (height, width), boxes)


def _read_line(fields: list[str], height: int, width: int, classes: list[str], clip: bool) -> LabeledBox:
    """One line of a label file. Raises DataError, to which the caller adds file and line."""
    if not fields[0].isdecimal() or len(fields[0]) > 9 or int(fields[0]) >= len(classes):
        raise DataError(f"class {fields[0]!r} is not one of 0 to {len(classes) - 1}")
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError as error:
        raise DataError(f"expected numbers ({error})") from error
    if not all(math.isfinite(value) for value in values):
        raise DataError("a number is not finite")
    if len(values) == 4:
        cx, cy, w, h = values
        if w < 0 or h < 0:
            raise DataError(f"negative width or height ({w:g}, {h:g})")
        x1, y1, x2, y2 = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    else:
        raise DataError(f"{len(fields)} values; expected class cx cy w h, or class and at least three points x y")
    x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    least, most = min(x1, y1), max(x2 - width, y2 - height)
    if not clip and (least < -ROUNDING_PIXELS or most > ROUNDING_PIXELS):
        raise DataError(
            f"box from ({x1:.1f}, {y1:.1f}) to ({x2:.1f}, {y2:.1f}) leaves the image of {width} x {height} pixels; "
            "values must be fractions of the image; to cut boxes at the border, use --clip"
        )
    x1, x2 = min(max(x1, 0.0), width), min(max(x2, 0.0), width)
    y1, y2 = min(max(y1, 0.0), height), min(max(y2, 0.0), height)
    return LabeledBox(
        classes[int(fields[0])], (round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)), False
    )
