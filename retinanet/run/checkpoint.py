"""Checkpoints: plain data, written atomically and verified before use.

A file is torch's zip archive of tensors, numbers, strings, lists and dicts. Every record of the archive has a CRC-32,
which `load_checkpoint` verifies and torch.load does not.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from retinanet.config.load import config_from_dict, config_to_dict
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError
from retinanet.files import replacing, start_of, wrong_download
from retinanet.run.archive import damage_of_archive
from retinanet.run.nearest import describe_missing_checkpoint
from retinanet.structures import Category

FORMAT = "retinanet-1"


class Progress(NamedTuple):
    """How far a run is, apart from its weights."""

    step: int
    best_ap: float = -1.0
    best_step: int = 0
    """0: no evaluation yet."""
    stale_evaluations: int = 0
    """Evaluations since the best one."""
    rows: int = -1
    """Training rows and evaluations in metrics.jsonl at this step; -1: not counted."""

    def after_evaluation(self, ap: float, improved: bool) -> "Progress":
        """The progress once this step has been evaluated."""
        if improved:
            return self._replace(best_ap=ap, best_step=self.step, stale_evaluations=0)
        return self._replace(stale_evaluations=self.stale_evaluations + 1)


class Checkpoint(NamedTuple):
    """Content of a file. A checkpoint for inference has the first four fields only."""

    config: Config
    categories: tuple[Category, ...]
    progress: Progress
    model: dict[str, Tensor]
    average: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    optimizer: dict[str, Any] = {}  # noqa: RUF012
    scaler: dict[str, Any] = {}  # noqa: RUF012
    running_positives_R: Tensor | None = None
    """(R,) float32, running means of loss.normaliser=running_positives; None for the others."""

    def weights(self) -> dict[str, Tensor]:
        """Names and tensors to evaluate with: the moving average if there is one."""
        prefix = "module."
        averaged = {k.removeprefix(prefix): v for k, v in self.average.items() if k.startswith(prefix)}
        return averaged or self.model


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` atomically; raises ResourceError as `files.replacing`."""
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
    # Through a file of Python's, whose errors name their cause, as those of torch's own file do not.
    size = sum(value.nbytes for _, value in _tensors_of(content))
    with replacing(path, also=(RuntimeError,), size=size) as part, part.open("wb") as file:
        torch.save(content, file)


def not_finite_parts(checkpoint: Checkpoint) -> list[str]:
    """The names of weights, averages and optimizer state that hold NaN or infinity."""
    parts = {"weights": checkpoint.model, "moving average": checkpoint.average, "optimizer": checkpoint.optimizer}
    return [
        f"{part}: {name}"
        for part, content in parts.items()
        for name, value in _tensors_of(content)
        # One pass over the values; NaN becomes both ends.
        if value.is_floating_point() and value.numel() and not torch.stack(value.aminmax()).isfinite().all()
    ]


def _tensors_of(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, lists and tuples, with their keys."""
    if isinstance(value, Tensor):
        yield name, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in pairs:
        yield from _tensors_of(part, f"{name} {key}".strip())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint, to the CPU. CheckpointError for any other or damaged file, saying what is wrong."""
    content = read_archive(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project (no format {FORMAT!r}). Give a run's checkpoints/best.pt; a "
            "detector of torchvision, detectron2 or mmdetection is converted by retinanet convert first."
        )
    running_R = content.get("running_positives")  # absent from older files
    try:
        if not isinstance(running_R, Tensor | None):
            raise TypeError(f"running_positives is a {type(running_R).__name__}")
        return Checkpoint(
            config=config_from_dict(content["config"], str(path)),
            categories=tuple(Category(int(c["id"]), str(c["name"])) for c in content["categories"]),
            progress=Progress(**content["progress"]),
            model=content["model"],
            average=content["average"],
            optimizer=content["optimizer"],
            scaler=content["scaler"],
            running_positives_R=running_R,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: an entry of the checkpoint is missing or of the wrong type ({error!r})."
        ) from error


def read_archive(path: Path) -> object:
    """The plain data of a file that torch.save wrote, verified, on the CPU. CheckpointError for anything else."""
    if path.is_dir():
        raise CheckpointError(f"{path}: this is a folder; give a file such as {path}/checkpoints/best.pt.")
    if not path.is_file():
        raise CheckpointError(describe_missing_checkpoint(path))
    check_download(path)
    if damage := damage_of_archive(path):
        raise CheckpointError(f"{path}: not a checkpoint, or {damage}. Use another one.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an intact zip file with other content: torch.load raises many types
        wanted = refused_global(error)
        more = f" It refers to {wanted}; it was not loaded, and none of its code was run." if wanted else ""
        raise CheckpointError(f"{path}: holds something other than plain tensors and numbers.{more}") from error


def check_download(path: Path) -> None:
    """Raise CheckpointError, with the remedy, for a file that is empty, a web page or a pointer of Git LFS."""
    if wrong := wrong_download(start_of(path)):
        raise CheckpointError(f"{path}: {wrong}.")


def refused_global(error: Exception) -> str | None:
    """The function or class in a file for which torch.load(weights_only=True) refused it; None for other errors."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1] if found else None


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy `state` into `model`; one CheckpointError lists all tensors that are missing, unexpected or misshapen."""
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
        raise CheckpointError(f"{source}: the weights do not fit the model of its config: {shown}")
    model.load_state_dict(state)
