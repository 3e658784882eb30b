"""Pascal VOC annotations (one XML file per image) to COCO-format JSON. Images stay where they are.

Boxes: VOC counts pixels from 1 and includes both corners, so a box (xmin, ymin, xmax, ymax) becomes
x = xmin - 1, y = ymin - 1, w = xmax - xmin + 1, h = ymax - ymin + 1. For tools that count corners from 0 and exclude
the far one there is `zero_based`: x = xmin, w = xmax - xmin. A box whose corners coincide is written with zero area;
loading the data set drops and counts it.

`difficult` objects are written as crowd regions (iscrowd 1): evaluation ignores them, and in training they are neither
positives nor plain negatives, as VOC's rules require.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import defusedxml
from defusedxml.ElementTree import parse

from retinanet.data.find_images import image_suffixes
from retinanet.data.images import image_header
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import (
    ConvertedSplit,
    LabeledBox,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    read_lines,
    read_number,
    refuse_errors,
    with_notes,
    write_splits,
)

MAX_XML_BYTES = 16 << 20


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

    zero_based None: whether corners count from 0 is read from them (one at 0 cannot count from 1).
    """
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    jpeg_images = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else folder
    pictures = ImageFolder(images or jpeg_images)
    errors: list[str] = []
    notes = KindNotes()
    names = _split_names(folder, annotations, splits, errors)
    files = sorted({name for members in names.values() for name in members})
    if zero_based is None:
        zero_based = any(_counts_from_zero(annotations / f"{name}.xml") for name in files)
        if zero_based:
            notes.say("corners are counted from 0, since some are 0")
    read: dict[str, LabeledImage] = {}
    for name in files:
        image = _read_image(annotations / f"{name}.xml", pictures, zero_based, clip, errors, notes)
        if image is not None:
            read[name] = image
    found = {box.name for image in read.values() for box in image.boxes}
    if classes is not None:
        errors.extend(f"class {name!r} occurs but is not in the given classes" for name in sorted(found - set(classes)))
    refuse_errors(folder, "Pascal VOC", errors)
    order = list(classes) if classes is not None else sorted(found)
    _note_spellings(order, notes)
    return LabeledSet(
        form="Pascal VOC",
        splits={
            split: LabeledSplit(pictures.folder, [read[name] for name in members]) for split, members in names.items()
        },
        classes=order,
        notes=notes.texts(),
    )


