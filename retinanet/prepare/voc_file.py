"""One Pascal VOC annotation file: its image, its size and its boxes, by the rule that holds for the whole data set."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import defusedxml
from defusedxml.ElementTree import parse

from retinanet.data.images import ImageHeader, read_header
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_text
from retinanet.prepare.conversion import LabeledBox, LabeledImage, read_number
from retinanet.prepare.voc_images import ImageFolder

MAX_XML_BYTES = 16 << 20


class CornerRule(NamedTuple):
    """What the numbers of <bndbox> mean."""

    zero_based: bool
    """Corners count from 0 and exclude the far one."""
    fractions: bool
    """They are fractions of the image's width and height."""
    clip: bool
    """Cut boxes at the border of the image instead of refusing them."""


def all_corners(path: Path) -> list[float]:
    """The numbers of the boxes of an XML file; none of a file that cannot be read, which is reported later."""
    try:
        root = parse(path, forbid_dtd=True).getroot()
        assert root is not None
        return [float(tag.text or 1) for box in root.iter("bndbox") for tag in box]
    except (OSError, ValueError, LookupError, AssertionError, ElementTree.ParseError, defusedxml.DefusedXmlException):
        return []


def read_voc_file(
    label: str, path: Path, pictures: ImageFolder, rule: CornerRule, errors: list[str], notes: KindNotes
) -> LabeledImage | None:
    """One XML file with its image's header; every error is added to `errors`."""
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise DataError(f"larger than {MAX_XML_BYTES >> 20} MiB")
        root = parse(path, forbid_dtd=True).getroot()
        if root is None or root.tag != "annotation":
            raise DataError("the outermost tag is not <annotation>")
        file_name = pictures.find(label, (root.findtext("filename") or "").strip(), notes)
        header = read_header(pictures.folder / file_name)
    except defusedxml.DefusedXmlException:
        errors.append(f"{path}: declares a DTD or entities, which annotations do not need; remove them")
        return None
    except (OSError, DataError) as error:
        errors.append(str(error) if str(error).startswith(str(path)) else f"{path}: {error}")
        return None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        errors.append(_why_malformed(path, error))
        return None
    if root.find("size") is not None:
        stated = tuple((root.findtext(f"size/{side}") or "nothing").strip() for side in ("height", "width"))
        try:
            _check_size(stated, header, root, path, file_name, notes)
        except DataError as error:
            errors.append(f"{path}: {error}")
    boxes = []
    for number, element in enumerate(root.findall("object"), 1):
        try:
            boxes.append(_read_object(element, header.size, rule, notes))
        except DataError as error:
            errors.append(f"{path}: object {number}: {error}")
    return LabeledImage(file_name, header.size, boxes)


def _why_malformed(path: Path, error: Exception) -> str:
    """The error of a file that is no XML: another encoding than the file declares, or anything else."""
    text = path.read_bytes()
    if b"encoding" not in text[:100] and not text.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            read_text(path)
        except DataError as cause:
            return str(cause)
    return f"{path}: malformed XML ({error})"


def _check_size(
    stated: Sequence[str],
    header: ImageHeader,
    root: ElementTree.Element,
    path: Path,
    file_name: str,
    notes: KindNotes,
) -> None:
    """Note, or refuse with DataError, a <size> (height, width) that is not that of the image."""
    height, width = header.size
    sides = [_side(text) for text in stated]
    if any(side == 0 for side in sides):
        notes.add("images have a size of 0 in the XML: that of the file is taken", path.name)
    elif sides == [height, width]:
        if tuple(stated) != (str(height), str(width)):
            notes.add("sizes are not written as whole numbers", f"{stated[1]} x {stated[0]} in {path.name}")
    elif sides == [width, height] and header.orientation >= 5:
        far = [max([_side(tag.text or "") or 0 for tag in root.iter(name)], default=0) for name in ("xmax", "ymax")]
        upright, turned = far[0] <= width and far[1] <= height, far[0] <= height and far[1] <= width
        if not upright or turned:
            fit = "may fit either" if upright and turned else "fit it only before" if turned else "fit neither"
            raise DataError(
                f"states {stated[1]} x {stated[0]} (width x height), the size of {file_name} before its EXIF rotation; "
                f"as viewers show it, it is {width} x {height}, and the boxes {fit}. If they fit the unrotated image, "
                "remove the EXIF orientation from the file; otherwise exchange width and height in the XML"
            )
        notes.add("sizes are those before the EXIF rotation, the boxes fit the image after it", path.name)
    else:
        raise DataError(f"states height {stated[0]} and width {stated[1]}, but {file_name} has {height} and {width}")


def _side(text: str) -> float | None:
    """A side of <size> as a number; None for any other text."""
    try:
        return float(text)
    except ValueError:
        return None


def _read_object(element: ElementTree.Element, size: tuple[int, int], rule: CornerRule, notes: KindNotes) -> LabeledBox:
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
        raise DataError(
            f"{name}: reversed box, xmin {xmin:g} ymin {ymin:g} xmax {xmax:g} ymax {ymax:g}; exchange the corners"
        )
    if rule.fractions:
        xmin, ymin, xmax, ymax = xmin * width, ymin * height, xmax * width, ymax * height
    elif not rule.zero_based and (xmin, ymin) != (xmax, ymax):
        xmin, ymin = xmin - 1, ymin - 1
    elif not rule.zero_based:
        xmin, ymin, xmax, ymax = xmin - 1, ymin - 1, xmax - 1, ymax - 1
    if rule.clip:
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
