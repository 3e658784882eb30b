"""Checkpoints: plain data, written atomically, verified before they are used.

A file is torch's zip archive of tensors, numbers, strings, lists and dicts. Every record of the archive carries a
CRC-32, which torch.load does not look at and `load` does.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from retinanet.config.load import config_from_dict, config_to_dict
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError
from retinanet.files import replacing
from retinanet.structures import Category

FORMAT = "retinanet-1"


class Progress(NamedTuple):
    """How far a run is, beside its weights."""

    step: int
    best_ap: float
    best_step: int
    stale_evaluations: int
    """Evaluations since the best one."""

    def after_evaluation(self, ap: float, improved: bool) -> "Progress":
        """The progress once this step has been evaluated."""
        if improved:
            return self._replace(best_ap=ap, best_step=self.step, stale_evaluations=0)
        return self._replace(stale_evaluations=self.stale_evaluations + 1)


class Checkpoint(NamedTuple):
    """What a file holds. `optimizer`, `average` and `scaler` are empty in a file that only serves inference."""

    config: Config
    categories: tuple[Category, ...]
    progress: Progress
    model: dict[str, Tensor]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    running_positives_R: Tensor | None = None
    """What loss.normaliser=running_positives goes on with; None for the others."""

    def weights(self) -> dict[str, Tensor]:
        """Names and tensors to evaluate with: the moving average where there is one."""
        prefix = "module."
        averaged = {k.removeprefix(prefix): v for k, v in self.average.items() if k.startswith(prefix)}
        return averaged or self.model


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` in one step; raises ResourceError as `files.replacing`."""
    content = {
        "format": FORMAT,
        "config": config_to_dict(checkpoint.config),
        "categories": [{"id": category.id, "name": category.name} for category in checkpoint.categories],
        "progress": checkpoint.progress._asdict(),
        "model": checkpoint.model,
        "average": checkpoint.average,
        "optimizer": checkpoint.optimizer,
        "scaler": checkpoint.scaler,
        "running_positives": checkpoint.running_positives_R,
    }
    with replacing(path, also=(RuntimeError,)) as part:
        torch.save(content, part)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint of ours onto the CPU. CheckpointError says what is wrong with it."""
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project (no format {FORMAT!r}). "
            "Give a run's checkpoints/last.pt or checkpoints/best.pt."
        )
    running_R = content.get("running_positives")  # files from before it was kept do not have it
    try:
        if not isinstance(running_R, Tensor | None):
            raise TypeError(f"running_positives is a {type(running_R).__name__}")
        return Checkpoint(
            config_from_dict(content["config"], str(path)),
            tuple(Category(int(c["id"]), str(c["name"])) for c in content["categories"]),
            Progress(**content["progress"]),
            content["model"],
            content["average"],
            content["optimizer"],
            content["scaler"],
            running_R,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: the checkpoint lacks a part or holds one of a wrong kind ({error!r})."
        ) from error


def _read(path: Path) -> object:
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give a file such as {path}/checkpoints/best.pt.")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint.")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores plain files; where a flipped bit says otherwise, it would read something else than zipfile.
            odd = [record.filename for record in archive.infolist() if record.compress_type or record.external_attr]
            damaged = odd[0] if odd else archive.testzip()
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path}: not a checkpoint, or cut short or damaged ({error!s:.200}).") from error
    if damaged is not None:
        raise CheckpointError(
            f"{path}: damaged: its record {damaged!r} is not as it was written. Use another checkpoint."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an intact zip with foreign content: torch.load raises many kinds
        wanted = refused_global(error)
        more = f" It asks for {wanted}; not loaded, nothing of it was run." if wanted else ""
        raise CheckpointError(f"{path}: holds something other than plain tensors and numbers.{more}") from error


def refused_global(error: Exception) -> str | None:
    """The function or class that a file asked for where torch.load(weights_only=True) refused it; else None."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1] if found else None


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy `state` into `model`; missing, extra and misshapen tensors are listed in one CheckpointError."""
    own = model.state_dict()
    errors = [f"missing {name}" for name in own if name not in state]
    errors += [f"unexpected {name}" for name in state if name not in own]
    errors += [
        f"{name} is {tuple(state[name].shape)}, wanted {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if errors:
        shown = "; ".join(errors[:8]) + (f"; and {len(errors) - 8} more" if len(errors) > 8 else "")
        raise CheckpointError(f"{source}: does not fit the model of its config: {shown}")
    model.load_state_dict(state)
