"""Which format a folder or file is in, and its content: the one place that knows all formats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.file_names import SPLITS, split_of_name
from retinanet.data.find_images import image_suffixes
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.check import find_image_folder
from retinanet.prepare.conversion import LabeledSet, find_format, formats_in, read_lines
from retinanet.prepare.other_labels import json_kind, read_labelme, read_via
from retinanet.prepare.tables import describe_heading, is_table, read_table
from retinanet.prepare.voc import read_voc
from retinanet.prepare.yolo import read_yolo
from retinanet.prepare.yolo_layout import YAML_NAMES

_NO_OBJECTS = ("captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_")
"""Beginnings of COCO's own files without objects to detect."""


_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")


class Part(NamedTuple):
    """One split in COCO format."""

    annotations: Path
    images: Path
    """Folder of its images."""


class CocoFiles(NamedTuple):
    """COCO-format files, by split; used where they are."""

    splits: dict[str, Part]


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
        return read_yolo(path.parent, described=path, clip=True)
    if path.name == "obj.data" or path.suffix == ".names":
        return read_yolo(path.parent, clip=True)
    if path.suffix == ".csv":
        return read_table(path, path.parent)
    if path.name.endswith((".json", ".json.gz")):
        content: Any = read_json(path, leave_out="segmentation")
        match json_kind(content):
            case "coco":
                return CocoFiles({split_of(path, path.parent) or "all": Part(path, find_image_folder(path, content))})
            case "via":
                return read_via(path, path.parent)
            case "labelme":
                return read_labelme(path.parent, sorted(path.parent.glob("*.json")))
            case kind:
                raise DataError(f"{path}: {kind}; annotations in COCO, VIA or labelme format are needed")
    if path.suffix == ".zip":
        raise DataError(f"{path}: not a .zip, or damaged; use another copy")
    if path.suffix in (".xml", ".txt"):
        raise DataError(f"{path}: one label file; give the folder of the data set")
    if path.suffix.lower() in _ARCHIVES:
        raise DataError(f"{path}: of the archives only .zip is read; unpack it and give the folder")
    raise DataError(f"{path}: not a data set; a folder, a .zip, a .json, a data.yaml or a .csv is needed")


def _read_folder(path: Path) -> LabeledSet | CocoFiles | None:
    """The data set whose labels are described in this very folder; None if it has none."""
    coco = coco_files(path)
    if coco:
        return CocoFiles(coco)
    described = next((path / name for name in YAML_NAMES if (path / name).is_file()), None)
    if described is not None or formats_in(path):
        label_format = "yolo" if described is not None else find_format(path)
        return read_yolo(path, clip=True) if label_format == "yolo" else read_voc(path, zero_based=None, clip=True)
    files = sorted(path.glob("*.json"))
    for file in files:
        kind = json_kind(read_json(file))
        if kind == "labelme":
            return read_labelme(path, files)
        if kind == "via":
            return read_via(file, path)
    tables = [file for file in sorted(path.glob("*.csv")) if is_table(file)]
    if len(tables) > 1:
        names = ", ".join(file.name for file in tables)
        raise DataError(f"{path}: several tables of boxes: {names}; give one of them, or folders train, valid and test")
    return read_table(tables[0], path) if tables else None


def _read_split_folders(path: Path) -> LabeledSet | None:
    """Folders train/, valid/, test/ that each have labels of their own (Roboflow's VOC and CSV), as one data set.

    Raises DataError where two folders are of one split.
    """
    parts: dict[str, LabeledSet] = {}
    for child in sorted(path.iterdir()):
        split = SPLITS.get(child.name.lower()) if child.is_dir() else None
        read = _read_folder(child) if split is not None else None
        if split is None or not isinstance(read, LabeledSet):
            continue
        if split in parts or len(read.splits) > 1:
            raise DataError(f"{child}: the {split} split is there twice; give one folder of a split, or convert each")
        parts[split] = read
    if not parts:
        return None
    return LabeledSet(
        form=next(iter(parts.values())).form,
        splits={split: next(iter(read.splits.values())) for split, read in parts.items()},
        classes=sorted({name for read in parts.values() for name in read.classes}),
        notes=[f"{split}: {note}" for split, read in parts.items() for note in read.notes],
    )


def coco_files(folder: Path) -> dict[str, Part]:
    """The COCO files of a folder, its annotations/ and its folders of splits, by split, with their image folders.

    Raises DataError where two are of one split, or where a file's images are nowhere near it.
    """
    places = [folder / "annotations", folder]
    places += [child for child in sorted(folder.iterdir()) if child.is_dir() and child.name.lower() in SPLITS]
    found: dict[str, list[tuple[Path, Any]]] = {}
    for place in places:
        for file in annotation_candidates(place):
            content = read_json(file, leave_out="segmentation")
            kind = json_kind(content)
            if kind == "labelme":
                break  # one file an image: none of them is a whole data set
            if kind == "coco":
                found.setdefault(split_of(file, folder) or "all", []).append((file, content))
    for split, files in found.items():
        if len(files) > 1:
            names = ", ".join(str(file.relative_to(folder)) for file, _ in files)
            raise DataError(f"{folder}: several annotation files for {split}: {names}; give one of them, or one folder")
    if "train" in found:
        found.pop("all", None)
    return {split: Part(file, find_image_folder(file, content)) for split, [(file, content)] in found.items()}


def annotation_candidates(folder: Path) -> list[Path]:
    """The JSON files directly in a folder; of COCO's own, those with objects (instances_*)."""
    files = sorted(file for file in folder.glob("*.json*") if file.name.endswith((".json", ".json.gz")))
    files = [file for file in files if not file.name.startswith(_NO_OBJECTS)]
    return [file for file in files if file.name.startswith("instances_")] or files


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
    files = [*annotation_candidates(path / "annotations"), *annotation_candidates(path)] if path.is_dir() else [path]
    for file in files:
        kind = json_kind(read_json(file, leave_out="segmentation")) if ".json" in file.suffixes else ""
        if kind in ("coco", "labelme"):
            return kind == "coco"
    return False


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
    images = sum(path.suffix.lower() in image_suffixes() for path in folder.rglob("*"))
    records = next(iter(sorted(folder.rglob("*.tfrecord*"))), None)
    there = [f"{images:,} images and no labels"] if images else []
    there += [
        f"{file.name}: {json_kind(read_json(file, 'segmentation'))}" for file in sorted(folder.glob("*.json"))[:3]
    ]
    there += [f"{file.name}: {describe_heading(read_lines(file))}" for file in sorted(folder.glob("*.csv"))[:3]]
    packed = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in _ARCHIVES]
    there += [f"{packed[0].name}, an archive: unpack it, or give it alone"] if packed else []
    there += [f"TFRecords ({records.name}), which are not read: export COCO instead"] if records else []
    there += ["nothing that is known"] if not there else []
    return f"{folder}: no data set is recognised. Looked for: {looked}. There: {'; '.join(there)}"
