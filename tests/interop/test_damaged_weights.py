"""Damaged foreign weights: a checksum notices every bit; without one, what shows by the content alone is noticed."""

import hashlib
import io
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retinanet.errors import CheckpointError
from retinanet.interop.damage import find_hole
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


UNCHECKED: dict[str, Callable[[Path], Any]] = {
    "legacy.pth": WRITERS["legacy.pth"],
    "a.safetensors": WRITERS["a.safetensors"],
    "a.pkl": lambda path: path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in STATE.items()}})),
}
"""Formats without a checksum."""


def harmed(path: Path) -> list[str]:
    """What a file gives that is not in STATE, if it is read at all; another set of names is refused later."""
    try:
        found = read_weights(path).tensors
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017
        return []
    if found.keys() != STATE.keys():
        return []
    return [
        name for name in STATE if found[name].shape == STATE[name].shape and not torch.equal(found[name], STATE[name])
    ]


def places_of_weights(data: bytes) -> set[int]:
    starts = {name: data.find(value.numpy().tobytes()) for name, value in STATE.items()}
    assert min(starts.values()) >= 0
    return {place for name, start in starts.items() for place in range(start, start + STATE[name].nbytes)}


@pytest.mark.parametrize("name", UNCHECKED)
def test_every_cut_and_every_flipped_bit_outside_of_the_weights_is_noticed(name: str, tmp_path: Path) -> None:
    """Or changes a name or a shape, which is refused where the weights meet their network."""
    path = tmp_path / name
    UNCHECKED[name](path)
    assert not harmed(path)
    data, rng = path.read_bytes(), random.Random(0)
    weights = places_of_weights(data)
    for _ in range(100):
        at = rng.choice([place for place in range(len(data)) if place not in weights])
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        assert not harmed(path), at
        path.write_bytes(data[: rng.randrange(len(data) - 1)])
        with pytest.raises(CheckpointError):
            read_weights(path)


def test_the_highest_bit_of_an_exponent_shows(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pth"
    UNCHECKED["legacy.pth"](path)
    data = path.read_bytes()
    for place in random.Random(0).sample(range(0, 4 * 256, 4), 20):
        at = data.find(STATE["layer.2.weight"].numpy().tobytes()) + place + 3
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        with pytest.raises(CheckpointError, match=r"damaged.*\n.*layer\.2\.weight has values of up to"):
            read_weights(path)


@pytest.mark.parametrize("name", UNCHECKED)
def test_a_hole_of_zeros_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATE, "layer.1.weight", torch.rand(8, 4, 3, 3) + 1)
    path = tmp_path / name
    UNCHECKED[name](path)
    data, rng = path.read_bytes(), random.Random(0)
    start = data.find(STATE["layer.1.weight"].numpy().tobytes())
    for _ in range(20):
        at = start + 4 * rng.choice([place for place in range(288 - 128) if place % 36])
        path.write_bytes(data[:at] + bytes(512) + data[at + 512 :])
        with pytest.raises(CheckpointError, match=r"layer\.1\.weight has 128 zeros in a row"):
            read_weights(path)


def test_zeros_that_networks_have_are_no_hole() -> None:
    value = torch.rand(8, 16, 3, 3) + 1
    assert find_hole(value) == 0
    value[3] = 0  # a dead filter
    assert find_hole(value) == 0
    value[:, 8:] = 0  # input channels that are pruned or padded
    assert find_hole(value) == 0
    assert find_hole(torch.zeros(8, 16)) == 0
    assert find_hole(torch.rand(64, 64).where(torch.rand(64, 64) > 0.9, 0.0)) == 0
    assert find_hole(torch.zeros(512)) == 0


def test_tensors_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    for name, state in {
        "expanded": {"w": torch.zeros(1).expand(10**7, 10**6)},
        "shared": {f"w.{i}": torch.zeros(1 << 19, dtype=torch.float16)[:-1] for i in range(1)}
        | dict.fromkeys(map(str, range(500)), torch.zeros(1 << 19, dtype=torch.float16)),
    }.items():
        torch.save(state, tmp_path / f"{name}.pth")
        with pytest.raises(CheckpointError, match=r"damaged, or made to fill the memory"):
            read_weights(tmp_path / f"{name}.pth")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    plain = io.BytesIO()
    torch.save({"w": torch.zeros(1 << 20)}, plain)
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for record in archive.infolist():
            packed.writestr(record.filename, archive.read(record))
    assert path.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match=r"a\.pth: damaged, or not written by torch: .* is compressed"):
        read_weights(path)


def test_overlapping_records_are_refused(tmp_path: Path) -> None:
    """Fifield's bombs name one record many times in the directory at the end."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(1 << 12)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        archive.filelist += [largest] * 50
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"made to fill the memory: [\d,]+ bytes hold records of [\d,]+ bytes"):
        read_weights(path)
