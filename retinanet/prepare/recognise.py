"""Which format a folder or file is in, and its content: the one place that knows all formats."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.file_names import SPLITS, split_of_name
from retinanet.errors import DataError
from retinanet.files import read_json
from retinanet.prepare.check import find_image_folder
from retinanet.prepare.conversion import LabeledSet, find_format, formats_in
from retinanet.prepare.cvat import read_cvat
from retinanet.prepare.json_kinds import READ, is_supervisely_project, json_kind
from retinanet.prepare.json_lists import read_createml, read_datumaro, read_supervisely
from retinanet.prepare.label_studio import read_label_studio
from retinanet.prepare.listing import ARCHIVES, children, describing_yaml, files_of, find_folder, has_images, root_tag
from retinanet.prepare.other_labels import read_labelme, read_via
from retinanet.prepare.tables import is_table, read_tables
from retinanet.prepare.unknown import describe_unknown, foreign_file
from retinanet.prepare.voc import read_voc
from retinanet.prepare.yolo import read_yolo

_NO_OBJECTS = ("captions_", "image_info_", "stuff_", "panoptic_")
"""Beginnings of COCO's own files without objects to detect."""
_KEY_POINTS = "person_keypoints_"
"""Beginning of files that repeat the boxes of instances_*, and that alone are a data set (CVAT's COCO Keypoints)."""
_JSON = (".json", ".json.gz")
_DEPTH = 3
"""Levels of folders below a path in which a data set is searched."""


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
    return _read_file(path) if path.is_file() else _read_tree(path, path)


def _read_tree(path: Path, root: Path) -> LabeledSet | CocoFiles:
    """The data set of a folder or of the one below it that has labels. root: where its images are, if not there."""
    found = _read_folder(path, root) or _read_split_folders(path, root)
    if found is not None:
        return found
    nested = [child for child in children(path) if child.is_dir() and _read_hint(child)]
    if len(nested) == 1:
        return _read_tree(nested[0], root)
    if nested and all(files_of(child, ".xml") and formats_in(child) == ["voc"] for child in nested):
        return read_voc(path, zero_based=None, clip=True)
    raise DataError(describe_unknown(path if nested else root, nested))


def _read_file(path: Path) -> LabeledSet | CocoFiles:
    suffix, folder = path.suffix.lower(), path.parent
    if suffix in (".yaml", ".yml"):
        return read_yolo(folder, described=path, clip=True)
    if path.name.lower() == "obj.data" or suffix == ".names":
        return read_yolo(folder, clip=True)
    if suffix == ".csv":
        return read_tables([path], folder)
    if path.name.lower().endswith(_JSON):
        content: Any = read_json(path, leave_out="segmentation", nan_as_null=True)
        kind = json_kind(content)
        if kind == "coco":
            return CocoFiles({split_of(path, folder) or "all": Part(path, find_image_folder(path, content))})
        if kind not in READ:
            raise DataError(f"{path}: {kind}; annotations in COCO, VIA or labelme format are needed")
        return _read_json_kind(kind, path, folder, folder)
    if suffix == ".zip":
        raise DataError(f"{path}: not a .zip, or damaged; use another copy")
    if suffix == ".xml" and root_tag(path) == "annotations":
        return read_cvat(path, folder)
    if suffix in (".xml", ".txt"):
        raise DataError(f"{path}: one label file; give the folder of the data set")
    if path.name.lower().endswith((*ARCHIVES, ".gz")):
        raise DataError(f"{path}: of the archives only .zip is read; unpack it and give the folder")
    known = foreign_file(path)
    if known:
        raise DataError(f"{path}: {known}")
    raise DataError(f"{path}: not a data set; a folder, a .zip, a .json, a data.yaml or a .csv is needed")


