"""A checksum within an ONNX file, which by itself shows no damage: a flipped bit in a weight goes unnoticed."""

import hashlib
import re
from pathlib import Path
from typing import Any

from retinanet.errors import CheckpointError

SEAL = "retinanet_sha256"
"""Key of the checksum in the file's metadata."""
_EMPTY = "0" * 64
_VALUE = re.compile(rb"(?<=retinanet_sha256\x12\x40).{64}", re.DOTALL)
"""The digits behind the key and protobuf's tag and length of a text of 64 bytes."""


def add_empty_seal(model: Any) -> None:
    """Give an onnx.ModelProto, before it is saved, the place of a checksum."""
    entry = model.metadata_props.add()
    entry.key, entry.value = SEAL, _EMPTY


def seal(path: Path) -> None:
    """Write the SHA-256 of a file with an empty seal into it."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest().encode()
    path.write_bytes(_VALUE.sub(digest, data, count=1))


def check_seal(path: Path) -> None:
    """Raise CheckpointError for a sealed file whose content has changed; others pass."""
    data = path.read_bytes()
    found = _VALUE.search(data)
    if found is None:
        return
    whole = b"".join((data[: found.start()], _EMPTY.encode(), data[found.end() :]))
    if hashlib.sha256(whole).hexdigest().encode() != found[0]:
        raise CheckpointError(
            f"{path}: damaged: its content does not match its checksum. Use another copy, or export it again."
        )
