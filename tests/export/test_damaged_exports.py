"""ONNX files with a flipped bit, and ones that ask for files outside of their folder, are refused."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from retinanet.errors import CheckpointError
from retinanet.export.runtime import open_session
from retinanet.export.seal import add_empty_seal, check_seal, seal


def small_model(weight: TensorProto) -> onnx.ModelProto:
    """images (4,) and sizes (4,) -> their sum and the weight's."""
    names = ("images", "sizes", "scores")
    images, sizes, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in names)
    nodes = [helper.make_node("Sum", ["images", "sizes", "w"], ["scores"])]
    graph = helper.make_graph(nodes, "small", [images, sizes], [scores], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    model = small_model(numpy_helper.from_array(np.arange(4, dtype=np.float32), "w"))
    add_empty_seal(model)
    onnx.save(model, tmp_path / "a.onnx")
    seal(tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def test_a_sealed_file_runs_and_every_flipped_bit_is_noticed(sealed: Path) -> None:
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


def test_a_file_without_a_seal_passes(tmp_path: Path) -> None:
    onnx.save(small_model(numpy_helper.from_array(np.zeros(4, dtype=np.float32), "w")), tmp_path / "a.onnx")
    check_seal(tmp_path / "a.onnx")
    open_session(tmp_path / "a.onnx", 1)


@pytest.mark.parametrize("location", ["../secret.bin", "{outside}", "link.bin"])
def test_weights_outside_of_the_files_folder_are_refused(location: str, tmp_path: Path) -> None:
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
