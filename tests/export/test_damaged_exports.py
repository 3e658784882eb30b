"""Damaged ONNX and .pt2 files, and ONNX files that ask for files outside of their folder, are refused."""

import logging
import random
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from retinanet.errors import CheckpointError
from retinanet.export.runtime import open_program, open_session
from retinanet.export.seal import add_empty_seal, check_seal, seal

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

pytestmark = pytest.mark.slow
needs_onnx = pytest.mark.skipif(find_spec("onnx") is None, reason="exporting needs `pip install -e .[export]`")
"""Its tests import onnx themselves, which takes three seconds: every process imports this file."""


def small_model(weight: "TensorProto") -> "ModelProto":
    """images (4,) and sizes (4,) -> their sum and the weight's."""
    from onnx import TensorProto, helper

    names = ("images", "sizes", "scores")
    images, sizes, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in names)
    nodes = [helper.make_node("Sum", ["images", "sizes", "w"], ["scores"])]
    graph = helper.make_graph(nodes, "small", [images, sizes], [scores], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    import onnx
    from onnx import numpy_helper

    model = small_model(numpy_helper.from_array(np.arange(4, dtype=np.float32), "w"))
    add_empty_seal(model)
    onnx.save(model, tmp_path / "a.onnx")
    seal(tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


@needs_onnx
def test_a_sealed_file_runs_and_every_flipped_bit_is_noticed(sealed: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(sealed), full_check=True)
    open_session(sealed, 1)
    data, rng = sealed.read_bytes(), random.Random(0)
    key = data.index(b"retinanet_sha256")
    for _ in range(200):
        copy, at = bytearray(data), rng.randrange(len(data))
        copy[at] ^= 1 << rng.randrange(8)
        sealed.write_bytes(copy)
        if not key <= at < key + len(b"retinanet_sha256") + 2:  # without its key a file is one without a seal
            with pytest.raises(CheckpointError, match=r"damaged: its content does not match its checksum"):
                open_session(sealed, 1)


@needs_onnx
def test_a_file_without_a_seal_passes(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    onnx.save(small_model(numpy_helper.from_array(np.zeros(4, dtype=np.float32), "w")), tmp_path / "a.onnx")
    check_seal(tmp_path / "a.onnx")
    open_session(tmp_path / "a.onnx", 1)


@needs_onnx
@pytest.mark.parametrize("location", ["../secret.bin", "{outside}", "link.bin"])
def test_weights_outside_of_the_files_folder_are_refused(location: str, tmp_path: Path) -> None:
    from onnx import TensorProto

    outside, folder = tmp_path / "secret.bin", tmp_path / "model"
    outside.write_bytes(b"\0" * 16)
    folder.mkdir()
    (folder / "link.bin").symlink_to(outside)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location.format(outside=outside)
    (folder / "a.onnx").write_bytes(small_model(weight).SerializeToString())
    with pytest.raises(CheckpointError, match=r"a\.onnx: not an ONNX file that onnxruntime can run"):
        open_session(folder / "a.onnx", 1)


@needs_onnx
def test_damaged_onnx_files_of_others_are_refused_or_named(tmp_path: Path) -> None:
    """Without a seal, and so small that many flipped bits are in the graph."""
    import onnx
    from onnx import numpy_helper

    path, rng, refused = tmp_path / "a.onnx", random.Random(0), 0
    onnx.save(small_model(numpy_helper.from_array(np.ones(4, dtype=np.float32), "w")), path)
    data = path.read_bytes()
    for number in range(200):
        at = rng.randrange(len(data))
        path.write_bytes(
            data[:at] if number % 4 == 0 else data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :]
        )
        try:
            open_session(path, 1)
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


@needs_onnx
def test_more_external_weights_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    from onnx import TensorProto

    (tmp_path / "w.bin").write_bytes(bytes(16))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(1 << 42))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    (tmp_path / "a.onnx").write_bytes(small_model(weight).SerializeToString())
    with pytest.raises(CheckpointError, match=r"a\.onnx: not an ONNX file that onnxruntime can run"):
        open_session(tmp_path / "a.onnx", 1)


class Scaled(torch.nn.Module):
    """A program small enough to export in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(64))

    def forward(self, images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images * self.scale, sizes


def test_a_damaged_pt2_file_is_refused_or_unharmed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, rng, refused = tmp_path / "a.pt2", random.Random(0), 0
    given = (torch.rand(2, 64), torch.ones(2))
    torch.export.save(torch.export.export(Scaled(), given), path, extra_files={"retinanet": "text"})
    expected = [output.clone() for output in open_program(path)[0](*given)]
    data = path.read_bytes()
    for number in range(60):
        at = rng.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ 1 << number % 8]) + data[at + 1 :]
        path.write_bytes((data[:at], data[:at] + bytes(512) + data[at + 512 :], flipped)[number % 3])
        try:
            run, text = open_program(path)
            assert text == "text"
            assert all(torch.equal(one, two) for one, two in zip(run(*given), expected, strict=True))
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 40
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "no traceback of torch"


def test_a_compressed_pt2_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/weights/weight_0", bytes(1 << 22))
    with pytest.raises(CheckpointError, match=r"a\.pt2: not a \.pt2 file, or damaged, .* is compressed"):
        open_program(tmp_path / "a.pt2")
