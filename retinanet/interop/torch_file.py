"""The one reader of torch.save's files of other projects: tensors and plain data. Nothing that a file contains is run.

Training programs store more than weights: their arguments, paths, loggers. torch's restricted unpickler reads the file;
objects of the classes named here become placeholders without content, and any other class or function is refused.
"""

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinanet.errors import CheckpointError
from retinanet.files import start_of
from retinanet.run.archive import damage_of_archive
from retinanet.run.checkpoint import refused_global

GZIP, TAR = b"\x1f\x8b", b"ustar"
ZIP, PICKLE = b"PK", b"\x80"
"""First bytes of files that torch.save writes; the second until torch 1.5."""

PASSED_OVER = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|pathlib(\._local)?\.\w*Path|collections\.(defaultdict|deque)"
    r"|datetime\.\w+|uuid\.UUID|decimal\.Decimal|getattr|slice|range|frozenset|list|dict|tuple|int|float|str|bool|torch\.torch_version\.TorchVersion"
    r"|copyreg\._reconstructor|typing\.\w+|numpy\.(ndarray|_?core\.multiarray\._reconstruct|dtypes?[.\w]*)"
    r"|(mmengine|mmcv|mmdet|addict|yacs|fvcore|iopath|detectron2|omegaconf|easydict|ml_collections)\.[\w.]+"
    r"|(lightning|lightning_fabric|lightning_utilities|pytorch_lightning|torchmetrics|wandb)\.[\w.]+"
)
"""Classes, and functions that rebuild their objects, in checkpoints of training programs. None is looked up, let alone
called: a placeholder takes the place of each."""

MAPPINGS = re.compile(r".*(Dict|CfgNode|defaultdict)")
"""Those of them that are dicts; their items are read."""

MOST_CLASSES = 200


class Opaque:
    """Stands for an object of a class that is not looked up; keeps nothing of it."""

    def __new__(cls, *_arguments: object) -> "Opaque":
        """Arguments are ignored."""
        return super().__new__(cls)

    def __init__(self, *_arguments: object) -> None:
        return None

    def __setstate__(self, _state: object) -> None:
        return None


class OpaqueMapping:
    """Stands for a class of dicts that is not looked up: its objects are read as plain dicts."""

    def __new__(cls, *_arguments: object) -> "OpaqueMapping":
        """An empty dict; arguments are ignored."""
        return OrderedDict()  # type: ignore[return-value] # the unpickler fills this type only


def read_torch(path: Path) -> object:
    """The content of a file that torch.save wrote, on the CPU, with placeholders for what PASSED_OVER names.

    Raises CheckpointError for a damaged file and for one with other classes or functions.
    """
    error = _damage(path)
    allowed: dict[str, type] = {}
    while not error and len(allowed) < MOST_CLASSES:
        try:
            named = [*_numpy_scalars(), *((placeholder, name) for name, placeholder in allowed.items())]
            with torch.serialization.safe_globals(named), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, on pickles that it may not read
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as raised:  # torch.load raises many kinds for a file that is not one of plain tensors
            refused = refused_global(raised)
            if refused is None:
                raise CheckpointError(f"{path}: {_why_unreadable(path)}.") from raised
            # torch leaves `builtins.` out of its message.
            full = refused if "." in refused else f"builtins.{refused}"
            if not PASSED_OVER.fullmatch(refused) or full in allowed:
                raise CheckpointError(
                    f"{path}: asks for {refused}, which is more than plain tensors and numbers; not loaded, nothing of "
                    "it was run. If you trust it, save its state dict alone in the program that wrote it: "
                    "torch.save({'state_dict': model.state_dict()}, 'weights.pth')."
                ) from raised
            allowed[full] = OpaqueMapping if MAPPINGS.fullmatch(refused) else Opaque
    raise CheckpointError(f"{path}: {error or 'asks for too many classes'}.")


def _damage(path: Path) -> str:
    """What is wrong with a zip archive: torch.load does not verify checksums. Empty for other files."""
    start = start_of(path)
    if start.startswith(GZIP) or start[257:262] == TAR:
        unpack = "gunzip --keep" if start.startswith(GZIP) else "tar xf"
        return f"packed; unpack it first: {unpack} {path}"
    try:
        if not zipfile.is_zipfile(path):
            return ""
        with zipfile.ZipFile(path) as archive:
            records = archive.namelist()
    except Exception:  # zipfile raises many kinds for a damaged archive
        return _why_unreadable(path)
    if any(name.endswith("/constants.pkl") for name in records):
        return "is TorchScript, a program without separate weights; save the state dict of the network it was made from"
    if not any(name.endswith("data.pkl") for name in records):
        inside = f", of {records[0]}" if records else ""
        return f"a zip archive{inside}, not a file that torch.save wrote; unpack it and give the file of weights"
    damage = damage_of_archive(path)
    return f"{damage}; use another copy" if damage else ""


def _numpy_scalars() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Types that torch.load needs for numpy's scalars, such as a learning rate in mmdetection's `meta`."""
    kinds = (np.bool_, np.int32, np.int64, np.float32, np.float64)
    scalar = np.float64(0).__reduce__()[0]
    assert callable(scalar)
    return [
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
    ]


def _why_unreadable(path: Path) -> str:
    start = start_of(path)
    if not start.startswith((ZIP, PICKLE)):
        return "not a file of weights (torch.save did not write it)"
    if start.startswith(ZIP) and not zipfile.is_zipfile(path):
        return "cut short or damaged; use another copy"
    return "damaged, or not written by torch.save"
