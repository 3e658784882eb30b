"""A detector to use as it is: a run's, a checkpoint, a file of another project, or one that torchvision publishes."""

import difflib
import logging
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from retinanet.errors import CheckpointError
from retinanet.interop.classes import TORCHVISION_COCO
from retinanet.interop.convert import NO_OPTIONS, convert_foreign
from retinanet.interop.detector_file import PUBLISHED, describe_other, fetch_detector
from retinanet.interop.formats import FORMATS, detect_format
from retinanet.interop.weights_file import read_weights
from retinanet.run.checkpoint import FORMAT, Checkpoint
from retinanet.run.folder import RunFolder
from retinanet.run.nearest import describe_missing_checkpoint, nearest_checkpoints
from retinanet.run.published import open_checkpoint

_MOST_PICKLE = 64 << 20
"""Bytes of a checkpoint's data.pkl: its config and the names of its tensors."""

_log = logging.getLogger(__name__)


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The file of a detector: that of a path, or the best checkpoint of a run's folder; a name in PUBLISHED as it is.

    Raises CheckpointError where there is none, naming the nearest.
    """
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        folder = RunFolder(path.parent if path.name == "checkpoints" else path)
        if not folder.best.is_file():
            near = [file for file in nearest_checkpoints(path) if Path(file).is_relative_to(path)]
            more = f"; there is {near[0]}" if near else ""
            raise CheckpointError(f"{path}: this folder holds no run with a checkpoint (no file {folder.best}){more}.")
        return folder.best
    if path.exists() or str(path_or_name) in PUBLISHED:
        return path
    _, equals, value = str(path_or_name).partition("=")
    if equals and (value in PUBLISHED or Path(value).exists()):
        raise CheckpointError(f"{path}: give the detector alone, as the first word: {value}")
    meant = difflib.get_close_matches(str(path_or_name), PUBLISHED, n=1)
    if meant:
        raise CheckpointError(f"{path}: no such file or name; did you mean {meant[0]}?")
    text = describe_missing_checkpoint(path)
    if not path.suffix:
        text += (
            f" Give a checkpoint, an exported file, the folder of a run, or one of the names {', '.join(PUBLISHED)}."
        )
    raise CheckpointError(text)


def open_detector(path: Path) -> Checkpoint:
    """What `find_checkpoint` returns, but an exported file, as a checkpoint to detect with.

    A file of torchvision, detectron2 or mmdetection is converted as `retinanet convert` does, without torchvision's
    outputs that are no classes. Raises CheckpointError.
    """
    if str(path) in PUBLISHED and not path.exists():
        return fetch_detector(str(path))
    if not path.is_file() or _is_own(path):
        return open_checkpoint(path)
    file = read_weights(path)
    name = detect_format(file.tensors)
    if name is None:
        raise CheckpointError(describe_other(str(path), file))
    form = FORMATS[name]
    bias = file.tensors.get(f"{form.naming.class_predict}.bias")
    # Only torchvision's own models have as many outputs for nine anchors.
    is_coco = form.rows_are_ids and bias is not None and len(bias) == 9 * TORCHVISION_COCO
    saved, lines = convert_foreign(name, path, file, NO_OPTIONS._replace(coco_only=is_coco))
    classes = len(saved.categories)
    if any("assumed to be COCO's" in line for line in lines):
        _log.warning("%s: its %d outputs are taken for COCO's classes, as that number suggests", path, classes)
    elif all(category.name.startswith("class ") for category in saved.categories):
        command = f"retinanet convert {name} {path} BEST.pt --classes NAMES.json"
        _log.warning("%s: its %d classes have no names, which this gives them: %s", path, classes, command)
    return saved


def _is_own(path: Path) -> bool:
    """Whether a file is to be read as this project's: it says so, or it is damaged and its name fits."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return (file.metadata() or {}).get("format") == FORMAT
        except (SafetensorError, OSError):
            return True
    if path.suffix == ".pkl":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            records = [one for one in archive.infolist() if one.filename.endswith("data.pkl")]
            small = [one for one in records if one.file_size <= _MOST_PICKLE]
            return any(FORMAT.encode() in archive.read(one) for one in small)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, EOFError):
        return path.suffix == ".pt"
