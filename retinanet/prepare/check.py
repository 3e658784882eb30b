"""`retinanet data check`: what COCO-format annotation files contain, and all their errors, before any training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from retinanet.data.categories import aligned
from retinanet.data.coco import CocoDataset, parse_coco, summary
from retinanet.data.content import read_annotations
from retinanet.data.content_with_files import FileOptions
from retinanet.data.copies import find_copies
from retinanet.data.file_names import FolderIndex, is_other_split, split_of_name
from retinanet.data.foreign_layout import layout_of_coco
from retinanet.data.notes import KindNotes
from retinanet.display.facts import print_lines
from retinanet.errors import DataError
from retinanet.files import data_title
from retinanet.prepare.listing import ARCHIVES, exists, files_of, find_folder
from retinanet.structures import Category

MAX_CLASSES = 20
"""Classes whose counts are printed; the others are counted together."""

_PROBED = 20  # images that are looked for in each folder


def check_data_sets(path: Path, images: Path | None = None, *, every_pixel: bool = False) -> None:
    """Print images, boxes and notes of every annotation file of `path`, a file or a data set's folder.

    images: None searches each file's image folder near it. every_pixel: decode the images instead of reading only
    their headers and ends. Raises DataError with the errors of all files, after the valid ones have been reported.
    """
    files = [(file, images) for file in annotation_files(path)]
    check_parts(files, path if path.is_dir() else None, every_pixel=every_pixel)


def check_parts(
    files: Sequence[tuple[Path, Path | None]], root: Path | None = None, *, every_pixel: bool = False
) -> None:
    """`check_data_sets` of annotation files with their image folders, None to search it.

    root: the folder that they were found in, where JSON files of other content are passed over.
    """
    datasets: dict[str, CocoDataset] = {}
    errors: list[str] = []
    titles = _titles([file for file, _ in files])
    for file, images in files:
        try:
            content = read_annotations(file)
            if root is not None and not _is_annotations(content):
                print_lines(f"{file}: skipped, since it has neither images nor annotations nor categories")
                continue
            folder = images or find_image_folder(file, content)
            options = FileOptions(check="decode" if every_pixel else "header", root=root)
            dataset = parse_coco(content, file, folder, options)
        except DataError as error:
            errors.append(str(error))
            continue
        print_lines(f"{summary(dataset)}\n  images in {data_title(folder)}")
        datasets[titles[file]] = dataset
    if not datasets and not errors:
        raise DataError(_no_annotations(files[0][0].parent))
    if datasets:
        print_lines("\n".join(["", *objects_by_class(datasets), *joint_notes(datasets)]))
    if errors:
        raise DataError("\n".join(errors))
    print(f"no errors found in {len(datasets)} annotation file{'s' if len(datasets) > 1 else ''}")


def _titles(files: Sequence[Path]) -> dict[Path, str]:
    """Short names of files: what is before the first dot, or where several have the same, their folders' names."""
    names = {file: file.name.split(".")[0] for file in files}
    if len(set(names.values())) < len(names):
        names = {file: file.parent.name for file in files}
    return names if len(set(names.values())) == len(names) else {file: str(file) for file in files}


def annotation_files(path: Path) -> list[Path]:
    """The file itself, or the JSON files of a folder or its annotations/; of COCO's own, the instances_*.

    Raises DataError where a folder has none.
    """
    if not path.is_dir():
        return [path]
    for folder in (find_folder(path, "annotations") or path, path):
        files = files_of(folder, ".json", ".json.gz")
        if files:
            return [file for file in files if file.name.startswith("instances_")] or files
    raise DataError(_no_annotations(path))


def _no_annotations(path: Path) -> str:
    return (
        f"{path}: contains no annotation file, nor does its annotations/. COCO-format JSON is needed; to make it from "
        f"Pascal VOC or YOLO labels: retinanet data convert {path} --output FOLDER"
    )


def _is_annotations(content: object) -> bool:
    return isinstance(content, dict) and bool({"images", "annotations", "categories"} & content.keys())


