"""What a folder holds that is no data set in a known format, and what to do about it."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from retinanet.data.find_images import image_suffixes
from retinanet.data.unread_formats import passed_over
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import read_lines
from retinanet.prepare.json_kinds import json_kind
from retinanet.prepare.listing import ARCHIVES, files_below, is_image
from retinanet.prepare.tables import describe_heading

_COCO = "which are not read; export COCO instead"
_FOREIGN = {
    ".tfrecord": f"TFRecords, {_COCO}",
    ".tfrecords": f"TFRecords, {_COCO}",
    ".parquet": f"Parquet tables, {_COCO}",
    ".ndjson": f"exports of Labelbox or Ultralytics (NDJSON), {_COCO}",
    ".jsonl": f"lists of JSON lines (Vertex AI, Hugging Face), {_COCO}",
    ".manifest": f"manifests of SageMaker Ground Truth, {_COCO}",
    ".odgt": "annotations of CrowdHuman (ODGT), which are not read; convert them to COCO",
    ".vott": f"a project of VoTT, {_COCO}",
    ".mat": f"MATLAB files, {_COCO}",
    ".xlsx": "a spreadsheet, which is not read; save it as .csv",
}
_CLASS_FOLDERS = 2
"""Folders of images from which they look like the classes of a classification data set."""


def foreign_file(path: Path) -> str:
    """What a file of another program is, and which export is read; empty for one that is not known."""
    return _FOREIGN.get(path.suffix.lower(), "")


def describe_unknown(folder: Path, nested: Sequence[Path]) -> str:
    """Message about a folder in no known format: what was looked for, and what is there instead."""
    if nested:
        names = ", ".join(child.name for child in nested[:5])
        return f"{folder}: there are several data sets below it ({names}); give one of these folders"
    there = _what_is_there(folder) or ["nothing that is known"]
    looked = (
        "COCO's .json (in it, in annotations/ or in train/, valid/ and test/), YOLO's data.yaml, obj.names or "
        "classes.txt, Pascal VOC's or CVAT's .xml, the .json of labelme, VIA, Label Studio, Create ML, Datumaro or "
        "Supervisely, a .csv of boxes"
    )
    return f"{folder}: no data set is recognised. There: {'; '.join(there)}. Looked for: {looked}"


def _what_is_there(folder: Path) -> list[str]:
    files = files_below(folder)
    images = [file for file in files if is_image(file)]
    there = [f"{file.name}: {_json_kind_of(file)}" for file in _ending(files, ".json")[:3]]
    there += [f"{file.name}: {describe_heading(read_lines(file))}" for file in _ending(files, ".csv")[:3]]
    packed = [file for file in files if file.name.lower().endswith(ARCHIVES)]
    there += [f"{packed[0].name}, an archive: unpack it, or give it alone"] if packed else []
    kinds = {foreign_file(file): file.name for file in reversed(files) if foreign_file(file)}
    there += [f"{name}: {kind}" for kind, name in kinds.items()]
    texts = _ending(files, ".txt")
    there += [_described_texts(texts)] if texts else []
    unread = passed_over(files, image_suffixes())
    seen = [_described_images(folder, images, bool(there))] if images else []
    return [*seen, *there, *([unread] if unread else [])]


def _ending(files: Sequence[Path], suffix: str) -> list[Path]:
    return [file for file in files if file.suffix.lower() == suffix]


def _json_kind_of(file: Path) -> str:
    try:
        kind = json_kind(read_json(file, "segmentation"))
        return "COCO JSON without boxes of objects; export instances" if kind == "coco" else kind
    except DataError as error:
        return str(error).removeprefix(f"{file}: ")


def _described_images(folder: Path, images: Sequence[Path], has_others: bool) -> str:
    text = f"{len(images):,} image{'s' if len(images) != 1 else ''}"
    if has_others:
        return text
    text += " and no labels"
    places = Counter(image.parent.name for image in images if image.parent != folder)
    if len(places) >= _CLASS_FOLDERS and places.total() == len(images):
        names = ", ".join(name for name, _ in places.most_common(3))
        text += f" (in folders such as {names}: if these are classes, boxes are still needed, since this is a detector)"
    return text


def _program_of(file: Path, lines: Sequence[str]) -> str:
    """VisDrone, MOTChallenge or WIDER FACE, by the lines of their text files; empty for any other."""
    rows = [line.strip().strip(",").split(",") for line in lines if line.strip()]
    is_numbers = all(re.fullmatch(r"-?[\d.]+", cell.strip()) for row in rows for cell in row)
    lengths = {len(row) for row in rows}
    if rows and is_numbers and lengths == {8}:
        return "VisDrone"
    if rows and is_numbers and lengths <= {7, 9, 10} and file.name in ("gt.txt", "det.txt"):
        return "MOTChallenge"
    return "WIDER FACE" if "wider_face" in file.name else ""


def _described_texts(texts: Sequence[Path]) -> str:
    """Text files that are no labels of YOLO, by the first line of the first with numbers."""
    for file in texts[:20]:
        try:
            lines = read_lines(file)
        except DataError:
            continue
        program = _program_of(file, lines)
        if program:
            return (
                f"{len(texts):,} .txt files such as {file.name}, as {program} has them, which are not read; convert "
                "them to COCO"
            )
        row = next((line.split() for line in lines if len(line.split()) >= 5), None)
        if row is None:
            continue
        program = ""
        if len(row) in (15, 16) and row[0][:1].isalpha():
            program = ", as KITTI writes them, which are not read; convert them to COCO"
        elif len(row) == 10 and row[8][:1].isalpha():
            program = ", as DOTA writes them, which are not read; convert them to COCO or to YOLO's oriented boxes"
        elif row[0].isdecimal():
            program = ", as YOLO writes them, whose classes need data.yaml or classes.txt next to the images"
        return f"{len(texts):,} .txt files with lines such as {' '.join(row)[:50]!r} in {file.name}{program}"
    return f"{len(texts):,} .txt files without boxes"
