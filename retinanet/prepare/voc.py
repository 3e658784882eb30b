"""Pascal VOC annotations (one XML file per image) to COCO-format JSON. Images stay where they are.

Boxes: VOC counts pixels from 1 and includes both corners, so a box (xmin, ymin, xmax, ymax) becomes
x = xmin - 1, y = ymin - 1, w = xmax - xmin + 1, h = ymax - ymin + 1. For tools that count corners from 0 and exclude
the far one there is `zero_based`: x = xmin, w = xmax - xmin. A box whose corners coincide is written with zero area;
loading the data set drops and counts it.

`difficult` objects are written as crowd regions (iscrowd 1): evaluation ignores them, and in training they are neither
positives nor plain negatives, as VOC's rules require.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from retinanet.data.file_names import SPLITS
from retinanet.data.find_images import image_suffixes
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import (
    VOC_FOLDERS,
    ConvertedSplit,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    check_order,
    read_lines,
    refuse_errors,
    with_notes,
    write_splits,
)
from retinanet.prepare.listing import children, files_below, files_of, find_folder, has_images, is_image
from retinanet.prepare.voc_file import CornerRule, all_corners, read_voc_file
from retinanet.prepare.voc_images import ImageFolder


def convert_voc(
    folder: Path,
    output: Path,
    splits: Mapping[str, Path] | None = None,
    images: Path | None = None,
    classes: Sequence[str] | None = None,
    zero_based: bool = False,
    *,
    clip: bool = False,
    overwrite: bool = False,
) -> list[ConvertedSplit]:
    """Write `output`/<split>.json for every split; returns what was written.

    `folder` contains Annotations/ and JPEGImages/, or the XML files themselves; `images` overrides the folder of the
    images. `splits` maps a name to a file of image names without suffix, one per line; None uses train, val and test
    (otherwise trainval) of ImageSets/Main, or every XML file as one split "all". `classes` fixes the ids 1..K in its
    order; None uses every name found, sorted. `clip` cuts boxes that cross the border instead of refusing them.
    Raises DataError with every error of the folder in one list.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    read = read_voc(folder, splits, images, classes, zero_based, clip=clip)
    written = write_splits(
        read.splits, read.classes, output, f"converted from {read.form}, folder {folder.name}", overwrite
    )
    return with_notes(written, read.notes)


def read_voc(
    folder: Path,
    splits: Mapping[str, Path] | None = None,
    images: Path | None = None,
    classes: Sequence[str] | None = None,
    zero_based: bool | None = False,
    *,
    clip: bool = False,
) -> LabeledSet:
    """The content of a folder with Pascal VOC's XML files; arguments as of `convert_voc`.

    zero_based None: whether corners count from 0 is read from them (one at 0 cannot count from 1). Corners that are all
    fractions are those of the image's size.
    """
    places = [place for name in VOC_FOLDERS if (place := find_folder(folder, name)) is not None]
    home = next((place for place in places if _label_files(place)), folder)
    labels = _label_files(home)
    pictures = ImageFolder(images or _image_folder(folder, home))
    errors: list[str] = []
    notes = KindNotes()
    names = _split_names(folder, home, labels, splits, errors)
    files = sorted({name for members in names.values() for name in members})
    if labels and not pictures.names:
        raise DataError(
            f"{pictures.folder}: {len(labels):,} Pascal VOC labels but no image; give the folder that has both"
        )
    corners = [corner for name in files for corner in all_corners(labels[name])]
    rule = _corner_rule(corners, zero_based, clip, notes)
    read: dict[str, LabeledImage] = {}
    for name in files:
        image = read_voc_file(name, labels[name], pictures, rule, errors, notes)
        if image is not None:
            read[name] = image
    errors += _claimed_twice(read)
    check_order(sum(len(image.boxes) for image in read.values()), notes, errors)
    named = {image.file_name for image in read.values()}
    for name in sorted(pictures.names - named) if splits is None else ():
        notes.add("images are without an XML file or in no list, and are left out", name)
    found_classes = {box.name for image in read.values() for box in image.boxes}
    if classes is not None:
        unknown = sorted(found_classes - set(classes))
        errors.extend(f"class {name!r} occurs but is not in the given classes" for name in unknown)
    refuse_errors(folder, "Pascal VOC", errors)
    order = list(classes) if classes is not None else sorted(found_classes)
    return LabeledSet(
        form="Pascal VOC",
        splits={
            split: LabeledSplit(pictures.folder, [read[name] for name in members]) for split, members in names.items()
        },
        classes=order,
        notes=notes.texts(),
    )


