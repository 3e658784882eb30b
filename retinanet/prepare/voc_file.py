"""One Pascal VOC annotation file: its image, its size and its boxes, by the rule that holds for the whole data set."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import defusedxml
from defusedxml.ElementTree import fromstring, parse

from retinanet.data.images import ImageHeader, read_header
from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.files import read_text
from retinanet.prepare.conversion import LabeledBox, LabeledImage, in_order, read_number
from retinanet.prepare.voc_images import ImageFolder

MAX_XML_BYTES = 16 << 20
_TRUTH = {
    "0": False,
    "false": False,
    "no": False,
    "unspecified": False,
    "": False,
    "1": True,
    "true": True,
    "yes": True,
}
"""Texts of <difficult>, in lower case."""
_ROTATED = ("cx", "cy", "w", "h", "angle")
_ENCODING = re.compile(rb"""\s*<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


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
        root = _parsed(path)
        assert root is not None
        boxes = [*root.iter("bndbox"), *root.iter("polygon")]
        return [float(text) for box in boxes for tag in box.iter() if (text := (tag.text or "").strip())]
    except (OSError, ValueError, LookupError, AssertionError, ElementTree.ParseError, defusedxml.DefusedXmlException):
        return []


def _parsed(path: Path) -> ElementTree.Element | None:
    """The outermost tag; also of files in an encoding of several bytes, such as GB2312, that the parser does not know.

    Raises as `defusedxml.ElementTree.parse`.
    """
    with path.open("rb") as file:
        declared = _ENCODING.match(file.read(100))
    name = declared[1].decode() if declared is not None else "utf-8"
    if name.lower().startswith(("utf", "us-ascii", "iso-8859", "latin")):
        return parse(path, forbid_dtd=True).getroot()
    text = path.read_bytes().decode(name)
    return fromstring(_ENCODING.sub(b"<?xml version='1.0'", text.encode(), count=1), forbid_dtd=True)


def read_voc_file(
    label: str, path: Path, pictures: ImageFolder, rule: CornerRule, errors: list[str], notes: KindNotes
) -> LabeledImage | None:
    """One XML file with its image's header; every error is added to `errors`."""
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise DataError(f"larger than {MAX_XML_BYTES >> 20} MiB")
        root = _parsed(path)
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
        if (element.findtext("deleted") or "").strip() == "1":
            notes.add("objects are marked as deleted, and are left out", (element.findtext("name") or "").strip())
            continue
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
        ratio = [(side or 0) / real for side, real in zip(sides, (height, width))]
        scaled = min(ratio) > 0 and abs(ratio[0] / ratio[1] - 1) < 0.02
        raise DataError(
            f"states height {stated[0]} and width {stated[1]}, but {file_name} has {height} and {width}; "
            + ("use the image that was annotated, or scale its boxes" if scaled else "correct the XML or the image")
        )


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
    xmin, ymin, xmax, ymax = corners = in_order(_corners_of(element, name, notes), notes)
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
    if difficult.lower() not in _TRUTH:
        raise DataError(f"{name}: <difficult> is {difficult!r}, expected 0 or 1")
    return LabeledBox(name, (xmin, ymin, xmax - xmin, ymax - ymin), _TRUTH[difficult.lower()])


def _around_rotated(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Corners of the upright box around one of roLabelImg: centre, width, height and angle in radians."""
    cx, cy, w, h, angle = values
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    across, down = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
    return cx - across, cy - down, cx + across, cy + down


def _corners_of(element: ElementTree.Element, name: str, notes: KindNotes) -> tuple[float, float, float, float]:
    """The numbers of <bndbox>, or where there is none the corners of the box around <polygon> or <robndbox>.

    Raises DataError.
    """
    if element.find("bndbox") is None and element.find("robndbox") is not None:
        notes.add("objects have a rotated box (<robndbox>): the upright box around it is used", name)
        return _around_rotated([read_number(element.findtext(f"robndbox/{tag}") or "", notes) for tag in _ROTATED])
    if element.find("bndbox") is None and element.find("polygon") is not None:
        sides: list[list[float]] = []
        for letter in "xy":
            texts = [tag.text or "" for tag in element.findall("polygon//*") if re.fullmatch(rf"{letter}\d*", tag.tag)]
            sides.append([read_number(text, notes) for text in texts])
        if len(sides[0]) != len(sides[1]) or len(sides[0]) < 3:
            raise DataError(f"{name}: neither <bndbox> nor a <polygon> of three points or more")
        notes.add("objects have no <bndbox>: the box around their <polygon> is used", name)
        return min(sides[0]), min(sides[1]), max(sides[0]), max(sides[1])
    corners = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = (element.findtext(f"bndbox/{tag}") or "").strip()
        try:
            corners.append(read_number(text, notes))
        except DataError as error:
            raise DataError(f"{name}: <bndbox> without a number in <{tag}>: {error}") from error
    return corners[0], corners[1], corners[2], corners[3]