def find_image_folder(
    annotations: Path, content: object, remedy: str = "give their folder with --images FOLDER"
) -> Path:
    """The folder near an annotation file that has the most of its first images. Raises DataError where none has any."""
    content = layout_of_coco(content, KindNotes()) if isinstance(content, dict) else content
    rows = content.get("images") if isinstance(content, dict) else None
    rows = rows[:_PROBED] if isinstance(rows, list) else []
    names = [row["file_name"] for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    if not names:
        return annotations.parent  # parse_coco reports what is wrong with the file
    home = annotations.parent.parent if annotations.parent.name == "annotations" else annotations.parent
    split = annotations.name.split(".")[0].removeprefix("instances_")
    near = ("images", split, f"images/{split}", f"{split}/images", "JPEGImages", ".", "annotations")
    found = Counter({home / name: sum(exists(home / name / file) for file in names) for name in near})
    folder, count = found.most_common(1)[0]
    if not count:
        # Names written for another place: the first of the folders that has files which they mean.
        indices = {home / name: FolderIndex(str(home / name)) for name in near if (home / name).is_dir()}
        own = split_of_name(split)
        found = Counter({place: _count_meant(index, names, own) for place, index in indices.items()})
        folder, count = found.most_common(1)[0] if found else (home, 0)
    if not count:
        places = ", ".join(str(home / name) for name in near[:4])
        packed = [file.name for file in files_of(home, *ARCHIVES)]
        raise DataError(
            f"{annotations}: its images, such as {names[0]}, are in none of {home}, {places}; "
            + (f"unpack {packed[0]} there, or " if packed else "")
            + remedy
        )
    return folder


def _count_meant(index: FolderIndex, names: Sequence[str], split: str | None) -> int:
    """How many names mean a file of the folder, other than files of another split that are called the same."""
    found = (index.find(name) for name in names)
    return sum(one is not None and not all(is_other_split(path, split) for path in one.paths) for one in found)


def _new_notes(dataset: CocoDataset, known: Sequence[Category], source: str) -> Sequence[str]:
    """How the classes of a data set are read as those of `known`. Raises DataError where they cannot be."""
    return aligned(dataset, known, source).notes[len(dataset.notes) :]


def _unseen_notes(first: str, dataset: CocoDataset, title: str, other: CocoDataset) -> list[str]:
    """A note on classes with objects in a split to evaluate on, and none in the split to train on."""
    if split_of_name(first) != "train":
        return []
    learned, evaluated = (
        {one.categories[k].name for record in one.images for k in record.classes_G.tolist()} for one in (dataset, other)
    )
    unseen = sorted(evaluated - learned)
    if not unseen:
        return []
    return [
        f"note: {title} has objects of classes without any in {first}, which cannot be learned: {', '.join(unseen[:5])}"
    ]


def objects_by_class(datasets: Mapping[str, CocoDataset]) -> list[str]:
    """Lines with the number of objects of each class in each file, the most frequent classes first."""
    counts: dict[str, Counter[str]] = {}
    for title, dataset in datasets.items():
        for category in dataset.categories:
            counts.setdefault(category.name, Counter())
        for record in dataset.images:
            for index in record.classes_G.tolist():
                counts[dataset.categories[index].name][title] += 1
    order = sorted(counts, key=lambda name: -counts[name].total())
    rows = [(name, counts[name]) for name in order[:MAX_CLASSES]]
    if rest := order[MAX_CLASSES:]:
        rows.append((f"{len(rest)} more classes", sum((counts[name] for name in rest), Counter[str]())))
    first = max(len(name) for name, _ in (("objects", None), *rows))
    widths = {title: max(len(title), 9) for title in datasets}
    header = "objects".ljust(first) + "".join(f"  {title:>{width}}" for title, width in widths.items())
    return [header] + [
        name.ljust(first) + "".join(f"  {count[title]:>{width},}" for title, width in widths.items())
        for name, count in rows
    ]


def joint_notes(datasets: Mapping[str, CocoDataset]) -> list[str]:
    """Notes on files that are valid one by one but do not belong together: other categories, shared images."""
    notes = []
    first, *others = datasets
    for title in others:
        try:
            new = _new_notes(datasets[title], datasets[first].categories, first)
            notes += [f"note: {title}: {note}" for note in new]
        except DataError as error:
            notes.append(f"note: {error} A training on one is not evaluated on the other")
    for title in others:
        notes += _unseen_notes(first, datasets[first], title, datasets[title])
    titles: dict[Path, list[str]] = {}
    for title, dataset in datasets.items():
        for record in dataset.images:
            titles.setdefault(record.path, []).append(title)
    shared = {path: files for path, files in titles.items() if len(set(files)) > 1}
    if shared:
        path, files = next(iter(shared.items()))
        notes.append(
            f"note: {len(shared):,} images are in several files, for example {path.name} in {' and '.join(files)}; "
            "a detector must not be evaluated on its training images"
        )
    for title in others:
        paths = ([one.path for one in datasets[name].images] for name in (first, title))
        if not shared and (pairs := find_copies(*paths)):
            notes.append(
                f"note: {len(pairs):,} images of {title} are copies of images of {first}, such as "
                f"{pairs[0][1].name} of {pairs[0][0].name}; a detector must not be evaluated on its training images"
            )
    return notes
