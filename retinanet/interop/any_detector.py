"""A detector to use as it is: a run's, a checkpoint, a file of another project, or one that torchvision publishes."""

import difflib
import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from retinanet.errors import CheckpointError
from retinanet.interop.classes import TORCHVISION_COCO
from retinanet.interop.convert import NO_OPTIONS, convert_foreign
from retinanet.interop.detector_file import (
    PUBLISHED,
    coco_by_count,
    content_of,
    fetch_detector,
    first_tensors,
    is_unnamed,
)
from retinanet.interop.formats import detect_format
from retinanet.interop.shards import shard_files
from retinanet.interop.weights_file import read_weights
from retinanet.run.checkpoint import FORMAT, Checkpoint
from retinanet.run.folder import RunFolder
from retinanet.run.nearest import describe_missing_checkpoint, nearest_checkpoints
from retinanet.run.published import open_checkpoint

_MOST_PICKLE = 64 << 20
"""Bytes of a checkpoint's data.pkl: its config and the names of its tensors."""

_OWN_WORDS = (FORMAT.encode(), b"categories", b"progress")
"""Words of every checkpoint's data.pkl: another project's may hold the first alone, as the name of an experiment."""

_log = logging.getLogger(__name__)


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The file of a detector: that of a path, or the best checkpoint of a run's folder; a name in PUBLISHED as it is.

    Raises CheckpointError where there is none, naming the nearest.
    """
    if not isinstance(path_or_name, str | Path):
        kind = type(path_or_name).__name__
        raise CheckpointError(f"a detector is loaded from a file, not from a {kind}; give the path of a checkpoint")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path_or_name)):  # Path makes one slash of two
        raise CheckpointError(f"{path_or_name}: is an address; download the file and give its path")
    path = Path(path_or_name).expanduser()
    if shard_files(path):
        return path
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.best.is_file() and (path / folder.best.name).is_file():
            return path / folder.best.name
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
    meant = difflib.get_close_matches(str(path_or_name).lower(), PUBLISHED, n=1)
    if meant:
        raise CheckpointError(f"{path}: no such file or name; did you mean {meant[0]}?")
    text = describe_missing_checkpoint(path)
    if not path.suffix:
        text += (
            f" Give a checkpoint, an exported file, the folder of a run, or one of the names {', '.join(PUBLISHED)}."
        )
    raise CheckpointError(text)


def open_detector(path: Path, words: Sequence[str] = ()) -> Checkpoint:
    """What `find_checkpoint` returns, but an exported file, as a checkpoint to detect with.

    A file of torchvision, detectron2 or mmdetection is converted as `retinanet convert` does, without torchvision's
    outputs that are no classes. words: key=value words; those of `model` describe the network of such a file. Raises
    CheckpointError.
    """
    if str(path) in PUBLISHED and not path.exists():
        return fetch_detector(str(path))
    if path.is_file() and _is_own(path):
        return open_checkpoint(path)
    file = read_weights(path)
    name = detect_format(file.tensors)
    if name is None:
        raise CheckpointError(
            f"{path}: {content_of(file)}, not a checkpoint of this project, nor a RetinaNet of torchvision, "
            f"detectron2 or mmdetection. {first_tensors(file)}. Give a run's checkpoints/best.pt."
        )
    options = NO_OPTIONS._replace(overrides=[word for word in words if word.startswith("model.")])
    saved, lines = convert_foreign(name, path, file, options)
    if name.startswith("torchvision") and len(saved.categories) == TORCHVISION_COCO:
        saved, lines = convert_foreign(name, path, file, options._replace(coco_only=True))
    _log.warning("%s: file in the format %s, converted in memory%s", path, name, _about_classes(saved, lines))
    return saved


def _about_classes(saved: Checkpoint, lines: Sequence[str]) -> str:
    if guess := coco_by_count(saved, lines):
        return f"; {guess}"
    unnamed = sum(is_unnamed(category, saved) for category in saved.categories)
    if not unnamed:
        return ""
    return f"; {unnamed} of its {len(saved.categories)} classes have no names: `retinanet convert --classes` gives them"


def _is_own(path: Path) -> bool:
    """Whether a file says that it is this project's; not where it is damaged, which any reader will find."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return (file.metadata() or {}).get("format") == FORMAT
        except (SafetensorError, OSError):
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            records = [one for one in archive.infolist() if one.filename.endswith("data.pkl")]
            small = [one for one in records if one.file_size <= _MOST_PICKLE]
            return any(all(word in content for word in _OWN_WORDS) for content in map(archive.read, small))
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, EOFError):
        return False