def _image_folder(folder: Path, home: Path) -> Path:
    """JPEGImages/ or images/ of a folder with any image, otherwise the folder, as where labels and images share it.

    home: the folder of the labels.
    """
    if home == folder and any(map(is_image, children(folder))):
        return folder
    places = (find_folder(folder, name) for name in ("JPEGImages", "images", "image", "imgs", "img"))
    return next((place for place in places if place is not None and has_images(place)), folder)


def _label_files(folder: Path) -> dict[str, Path]:
    """The XML files of a folder, or if it has none itself of its subfolders, by relative path without ending."""
    files = files_of(folder, ".xml") or [file for file in files_below(folder) if file.suffix.lower() == ".xml"]
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _claimed_twice(read: Mapping[str, LabeledImage]) -> list[str]:
    """Errors of images that several label files describe."""
    owners: dict[str, str] = {}
    errors = []
    for label, image in read.items():
        other = owners.setdefault(image.file_name, label)
        if other != label:
            errors.append(f"{other}.xml and {label}.xml are both of the image {image.file_name}; keep one of them")
    return errors


def _corner_rule(corners: Sequence[float], zero_based: bool | None, clip: bool, notes: KindNotes) -> CornerRule:
    """How the corners of a whole data set are written; zero_based as of `read_voc`."""
    fractions = any(0 < corner < 1 for corner in corners) and max(corners) <= 1
    if fractions:
        notes.say("no corner is above 1: all are read as fractions of the image's size")
    elif zero_based is None and any(0 <= corner < 1 for corner in corners):
        notes.say("corners are counted from 0, since some are 0")
        zero_based = True
    return CornerRule(zero_based=bool(zero_based), fractions=fractions, clip=clip)


def _split_names(
    folder: Path, home: Path, labels: Mapping[str, Path], splits: Mapping[str, Path] | None, errors: list[str]
) -> dict[str, list[str]]:
    """Names (as of `labels`, the files of `home`) of each split."""
    if splits is None:
        sets = folder / "ImageSets" / "Main"
        splits = {name: sets / f"{name}.txt" for name in ("train", "val", "test") if (sets / f"{name}.txt").is_file()}
        if "train" not in splits and (sets / "trainval.txt").is_file():
            splits["trainval"] = sets / "trainval.txt"
    if splits:
        return {name: _read_image_set(path, home, labels, errors) for name, path in splits.items()}
    if not labels:
        errors.append(f"{home} contains no .xml file")
    by_split: dict[str, list[str]] = {}
    for name in sorted(labels):
        by_split.setdefault(SPLITS.get(name.split("/")[0].lower(), "") if "/" in name else "", []).append(name)
    return {"all": sorted(labels)} if "" in by_split or not labels else by_split


def _listed_name(written: str, labels: Mapping[str, Path]) -> str:
    """The name of a line; that of the label file where an image or a path to it is written, such as images/a.jpg."""
    stem = PurePosixPath(written.replace("\\", "/")).stem
    is_image_name = PurePosixPath(written).suffix.lower() in image_suffixes()
    return stem if written not in labels and stem in labels and (is_image_name or "/" in written) else written


def _read_image_set(path: Path, home: Path, labels: Mapping[str, Path], errors: list[str]) -> list[str]:
    try:
        lines = read_lines(path)
    except DataError as error:
        errors.append(str(error))
        return []
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        name = _listed_name(line.strip(), labels)
        if not name:
            continue
        if len(name.split()) > 1 and name not in labels:
            errors.append(
                f"{path}:{number}: {name!r}: one image name was expected (lists of a single class cannot be used)"
            )
        elif Path(name).name != name:
            errors.append(f"{path}:{number}: {name!r}: a plain name without a folder was expected")
        elif name in names:
            errors.append(f"{path}:{number}: {name} is listed twice")
        elif name not in labels:
            errors.append(f"{path}:{number}: no {name}.xml in {home}; add it, or remove the line")
        else:
            names[name] = None
    if not names:
        errors.append(f"{path}: names no image")
    return list(names)
