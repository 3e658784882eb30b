"""What conversions to COCO-format JSON share: labelled images, files written, the command line that trains on them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.files import write_json

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


class LabeledBox(NamedTuple):
    """One object of an image."""

    name: str
    bbox: tuple[float, float, float, float]
    """(x, y, width, height) in pixels, the corner of the first pixel being (0, 0)."""
    crowd: bool


class LabeledImage(NamedTuple):
    """One image with its objects."""

    file_name: str
    """Path below the image folder, with forward slashes."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    boxes: list[LabeledBox]


class ConvertedSplit(NamedTuple):
    """One annotation file that a conversion wrote."""

    name: str
    annotations: Path
    images: Path
    """Folder that the file's image paths start from."""
    summary: str


def find_format(folder: Path) -> str:
    """`voc` or `yolo`, by the label files of a folder. DataError where it has neither or both."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    has_xml = any((folder / "Annotations").glob("*.xml")) or any(folder.glob("*.xml"))
    described = any((folder / name).is_file() for name in ("data.yaml", "data.yml", "classes.txt"))
    has_text = described or (folder / "labels").is_dir()
    if has_xml and not has_text:
        return "voc"
    if has_text and not has_xml:
        return "yolo"
    found = "both VOC's XML and YOLO's labels" if has_xml else "neither XML files (VOC) nor data.yaml or labels/ (YOLO)"
    raise DataError(
        f"{folder}: has {found}; name the format: `retinanet data voc FOLDER` or `retinanet data yolo FOLDER`"
    )


def write_splits(
    splits: Mapping[str, tuple[Path, Sequence[LabeledImage]]],
    classes: Sequence[str],
    output: Path,
    description: str,
    overwrite: bool,
) -> list[ConvertedSplit]:
    """Write `output`/<split>.json for each split (image folder, images); category ids are 1..K in the order given.

    Raises DataError if a file is there and `overwrite` is not set, or if the classes cannot be told apart.
    """
    errors = [f"class {name!r} comes twice" for name in sorted({n for n in classes if list(classes).count(n) > 1})]
    errors.extend(f"split {name!r}: a plain name was expected" for name in splits if Path(name).name != name)
    if not classes:
        errors.append("no class at all: not one object is labelled")
    if not overwrite:
        files = [output / f"{name}.json" for name in splits]
        errors.extend(f"{file} is there already; --overwrite replaces it" for file in files if file.exists())
    if errors:
        raise DataError(list_errors(f"{output}: annotations cannot be written", errors))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{output}: cannot be made ({error.strerror}); choose another --output") from error
    written = []
    for name, (folder, images) in splits.items():
        file = output / f"{name}.json"
        write_json(file, coco_document(images, classes, description))
        boxes = [box for image in images for box in image.boxes]
        empty = sum(not image.boxes for image in images)
        crowds = sum(box.crowd for box in boxes)
        flat = sum(box.bbox[2] <= 0 or box.bbox[3] <= 0 for box in boxes)
        summary = (
            f"{name}: {len(images)} images ({empty} without objects), {len(boxes)} boxes ({crowds} difficult, "
            f"{flat} of zero area), {len(classes)} classes -> {file}"
        )
        written.append(ConvertedSplit(name, file, folder, summary))
    return written


def coco_document(images: Sequence[LabeledImage], classes: Sequence[str], description: str) -> dict[str, object]:
    """The content of a COCO-format file; image and annotation ids count from 1 in the order given."""
    ids = {name: number for number, name in enumerate(classes, 1)}
    labelled = ((number, box) for number, image in enumerate(images, 1) for box in image.boxes)
    return {
        "info": {"description": description},
        "images": [
            {"id": number, "file_name": image.file_name, "height": image.size[0], "width": image.size[1]}
            for number, image in enumerate(images, 1)
        ],
        "annotations": [
            {
                "id": number, "image_id": image_id, "category_id": ids[box.name], "bbox": list(box.bbox),
                "area": box.bbox[2] * box.bbox[3], "iscrowd": int(box.crowd),
            }
            for number, (image_id, box) in enumerate(labelled, 1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()],
    }  # fmt: skip


def split_paths(pairs: Iterable[str]) -> dict[str, Path] | None:
    """NAME=PATH words as a mapping, None where there are none. Raises ConfigError."""
    splits: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not name or not equals or not path or name in splits:
            raise ConfigError(f"--split {pair}: expected NAME=PATH, each name once")
        splits[name] = Path(path)
    return splits or None


def train_command(written: Iterable[ConvertedSplit], output: Path) -> str:
    """The command line that trains on what was written, with the split to train on and the one to evaluate on."""
    splits = {split.name: split for split in written}
    first = next(iter(splits.values()))
    train = next((splits[name] for name in ("train", "trainval") if name in splits), first)
    val = next((splits[name] for name in ("val", "valid", "test") if name in splits), train)
    pairs = [f"data.root={output}"]
    for role, split in (("train", train), ("val", val)):
        inside = split.images.resolve().is_relative_to(output.resolve())
        images = split.images.resolve().relative_to(output.resolve()) if inside else split.images.resolve()
        pairs += [f"data.{role}_annotations={split.annotations.name}", f"data.{role}_images={images}"]
    return shlex.join(["python", "retinanet train", "configs/bccd.yaml", *pairs])
