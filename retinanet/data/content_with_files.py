"""The content of an annotation file together with the files of its images: found, measured and checked."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.annotation_arrays import annotation_arrays
from retinanet.data.content import Content, checked_content
from retinanet.data.file_names import FolderIndex
from retinanet.data.image_files import CheckImages, check_files, file_errors, find_image_files
from retinanet.data.image_sizes import with_missing_sizes, with_turned_sizes
from retinanet.data.normalise import normalise_content
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.validate import validate_ground_truth
from retinanet.errors import DataError, list_errors
from retinanet.files import without_garbage_collection


class FileOptions(NamedTuple):
    """What is read of a data set's image files."""

    check: CheckImages = "none"
    workers: int = 8
    root: Path | None = None
    """The data set's folder, where images outside their folder are searched; None searches nothing."""
    depth_range: DepthRange | None = None


def content_with_files(data: object, annotation_file: Path, folder: Path, options: FileOptions) -> Content:
    """Content whose images all have a name that leads to a file in `folder` (or in the root), and its size.

    Raises DataError with every error of the content and, as far as they can be checked, of the files.
    """
    with without_garbage_collection():
        return _content_with_files(data, annotation_file, folder, options)


def _content_with_files(data: object, annotation_file: Path, folder: Path, options: FileOptions) -> Content:
    title = f"{annotation_file}: this data set cannot be used"
    data, notes, arrays = normalise_content(data)
    if not isinstance(data, dict) or not isinstance(data.get("images"), list) or not folder.is_dir():
        errors = validate_ground_truth(data)
        if isinstance(data, dict) and isinstance(data.get("images"), list):
            errors.append(_no_folder(data["images"], folder, options.root))
        raise DataError(list_errors(title, errors))
    files = find_image_files(data["images"], folder, options.root, options.workers)
    sized = with_missing_sizes(files.rows, partial(files.path_of, folder), options.workers)
    data = {**data, "images": sized.rows}
    notes = [*notes, *files.notes, *sized.notes]
    errors = validate_ground_truth(data, annotations=arrays is None)
    content: Content | None = None
    if not errors:
        arrays = arrays or annotation_arrays(data["annotations"])
        if not files.errors:
            turned = with_turned_sizes(data["images"], arrays, folder, options.workers)
            data, notes = {**data, "images": turned.rows}, [*notes, *turned.notes]
        content, errors = checked_content(data, arrays, notes)
    rows = data["images"]
    checked = check_files(rows, set(files.errors), folder, options.check, options.workers, options.depth_range)
    errors += file_errors(rows, files.errors | checked.errors)
    if errors or content is None:
        raise DataError(list_errors(title, errors))
    return content._replace(notes=[*content.notes, *checked.notes])


def _no_folder(rows: list[Any], folder: Path, root: Path | None) -> str:
    """The error of a missing image folder, with the one that has the images if the root has it."""
    text = f"{folder}: the image folder does not exist; check the path"
    names = [row["file_name"] for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    if root is None or not root.is_dir() or not names:
        return text
    found = FolderIndex(str(root)).find(names[0])
    return f"{text}: {names[0]} is {root / found.paths[0]}" if found else text
