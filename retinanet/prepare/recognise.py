"""Which format a folder or file is in, and its content: the one place that knows all formats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.file_names import SPLITS, split_of_name
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.conversion import IMAGE_SUFFIXES, LabeledSet, LabeledSplit
from retinanet.prepare.other_labels import read_labelme, read_table, read_via, table_columns
from retinanet.prepare.voc import read_voc
from retinanet.prepare.yolo import read_yolo
from retinanet.prepare.yolo_layout import YAML_NAMES

DEEPEST = 3
"""Levels of folders that are looked through."""
_NO_OBJECTS = ("captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_")
"""Beginnings of COCO's own files without objects to detect."""


class CocoFiles(NamedTuple):
    """COCO-format JSON files, by split; used where they are."""

    splits: dict[str, Path]


def read_any(path: Path) -> LabeledSet | CocoFiles:
    """The data set of a folder or file in any format. Raises DataError where none is recognised, or several are."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        return _read_file(path)
    found = _read_folder(path)
    if found is not None:
        return found
    merged = _read_split_folders(path)
    if merged is not None:
        return merged
    inner = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith((".", "__"))]
    nested = [child for child in inner if _read_hint(child)]
    if len(nested) == 1:
        return read_any(nested[0])
    raise DataError(describe_unknown(path, nested))


def _read_file(path: Path) -> LabeledSet | CocoFiles:
    if path.suffix in (".yaml", ".yml"):
        return read_yolo(path.parent, described=path)
    if path.name == "obj.data" or path.suffix == ".names":
        return read_yolo(path.parent)
    if path.suffix == ".csv":
        return read_table(path, path.parent)
    if path.name.endswith((".json", ".json.gz")):
        content: Any = read_json(path, leave_out="segmentation")
        match json_kind(content):
            case "coco":
                return CocoFiles({split_of(path, path.parent) or "all": path})
            case "via":
                return read_via(path, path.parent)
            case "labelme":
                return read_labelme(path.parent, labelme_files(path.parent))
            case kind:
                raise DataError(f"{path}: {kind}; annotations in COCO, VIA or labelme format are needed")
    if path.suffix in (".xml", ".txt"):
        raise DataError(f"{path}: one label file; give the folder of the data set")
    raise DataError(f"{path}: not a data set; a folder, a .zip, a .json, a data.yaml or a .csv is needed")


def _read_folder(path: Path) -> LabeledSet | CocoFiles | None:
    """The data set whose labels are described in this very folder; None if it has none."""
    coco = coco_files(path)
    if coco:
        return CocoFiles(coco)
    if _has_yolo(path):
        return read_yolo(path)
    if any(path.glob("*.xml")) or any((path / "Annotations").glob("*.xml")):
        return read_voc(path, zero_based=None, clip=True)
    labelme = labelme_files(path)
    if labelme:
        return read_labelme(path, labelme)
    for file in sorted(path.glob("*.json")):
        if json_kind(read_json(file)) == "via":
            return read_via(file, path)
    tables = [file for file in sorted(path.glob("*.csv")) if _is_table(file)]
    return read_table(tables[0], path) if len(tables) == 1 else None


def _read_split_folders(path: Path) -> LabeledSet | None:
    """Folders train/, valid/, test/ that each have labels of their own (Roboflow's VOC and CSV), as one data set."""
    parts: dict[str, LabeledSet] = {}
    for child in sorted(path.iterdir()):
        if child.is_dir() and child.name.lower() in SPLITS:
            read = _read_folder(child)
            if isinstance(read, LabeledSet):
                parts[SPLITS[child.name.lower()]] = read
    if not parts:
        return None
    splits: dict[str, LabeledSplit] = {}
    for split, read in parts.items():
        images = [image for part in read.splits.values() for image in part.images]
        splits[split] = LabeledSplit(next(iter(read.splits.values())).folder, images)
    return LabeledSet(
        form=next(iter(parts.values())).form,
        splits=splits,
        classes=sorted({name for read in parts.values() for name in read.classes}),
        notes=[f"{split}: {note}" for split, read in parts.items() for note in read.notes],
    )


def coco_files(folder: Path) -> dict[str, Path]:
    """The COCO files of a folder, its annotations/ and its folders of splits, by split.

    Raises DataError where two are of one split.
    """
    places = [folder / "annotations", folder]
    places += [child for child in sorted(folder.iterdir()) if child.is_dir() and child.name.lower() in SPLITS]
    found: dict[str, list[Path]] = {}
    for place in places:
        files = sorted(f for f in place.glob("*.json*") if f.name.endswith((".json", ".json.gz")))
        files = [f for f in files if not f.name.startswith(_NO_OBJECTS)]
        for file in [f for f in files if f.name.startswith("instances_")] or files:
            if json_kind(read_json(file, leave_out="segmentation")) == "coco":
                found.setdefault(split_of(file, folder) or "all", []).append(file)
    for split, files in found.items():
        if len(files) > 1:
            names = ", ".join(str(file.relative_to(folder)) for file in files)
            raise DataError(f"{folder}: several annotation files for {split}: {names}; give one of them, or one folder")
    if "train" in found:
        found.pop("all", None)
    return {split: files[0] for split, files in found.items()}


def split_of(file: Path, folder: Path) -> str | None:
    """The split that the words of a file's name, or else of its folders below `folder`, mean; None if they mean none.

    instances_train2017.json and train/_annotations.coco.json are of train.
    """
    for part in (file.name, *reversed(file.relative_to(folder).parts[:-1])):
        meant = split_of_name(part)
        if meant is not None:
            return meant
    return None


def is_coco(path: Path) -> bool:
    """Whether a path is a COCO file, or a folder with one in it or in its annotations/."""
    if path.is_dir():
        files = [*sorted((path / "annotations").glob("*.json*")), *sorted(path.glob("*.json*"))]
    else:
        files = [path]
    return any(
        file.name.endswith((".json", ".json.gz")) and json_kind(read_json(file, leave_out="segmentation")) == "coco"
        for file in files
    )


def json_kind(content: object) -> str:
    """`coco`, `via`, `labelme`, or what else the content of a JSON file is, for a message."""
    if isinstance(content, list):
        is_results = content and isinstance(content[0], dict) and {"image_id", "score"} <= content[0].keys()
        return "detections (COCO results), not annotations" if is_results else "a list"
    if not isinstance(content, dict):
        return "not an object"
    if {"images", "annotations"} <= content.keys():
        return "coco"
    if {"shapes", "imagePath"} <= content.keys():
        return "labelme"
    entries = content.get("_via_img_metadata", content)
    rows = list(entries.values())[:3] if isinstance(entries, dict) else []
    if rows and all(isinstance(row, dict) and {"filename", "regions"} <= row.keys() for row in rows):
        return "via"
    return f"a JSON object with {', '.join(map(str, list(content)[:4])) or 'nothing in it'}"


def labelme_files(folder: Path) -> list[Path]:
    """The JSON files of a folder that are labelme's, if the first one is."""
    files = sorted(folder.glob("*.json"))
    if not files or json_kind(read_json(files[0])) != "labelme":
        return []
    return [file for file in files if json_kind(read_json(file)) == "labelme"]


def _has_yolo(folder: Path) -> bool:
    texts = {path.name for path in folder.glob("*.txt")}
    return (
        any((folder / name).is_file() for name in (*YAML_NAMES, "obj.names"))
        or ("classes.txt" in texts and (len(texts) > 1 or (folder / "labels").is_dir()))
        or ((folder / "labels").is_dir() and (folder / "images").is_dir())
    )


def _is_table(file: Path) -> bool:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        return table_columns(lines.readline().strip().split(",")) is not None


def _read_hint(folder: Path) -> bool:
    """Whether a folder seems to hold a data set, without reading it."""
    patterns = ("*.json", "annotations/*.json", "*.xml", "Annotations/*.xml", "*.yaml", "*.yml", "obj.names", "*.csv")
    return any(any(folder.glob(pattern)) for pattern in patterns) or any(
        child.is_dir() and child.name.lower() in (*SPLITS, "labels") for child in folder.iterdir()
    )


def describe_unknown(folder: Path, nested: Sequence[Path]) -> str:
    """Message about a folder in no known format: what was looked for, and what is there instead."""
    looked = (
        "COCO's .json (in it, in annotations/ or in train/, valid/ and test/), YOLO's data.yaml, obj.names or "
        "classes.txt, Pascal VOC's .xml, labelme's or VIA's .json, a .csv of boxes"
    )
    if nested:
        names = ", ".join(child.name for child in nested[:5])
        return f"{folder}: there are several data sets below it ({names}); give one of these folders"
    images = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))
    records = next(iter(sorted(folder.rglob("*.tfrecord*"))), None)
    there = [f"{images:,} images and no labels"] if images else []
    there += [f"TFRecords ({records.name}), which are not read: export COCO instead"] if records else []
    there += ["nothing that is known"] if not there else []
    return f"{folder}: no data set is recognised. Looked for: {looked}. There: {'; '.join(there)}"
