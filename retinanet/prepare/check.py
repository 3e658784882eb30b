"""What a COCO-format data set holds, before anything is trained on it."""

from pathlib import Path

from retinanet.data.coco import CocoDataset, load_coco, summary
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json

SHOWN_CLASSES = 20
"""Classes whose counts are printed; the rest are counted together."""


def check_data_sets(path: Path, images: Path | None = None, *, every_pixel: bool = False) -> None:
    """Print images, boxes by class and notes of every annotation file of `path`, a file or a data set's folder.

    images: None looks for each file's images next to it. every_pixel decodes the images, not only their headers.
    Raises DataError with the errors of all files, after the files without any have been reported.
    """
    errors = []
    for file in annotation_files(path):
        try:
            folder = images or image_folder(file)
            dataset = load_coco(file, folder, "decode" if every_pixel else "header")
        except DataError as error:
            errors.append(str(error))
            continue
        print(f"{file}: {summary(dataset)}", f"  images in {folder}", *class_lines(dataset), sep="\n")
    if errors:
        raise DataError(errors[0] if len(errors) == 1 else list_errors(f"{path}: annotation files with errors", errors))


def annotation_files(path: Path) -> list[Path]:
    """The file itself, or the JSON files of a folder or of its annotations/. DataError where there are none."""
    if not path.is_dir():
        return [path]
    for folder in (path / "annotations", path):
        files = sorted(file for file in folder.glob("*.json*") if file.name.endswith((".json", ".json.gz")))
        if files:
            return files
    raise DataError(
        f"{path}: no annotation file in it or in its annotations/. COCO-format JSON is needed; "
        f"`retinanet data convert {path} --output FOLDER` makes it from Pascal VOC or YOLO labels."
    )


def image_folder(annotations: Path) -> Path:
    """The folder near an annotation file that has its first image. DataError where none has."""
    content = read_json(annotations, leave_out="segmentation")
    rows = content.get("images") if isinstance(content, dict) else None
    names = [row["file_name"] for row in rows or [] if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    if not names:
        # load_coco says what is wrong with the file.
        return annotations.parent
    home = annotations.parent.parent if annotations.parent.name == "annotations" else annotations.parent
    stem = annotations.name.split(".")[0]
    near = (stem, stem.removeprefix("instances_"), "images", f"images/{stem}", "JPEGImages", ".")
    for folder in (annotations.parent, *(home / name for name in near)):
        if (folder / names[0]).is_file():
            return folder
    raise DataError(
        f"{annotations}: its first image, {names[0]}, is in none of {home}, {home}/images, {home}/{near[1]}; "
        "give their folder with --images FOLDER."
    )


def class_lines(dataset: CocoDataset) -> list[str]:
    """Boxes of each class, most first."""
    counts = [0] * len(dataset.categories)
    for record in dataset.images:
        for index in record.classes_G:
            counts[index] += 1
    order = sorted(range(len(counts)), key=lambda index: -counts[index])
    lines = [f"  {counts[index]:>7,} {dataset.categories[index].name}" for index in order[:SHOWN_CLASSES]]
    rest = order[SHOWN_CLASSES:]
    return lines + ([f"  {sum(counts[i] for i in rest):>7,} of {len(rest)} more classes"] if rest else [])
