"""YOLO text labels (one file per image, lines of `class cx cy w h` in fractions of the image) to COCO-format JSON.

Images stay where they are. `yolo_layout` finds the classes and splits, `yolo_lines` reads a line.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from retinanet.data.file_names import without_upload
from retinanet.data.find_images import image_suffixes
from retinanet.data.images import image_header
from retinanet.data.notes import KindNotes
from retinanet.data.unread_formats import passed_over
from retinanet.errors import DataError
from retinanet.prepare.conversion import (
    ConvertedSplit,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    find_here,
    read_lines,
    refuse_errors,
    with_notes,
    write_splits,
)
from retinanet.prepare.listing import exists, files_below, files_of, find_folder, find_inside, has_images, images_below
from retinanet.prepare.yolo_layout import find_layout
from retinanet.prepare.yolo_lines import (
    LabelRule,
    convention_of,
    fields_of,
    have_tracks,
    looks_like_key_points,
    may_be_two_key_points,
    read_line,
)


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
    read = read_yolo(folder, splits, clip=clip)
    written = write_splits(
        read.splits, read.classes, output, f"converted from {read.form}, folder {folder.name}", overwrite
    )
    return with_notes(written, read.notes)


def read_yolo(
    folder: Path, splits: Mapping[str, Path] | None = None, *, clip: bool = False, described: Path | None = None
) -> LabeledSet:
    """The content of a folder with YOLO's labels; arguments as of `convert_yolo`, `described` as of `find_layout`."""
    errors: list[str] = []
    notes = KindNotes()
    layout = find_layout(folder, splits, errors, notes, described)
    if splits is None and not has_images(folder):
        unread = passed_over(files_below(folder), image_suffixes())
        raise DataError(
            f"{folder}: there are YOLO labels but no image; export them with the images, or copy these into the folder"
            + (f". There are {unread}" if unread else "")
        )
    refuse_errors(folder, "YOLO", errors)
    converted: dict[str, LabeledSplit] = {}
    polygons: list[list[str]] = []
    found: dict[str, tuple[Path, dict[Path, Path]]] = {}
    for name, sources in layout.sources.items():
        files = _image_files(sources, folder, errors, notes)
        if not files:
            unread = passed_over((file for source in sources for file in files_below(source)), image_suffixes())
            errors.append(f"{name}: no image in {', '.join(map(str, sources))}" + (f", but {unread}" if unread else ""))
            continue
        base = sources[0] if len(sources) == 1 and sources[0].is_dir() else _common_folder(files)
        found[name] = base, _label_files(files, notes)
    undecided: list[str] = []
    lines = _lines_of([labels for _, labels in found.values()])
    convention = convention_of(lines, notes, undecided)
    refuse_errors(folder, "YOLO", undecided)
    rule = LabelRule(
        classes=layout.classes,
        key_points=layout.key_points,
        convention=convention,
        tracked=have_tracks(lines),
        clip=clip,
    )
    for name, (base, labels) in found.items():
        images = [_read_image(file, label, base, rule, errors, notes, polygons) for file, label in labels.items()]
        unlabeled = [file for file, label in labels.items() if not label.is_file()]
        if len(unlabeled) == len(labels):
            missing = next(iter(labels.values()))
            errors.append(f"{name}: none of {len(labels)} images has a label file, for example {missing}")
        for file in unlabeled:
            notes.add("images have no label file, and are read as empty", file.name)
        shared = Counter(labels.values())
        for file, label in labels.items():
            if shared[label] > 1:
                notes.add("images share a label file with another of the same name", file.name)
        for orphan in _orphans(labels):
            notes.add("label files have no image, and are left out", str(orphan))
        converted[name] = LabeledSplit(base, images)
    if not layout.key_points:
        _look_for_key_points(polygons, errors, notes)
    refuse_errors(folder, "YOLO", errors)
    return LabeledSet(form="YOLO labels", splits=converted, classes=layout.classes, notes=notes.texts())


def _look_for_key_points(polygons: list[list[str]], errors: list[str], notes: KindNotes) -> None:
    """Add an error for lines of polygons that are key points throughout, and a note where they may be."""
    if looks_like_key_points(polygons):
        errors.append(
            f"every line has {len(polygons[0])} values, the first four a box around the others: key points, not "
            "polygons. Add kpt_shape: [POINTS, 2] (or 3, with visibility) to data.yaml"
        )
    if may_be_two_key_points(polygons):
        notes.say(
            "lines of eight numbers are read as four corners, though all of them may be a box and two key points: if "
            "they are, add kpt_shape: [2, 2] to data.yaml"
        )


def described_images(described: Path) -> tuple[str, list[Path]]:
    """The images that a data.yaml names to evaluate on, or else to test or to train on, and the name of that split.

    Their labels are not read. Raises DataError as `read_yolo`.
    """
    errors: list[str] = []
    notes = KindNotes()
    sources = find_layout(described.parent, None, errors, notes, described).sources
    refuse_errors(described, "YOLO", errors)
    split = next((name for name in ("val", "test", "train") if name in sources), next(iter(sources), "train"))
    images = _image_files(sources.get(split, []), described.parent, errors, notes)
    refuse_errors(described, "YOLO", errors)
    return split, images