def _read_folder(path: Path, root: Path) -> LabeledSet | CocoFiles | None:
    """The data set whose labels are described in this very folder; None if it has none."""
    coco = coco_files(path)
    if coco:
        return CocoFiles(coco)
    home = path if has_images(path) else root
    places = [path, *(place for name in ("annotations", "labels") if (place := find_folder(path, name)) is not None)]
    cvat = [file for place in places for file in files_of(place, ".xml") if root_tag(file) == "annotations"]
    if len(cvat) > 1:
        raise DataError(f"{path}: several files of CVAT: {', '.join(file.name for file in cvat)}; give one of them")
    if cvat:
        return read_cvat(cvat[0], home)
    if describing_yaml(path) is not None or formats_in(path):
        label_format = "yolo" if describing_yaml(path) is not None else find_format(path)
        return read_yolo(path, clip=True) if label_format == "yolo" else read_voc(path, zero_based=None, clip=True)
    for place in places:
        for file in files_of(place, *_JSON):
            content = read_json(file, nan_as_null=True)
            if is_supervisely_project(content) and any((child / "ann").is_dir() for child in [path, *children(path)]):
                return read_supervisely(path)
            kind = json_kind(content)
            if kind in READ and kind not in ("coco", "supervisely"):
                return _read_json_kind(kind, file, place, home)
    tables = [file for file in files_of(path, ".csv") if is_table(file)]
    return read_tables(tables, home) if tables else None


def _read_json_kind(kind: str, file: Path, place: Path, home: Path) -> LabeledSet:
    """The data set of a JSON file of `kind` in the folder `place`, whose images are in or below `home`."""
    match kind:
        case "via":
            return read_via(file, home)
        case "labelme":
            return read_labelme(home, files_of(place, ".json"))
        case "createml":
            return read_createml(file, home)
        case "label studio":
            return read_label_studio(file, home)
        case "datumaro":
            return read_datumaro(files_of(place, ".json"), home)
        case _:
            raise DataError(f"{file}: one file of a {kind.capitalize()} data set; give the folder of its meta.json")


def _read_split_folders(path: Path, root: Path) -> LabeledSet | None:
    """Folders train/, valid/, test/ that each have labels of their own (Roboflow's VOC and CSV), as one data set.

    Raises DataError where two folders are of one split.
    """
    parts: dict[str, LabeledSet] = {}
    for child in children(path):
        split = SPLITS.get(child.name.lower()) if child.is_dir() else None
        read = _read_folder(child, root) if split is not None else None
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
    annotations = find_folder(folder, "annotations")
    places = [*([annotations] if annotations is not None else []), folder]
    places += [child for child in children(folder) if child.is_dir() and child.name.lower() in SPLITS]
    found: dict[str, list[tuple[Path, Any]]] = {}
    for place in places:
        for file in annotation_candidates(place):
            content = read_json(file, leave_out="segmentation", nan_as_null=True)
            kind = json_kind(content)
            if kind == "labelme":
                break  # one file an image: none of them is a whole data set
            is_bare = isinstance(content, dict) and "images" in content and "annotations" not in content
            if is_bare and split_of(file, folder) == "val":
                raise DataError(
                    f"{file}: has images but no 'annotations', so nothing can be evaluated on it; remove it"
                )
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
    files = [file for file in files_of(folder, *_JSON) if not file.name.startswith(_NO_OBJECTS)]
    instances = [file for file in files if file.name.startswith("instances_")]
    return instances or [file for file in files if not file.name.startswith(_KEY_POINTS)] or files


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
    annotations = find_folder(path, "annotations") or path
    files = [*annotation_candidates(annotations), *annotation_candidates(path)] if path.is_dir() else [path]
    for file in files:
        is_json = ".json" in (suffix.lower() for suffix in file.suffixes)
        kind = json_kind(read_json(file, leave_out="segmentation", nan_as_null=True)) if is_json else ""
        if kind in ("coco", "labelme"):
            return kind == "coco"
    return False


def _read_hint(folder: Path, depth: int = _DEPTH) -> bool:
    """Whether a folder seems to hold a data set, in it or below it, without reading it."""
    inside = children(folder)
    labels = files_of(folder, *_JSON, ".xml", ".yaml", ".yml", "obj.names", ".csv")
    folders = [child for child in inside if child.is_dir()]
    named = any(child.name.lower() in (*SPLITS, "labels") and _has_labels(child) for child in folders)
    return bool(labels) or named or (depth > 1 and any(_read_hint(child, depth - 1) for child in folders))


def _has_labels(folder: Path) -> bool:
    """Whether there is a file below a folder that may be of labels."""
    return any(
        files_of(place, ".txt", ".xml", ".csv", *_JSON) for place in (folder, *filter(Path.is_dir, children(folder)))
    )
