"""What shows that foreign weights are damaged where their file has no checksum. Many flipped bits do not show.

A weight with one wrong bit is a weight that a network could have, unless the bit is the highest of its exponent. What
always shows are memory that is used twice, sizes that the file cannot hold, and holes of zeros, which an interrupted
copy leaves.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retinanet.errors import CheckpointError, list_errors

LARGEST_WEIGHT = 1e12
HOLE = 64
"""Numbers of a run of zeros that is not chance: a disk's smallest block of 512 bytes holds 128 of float32."""
MOST_COPIES = 8
"""Times its own size that a file's tensors may take: pyramid levels that share a head give one tensor five names."""

_HASH = re.compile(r"-([0-9a-f]{8,64})$")


def check_named_hash(path: Path) -> None:
    """Raise CheckpointError for a file that is not the one that its name says.

    torchvision, torch.hub and mmdetection end a name in a hyphen and the first digits of the file's SHA-256.
    """
    found = _HASH.search(path.stem)
    if found is None or found[1].isdecimal():  # more likely a date
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise CheckpointError(
            f"{path}: damaged: its SHA-256 begins with {digest[: len(found[1])]}, not with {found[1]} as its name "
            "says. Delete it and download it again; if it was saved anew, give it another name."
        )


def check_memory(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError for tensors that use memory twice, or are larger in all than the file can be.

    To be called before they are copied: a file of kilobytes can describe tensors of terabytes.
    """
    errors = [
        f"{name} has {value.numel():,} values in memory of {room:,}"
        for name, value in tensors.items()
        if value.layout == torch.strided and value.numel() > (room := _room(value))
    ]
    total, size = sum(4 * value.numel() for value in tensors.values()), path.stat().st_size
    if not errors and total > MOST_COPIES * max(size, 1 << 20):
        errors = [f"its {len(tensors):,} tensors take {total:,} bytes, the file {size:,}"]
    if errors:
        title = f"{path}: damaged, or made to fill the memory; use another copy, or save contiguous tensors"
        raise CheckpointError(list_errors(title, errors))


def _room(value: Tensor) -> int:
    """The distinct places that a strided tensor's values can have."""
    if not value.numel():
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride()))


def check_values(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError for values that no network has: magnitudes of a flipped exponent, and holes of zeros.

    Values that are not finite are reported with a network's other errors.
    """
    errors = []
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.numel():
            continue
        largest = float(value.nan_to_num(0.0, 0.0, 0.0).abs().max())
        if largest > LARGEST_WEIGHT:
            errors.append(f"{name} has values of up to {largest:.3g}")
        elif hole := find_hole(value):
            errors.append(f"{name} has {hole:,} zeros in a row within its filters, and no others")
    if errors:
        raise CheckpointError(list_errors(f"{path}: damaged, use another copy", errors))


def find_hole(value: Tensor) -> int:
    """Length of the one run of zeros in a tensor that begins or ends within a filter; 0 where there is none such.

    Filters that are zero as a whole are pruned or dead ones, and zeros in many places were trained or padded so.
    """
    if value.ndim < 2 or bool(value.all()):
        return 0
    zeros = np.flatnonzero(value.reshape(-1).numpy() == 0)
    first, count, filter_size = int(zeros[0]), len(zeros), value[0].numel()
    is_one_run = int(zeros[-1]) - first + 1 == count
    ends_within = first % filter_size != 0 or (first + count) % filter_size != 0
    return count if is_one_run and HOLE <= count < value.numel() and ends_within else 0