def _lines_of(labels: Iterable[dict[Path, Path]]) -> list[list[str]]:
    """The values of every line of all label files that can be read; errors are reported later."""
    lines: list[list[str]] = []
    for label in {label for of_split in labels for label in of_split.values()}:
        with suppress(DataError, OSError):
            lines += [fields_of(line) for line in read_lines(label)]
    return lines


def _image_files(sources: list[Path], folder: Path, errors: list[str], notes: KindNotes) -> list[Path]:
    """Every image of a split, once each, sorted within each source."""
    files: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found = images_below(source)
        elif source.is_file() and source.suffix.lower() == ".txt":
            found = _listed_files(source, folder, errors, notes)
        else:
            errors.append(f"{source}: neither a folder of images nor a .txt file that lists them")
            continue
        files.update(dict.fromkeys(found))
    return list(files)


def _listed_files(source: Path, folder: Path, errors: list[str], notes: KindNotes) -> list[Path]:
    """The images that a text file lists, one path per line, relative to the file's own folder or found in `folder`."""
    try:
        lines = read_lines(source)
    except DataError as error:
        errors.append(str(error))
        return []
    found = []
    images = images_below(folder)
    stems = {image.stem: image for image in images}  # of lists without suffixes, as Pascal VOC has them
    stems = {} if len(stems) < len(images) else stems
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        file = Path(os.path.normpath(source.parent / line.strip()))
        if not exists(file) or not file.resolve().is_relative_to(source.parent.resolve()):
            here = find_here(line, [source.parent, folder]) or stems.get(line.strip())
            if here is None or not here.is_file():
                errors.append(f"{source}:{number}: no image {line.strip()} in {source.parent}")
                continue
            notes.add(
                f"paths are written for another place in {source.name}: those here are used",
                f"{line.strip()} is {here}",
            )
            file = here
        found.append(file)
    return found


def _common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def _label_files(images: list[Path], notes: KindNotes) -> dict[Path, Path]:
    """Image -> its label file, which may be missing; in labels/, or where there is no such folder next to the image."""
    folders = {folder: _label_folder(folder) for folder in {image.parent for image in images}}
    names = {place: {file.name.casefold(): file for file in files_of(place, ".txt")} for place in set(folders.values())}
    uploads = {place: _by_upload(place_names.values()) for place, place_names in names.items()}
    found: dict[Path, Path] = {}
    for image in images:
        label = folders[image.parent] / f"{image.stem}.txt"
        here = names[label.parent]
        # Some programs name the labels of photo.jpg photo.jpg.txt.
        own = here.get(label.name.casefold()) or here.get(f"{image.name}.txt".casefold())
        others = uploads[label.parent].get(_upload_key(label), []) if own is None else []
        if len(others) == 1:
            kind = "label files differ from the names of images in an upload's prefix or in percent-encoding"
            notes.add(kind, f"{others[0].name} of {image.name}")
        found[image] = own or (others[0] if len(others) == 1 else label)
    return found


def _upload_key(label: Path) -> str:
    return without_upload(label.stem).casefold()


def _by_upload(labels: Iterable[Path]) -> dict[str, list[Path]]:
    """Label files by their names without what an upload adds."""
    found: dict[str, list[Path]] = {}
    for label in labels:
        found.setdefault(_upload_key(label), []).append(label)
    return found


def _label_folder(folder: Path) -> Path:
    """The folder in labels/ that mirrors one in the last images/ of a path if labels/ exists, otherwise the folder."""
    parts = folder.parts
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].lower() == "images":
            mirrored = find_folder(Path(*parts[:index]), "labels")
            if mirrored is not None:
                return find_inside(mirrored, parts[index + 1 :]) or Path(mirrored, *parts[index + 1 :])
            break
    return folder


def _orphans(labels: dict[Path, Path]) -> list[Path]:
    """The label files of a labels/ folder that belong to no image."""
    used = set(labels.values())
    folders = sorted({label.parent for image, label in labels.items() if label.parent != image.parent})
    found = [file for folder in folders for file in files_of(folder, ".txt")]
    return [file for file in found if file not in used and file.name.lower() != "classes.txt"]


def _read_image(
    file: Path,
    label: Path,
    base: Path,
    rule: LabelRule,
    errors: list[str],
    notes: KindNotes,
    polygons: list[list[str]],
) -> LabeledImage:
    """One image's header and its label file; every error is added to `errors`, lines of polygons to `polygons`."""
    name = PurePosixPath(file.relative_to(base)).as_posix()
    try:
        height, width = image_header(file)
        lines = read_lines(label) if label.is_file() else []
    except DataError as error:
        errors.append(str(error))
        return LabeledImage(name, (1, 1), [])
    boxes = []
    for number, line in enumerate(lines, 1):
        fields = fields_of(line)
        if fields and fields[0].startswith("#"):
            notes.add("lines begin with #, and are left out", line.strip())
            continue
        if not fields:
            continue
        if len(fields) > 7 or (len(fields) == 7 and not rule.tracked):
            polygons.append(fields)
        try:
            boxes.append(read_line(fields, (height, width), rule, notes))
        except DataError as error:
            errors.append(f"{label}:{number}: {error}")
    return LabeledImage(name, (height, width), boxes)
