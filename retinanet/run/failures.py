"""failures/step-N/: what a step that ended a run was computed from, for `retinanet replay`."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.errors import CheckpointError
from retinanet.files import replacing
from retinanet.run.checkpoint import Checkpoint, load_checkpoint, read_archive, save_checkpoint
from retinanet.run.folder import RunFolder
from retinanet.structures import Batch, Targets

_FORMAT = "retinanet-batch-1"


class Failure(NamedTuple):
    """A step that ended a run."""

    state: Checkpoint
    """Before the step."""
    batches: list[Batch]
    """Micro-batches of one rank, on the CPU."""
    message: str


def keep_failure(folder: RunFolder, failure: Failure, rank: int) -> Path:
    """Write this rank's batches and message and, on rank 0, the state; returns the folder.

    Of earlier failures nothing is kept: each takes as much space as last.pt. Raises ResourceError.
    """
    state, batches, message = failure
    place = folder.failures / f"step-{state.progress.step + 1}"
    if rank == 0:
        for old in folder.failures.glob("step-*"):
            if old != place:
                shutil.rmtree(old, ignore_errors=True)
        save_checkpoint(place / "state.pt", state)
    content = {"format": _FORMAT, "message": message, "micro_batches": [_plain(batch) for batch in batches]}
    size = sum(tensor.nbytes for batch in batches for tensor in (batch.images, *batch.features))
    path = place / f"batch-{rank}.pt"
    with replacing(path, also=(RuntimeError,), size=size) as part, part.open("wb") as file:
        torch.save(content, file)
    return place


def read_failure(path: Path, rank: int = 0) -> Failure:
    """What `keep_failure` wrote. path: the folder of a step, or of a run, whose only failure it is.

    Raises CheckpointError for anything else.
    """
    if not (path / "state.pt").is_file():
        found = sorted(RunFolder(path).failures.glob("step-*"))
        if not found:
            raise CheckpointError(
                f"{path}: holds no failed step; give a run's folder failures/step-N, which is there if the run ended "
                "because a loss or gradient was not finite."
            )
        path = found[-1]
    state = load_checkpoint(path / "state.pt")
    content = read_archive(path / f"batch-{rank}.pt")
    try:
        if not isinstance(content, dict) or content["format"] != _FORMAT:
            raise KeyError("format")
        batches = [_batch(plain) for plain in content["micro_batches"]]
        return Failure(state=state, batches=batches, message=str(content["message"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its batch cannot be read ({error!r}).") from error


def _plain(batch: Batch) -> dict[str, Any]:
    lists = {"targets": [targets._asdict() for targets in batch.targets], "features": list(batch.features)}
    return batch._asdict() | lists


def _batch(plain: dict[str, Any]) -> Batch:
    features = list(plain["features"])
    tensors = {name: value for name, value in plain.items() if name not in ("targets", "features")}
    if not all(isinstance(value, Tensor) for value in (*tensors.values(), *features)):
        raise TypeError("not a tensor")
    return Batch(**tensors, targets=[Targets(**targets) for targets in plain["targets"]], features=features)
