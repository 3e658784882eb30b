"""Foreign weights with flipped bits: a checksum in the archive or in the file's name notices every one of them."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retinanet.errors import CheckpointError
from retinanet.interop.weights_file import read_weights

STATE = {f"layer.{i}.weight": torch.rand(16, 16) for i in range(4)}
WRITERS: dict[str, Callable[[Path], Any]] = {
    "zip.pth": lambda path: torch.save(STATE, path),
    "legacy.pth": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "a.safetensors": lambda path: save_file(STATE, path),
}


def flipped(data: bytes, count: int) -> list[bytes]:
    """`count` copies, each with one bit flipped at random."""
    rng, found = random.Random(0), []
    for _ in range(count):
        copy = bytearray(data)
        copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
        found.append(bytes(copy))
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_a_hash_in_the_name_notices_every_bit(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    path = tmp_path / f"model-{hashlib.sha256(data).hexdigest()[:16]}{Path(name).suffix}"
    path.write_bytes(data)
    assert read_weights(path).tensors.keys() == STATE.keys()
    for copy in flipped(data, 20):
        path.write_bytes(copy)
        with pytest.raises(CheckpointError, match=r"damaged: its SHA-256 begins with .* not with .* as its name says"):
            read_weights(path)


def test_an_archive_notices_every_bit_that_changes_a_weight(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path)
    refused, copies = 0, flipped(path.read_bytes(), 60)
    for copy in copies:
        path.write_bytes(copy)
        try:
            found = read_weights(path).tensors
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert refused > 50


@pytest.mark.parametrize("name", ["legacy.pth", "a.safetensors"])
def test_values_that_no_network_has_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATE, "layer.1.weight", torch.full((2, 2), 1e20))
    WRITERS[name](tmp_path / name)
    with pytest.raises(CheckpointError, match=r"damaged.*\n.*layer\.1\.weight has values of up to 1e\+20"):
        read_weights(tmp_path / name)


def test_a_date_in_a_name_is_no_hash(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "model-20261128.pth")
    assert read_weights(tmp_path / "model-20261128.pth").tensors.keys() == STATE.keys()