def _note_spellings(classes: Sequence[str], notes: KindNotes) -> None:
    """Note names that differ in upper and lower case only, which are classes of their own."""
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(name.casefold(), []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            notes.say(f"classes that differ in upper and lower case only: {' and '.join(names)}")


def _counts_from_zero(path: Path) -> bool:
    """Whether an XML file has a corner of 0; False for a file that cannot be read, which is reported later."""
    try:
        root = parse(path, forbid_dtd=True).getroot()
        assert root is not None
        corners = [float(tag.text or 1) for name in ("xmin", "ymin") for tag in root.iter(name)]
    except (OSError, ValueError, LookupError, AssertionError, ElementTree.ParseError, defusedxml.DefusedXmlException):
        return False
    return any(0 <= corner < 1 for corner in corners)


class ImageFolder:
    """The image files of a folder, without its subfolders, by name and by stem."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError if there is no such folder."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of images")
        self.folder = folder
        self.names = {path.name for path in folder.iterdir() if path.suffix.lower() in image_suffixes()}
        self.by_stem: dict[str, list[str]] = {}
        for name in sorted(self.names):
            self.by_stem.setdefault(Path(name).stem, []).append(name)

    def find(self, stem: str, written: str) -> str:
        """The file name of the image that <stem>.xml describes; its <filename> is `written`.

        The stem decides, as in VOC's own folders; `written` decides between several images and where no stem matches.
        Raises DataError.
        """
        candidates = self.by_stem.get(stem, [])
        if written in candidates or (not candidates and written in self.names):
            return written
        if len(candidates) > 1:
            raise DataError(f"several images match ({', '.join(candidates)}) and <filename> names none of them")
        if not candidates:
            raise DataError(f"no image {stem}.* in {self.folder} (<filename> is {written!r})")
        return candidates[0]


def _split_names(
    folder: Path, annotations: Path, splits: Mapping[str, Path] | None, errors: list[str]
) -> dict[str, list[str]]:
    """Image names (without suffix) of each split."""
    if splits is None:
        sets = folder / "ImageSets" / "Main"
        splits = {name: sets / f"{name}.txt" for name in ("train", "val", "test") if (sets / f"{name}.txt").is_file()}
        if "train" not in splits and (sets / "trainval.txt").is_file():
            splits["trainval"] = sets / "trainval.txt"
    if not splits:
        found = sorted(path.stem for path in annotations.glob("*.xml"))
        if not found:
            errors.append(f"{annotations} contains no .xml file")
        return {"all": found}
    return {name: _read_image_set(path, annotations, errors) for name, path in splits.items()}


def _read_image_set(path: Path, annotations: Path, errors: list[str]) -> list[str]:
    try:
        lines = read_lines(path)
    except DataError as error:
        errors.append(str(error))
        return []
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        if len(name.split()) > 1 and not (annotations / f"{name}.xml").is_file():
            errors.append(
                f"{path}:{number}: {name!r}: one image name was expected (lists of a single class cannot be used)"
            )
        elif Path(name).name != name:
            errors.append(f"{path}:{number}: {name!r}: a plain name without a folder was expected")
        elif name in names:
            errors.append(f"{path}:{number}: {name} is listed twice")
        elif not (annotations / f"{name}.xml").is_file():
            errors.append(f"{path}:{number}: no {name}.xml in {annotations}")
        else:
            names[name] = None
    if not names:
        errors.append(f"{path}: names no image")
    return list(names)


def _read_image(
    path: Path, pictures: ImageFolder, zero_based: bool, clip: bool, errors: list[str], notes: KindNotes
) -> LabeledImage | None:
    """One XML file with its image's header; every error is added to `errors`."""
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise DataError(f"larger than {MAX_XML_BYTES >> 20} MiB")
        root = parse(path, forbid_dtd=True).getroot()
        if root is None or root.tag != "annotation":
            raise DataError("the outermost tag is not <annotation>")
        file_name = pictures.find(path.stem, (root.findtext("filename") or "").strip())
        height, width = image_header(pictures.folder / file_name)
    except defusedxml.DefusedXmlException:
        errors.append(f"{path}: declares a DTD or entities, which annotations do not need; remove them")
        return None
    except (OSError, DataError) as error:
        errors.append(f"{path}: {error}")
        return None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        errors.append(f"{path}: malformed XML ({error})")
        return None
    if root.find("size") is not None:
        stated = tuple((root.findtext(f"size/{side}") or "nothing").strip() for side in ("height", "width"))
        sides = [_side(text) for text in stated]
        if any(side == 0 for side in sides):
            notes.add("images have a size of 0 in the XML: that of the file is taken", path.name)
        elif sides != [height, width]:
            errors.append(
                f"{path}: states height {stated[0]} and width {stated[1]}, but {file_name} has {height} and {width}"
            )
        elif stated != (str(height), str(width)):
            notes.add("sizes are not written as whole numbers", f"{stated[1]} x {stated[0]} in {path.name}")
    boxes = []
    for number, element in enumerate(root.findall("object"), 1):
        try:
            boxes.append(_read_object(element, (height, width), zero_based, clip, notes))
        except DataError as error:
            errors.append(f"{path}: object {number}: {error}")
    return LabeledImage(file_name, (height, width), boxes)


def _side(text: str) -> float | None:
    """A side of <size> as a number; None for any other text."""
    try:
        return float(text)
    except ValueError:
        return None


def _read_object(
    element: ElementTree.Element, size: tuple[int, int], zero_based: bool, clip: bool, notes: KindNotes
) -> LabeledBox:
    """One <object> of an image of (height, width). Raises DataError, to which the caller adds the file's name."""
    height, width = size
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError("no <name>")
    corners = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = (element.findtext(f"bndbox/{tag}") or "").strip()
        try:
            corners.append(read_number(text, notes))
        except DataError as error:
            raise DataError(f"{name}: <bndbox> without a number in <{tag}>: {error}") from error
    xmin, ymin, xmax, ymax = corners
    if xmax < xmin or ymax < ymin:
        raise DataError(f"{name}: reversed box, xmin {xmin:g} ymin {ymin:g} xmax {xmax:g} ymax {ymax:g}")
    if not zero_based and (xmin, ymin) != (xmax, ymax):
        xmin, ymin = xmin - 1, ymin - 1
    elif not zero_based:
        xmin, ymin, xmax, ymax = xmin - 1, ymin - 1, xmax - 1, ymax - 1
    if clip:
        if min(xmin, ymin, width - xmax, height - ymax) < -1:
            notes.add("boxes are cut at the border of the image", f"({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g})")
        xmin, xmax = min(max(xmin, 0.0), width), min(max(xmax, 0.0), width)
        ymin, ymax = min(max(ymin, 0.0), height), min(max(ymax, 0.0), height)
    elif xmin < 0 or ymin < 0 or xmax > width or ymax > height:
        raise DataError(
            f"{name}: box {[f'{corner:g}' for corner in corners]} leaves the image of {width} x {height}; if the "
            "tool that wrote it counts from 0, use --zero-based; to cut boxes at the border, use --clip"
        )
    difficult = (element.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise DataError(f"{name}: <difficult> is {difficult!r}, expected 0 or 1")
    return LabeledBox(name, (xmin, ymin, xmax - xmin, ymax - ymin), difficult == "1")
