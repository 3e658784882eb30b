"""The restricted reader gives back what a model zoo's pickle holds, and runs nothing whatever a file asks for."""

import collections
import functools
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinanet.errors import CheckpointFault
from retinanet.interop.numpy_pickle import STAND_INS, Array, read_numpy_pickle
from retinanet.interop.weights_file import read_weights

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7,
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "scalar": np.array(3.5, dtype=np.float16),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "count": np.array([1, 2, 3], dtype=np.int64),
    "mask": np.array([True, False]),
    "big_endian": np.arange(3, dtype=">f4"),
    "strided": np.arange(10, dtype=np.float32)[::3],
}
"""What the zoo's arrays may look like."""


def stored(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_zoos_pickle_comes_back_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    zoo = {"model": dict(ARRAYS), "__author__": "Detectron2 Model Zoo", "lr": np.float64(0.25), "n": np.int64(7)}
    content = read_numpy_pickle(stored(tmp_path / "a.pkl", zoo, protocol))
    assert isinstance(content, dict)
    assert (content["__author__"], content["lr"], content["n"]) == ("Detectron2 Model Zoo", 0.25, 7)
    assert content["model"].keys() == ARRAYS.keys()
    for name, wanted in ARRAYS.items():
        array = content["model"][name]
        assert isinstance(array, Array)
        assert array.value is not None
        assert array.value.dtype == wanted.dtype.newbyteorder("=")
        np.testing.assert_array_equal(array.value, wanted)


@pytest.mark.parametrize("protocol", [2, 5])
def test_its_state_dict_is_one_of_tensors(tmp_path: Path, protocol: int) -> None:
    model = collections.OrderedDict(ARRAYS)
    file = read_weights(stored(tmp_path / "a.pkl", {"model": model, "__author__": "x"}, protocol))
    assert list(file.tensors) == list(ARRAYS)
    for name, value in file.tensors.items():
        np.testing.assert_allclose(value.numpy(), ARRAYS[name].astype(value.numpy().dtype))
        assert value.dtype in (torch.float32, torch.int64, torch.bool)


def test_arrays_of_python_2_and_of_numpy_1_are_read(tmp_path: Path) -> None:
    """numpy 1 called its module numpy.core; Python 2 stored bytes as text."""
    content = pickle.dumps(ARRAYS["conv.weight"], protocol=2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "a.pkl").write_bytes(content)
    array = read_numpy_pickle(tmp_path / "a.pkl")
    assert isinstance(array, Array)
    np.testing.assert_array_equal(array.value, ARRAYS["conv.weight"])

    raw = struct.pack("<2f", 1.5, -2.0)
    python2 = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tb."
    )
    (tmp_path / "b.pkl").write_bytes(python2)
    array = read_numpy_pickle(tmp_path / "b.pkl")
    assert isinstance(array, Array)
    np.testing.assert_array_equal(array.value, np.array([1.5, -2.0], dtype=np.float32))


class Reduced:
    """Unpickling this calls `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def hostile(created: Path) -> dict[str, tuple[object, str]]:
    """Contents that would make the file `created` or run code otherwise, and the global each is refused for."""
    touch = f"touch {created}"
    return {
        "os.system": (Reduced(os.system, touch), r"posix\.system|nt\.system|os\.system"),
        "eval": (Reduced(eval, f"open({str(created)!r}, 'w')"), r"builtins?(__)?\.eval"),
        "exec": (Reduced(exec, f"open({str(created)!r}, 'w')"), r"builtins?(__)?\.exec"),
        "numpy.load": (Reduced(np.load, str(created)), r"numpy\.load"),
        "getattr": (Reduced(getattr, "text", "join"), r"builtins?(__)?\.getattr"),
        "partial": (functools.partial(os.system, touch), r"functools\.partial"),
        "subprocess": (Reduced(subprocess.call, touch), r"subprocess\.call|commands\.call"),
        "pathlib": (Reduced(Path.touch, created), r"pathlib\.|getattr"),
        "object array": (np.array([Reduced(os.system, touch)], dtype=object), "dtype 'O8'|system"),
        "structured array": (np.zeros(2, dtype=[("a", "f4")]), "dtype"),
        "text array": (np.array(["a"]), "dtype"),
        "tensor": (torch.zeros(2), r"torch\._utils\._rebuild_tensor_v2|torch\.storage|torch\."),
        "class": (Reduced, "Reduced"),
        "set": ({1, 2}, r"builtins?(__)?\.set"),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_a_pickle_that_asks_for_more_is_refused_by_name_and_never_run(tmp_path: Path, kind: str, protocol: int) -> None:
    if kind == "set" and protocol >= 4:
        pytest.skip("from protocol 4 a set is plain data of the pickle machine itself")
    created = tmp_path / "created"
    content, named = hostile(created)[kind]
    path = stored(tmp_path / "a.pkl", {"model": {"w": ARRAYS["conv.weight"], "x": content}}, protocol)
    with pytest.raises(CheckpointFault, match=named) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert not created.exists()


def opcodes(created: Path) -> dict[str, bytes]:
    """Hand-written pickles, for what no honest program writes."""
    command = f"touch {created}".encode()
    return {
        "nested global": b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.load\x93.",
        "attribute of a stand-in": b"\x80\x04\x8c\x05numpy\x8c\x15ndarray.__init__.__g__\x93.",
        "inst": b"(S'" + command + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + command + b"'\no.",
        "reduce of a class": b"cnumpy\nndarray\nK\x02\x85R.",
        "bare new": b"\x80\x02cnumpy\ndtype\n)\x81.",
        "writing into a function": b"c_codecs\nencode\n}S'__defaults__'\nK\x01sb.",
        "writing slots into a function": b"c_codecs\nencode\n(N}S'__defaults__'\nK\x01stb.",
        "writing into a class": b"cnumpy\nndarray\n}S'value'\nK\x01sb.",
        "persistent id": b"Pfile\n.",
        "extension": b"\x80\x02\x82\x01.",
        "short array": (
            b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
            b"(K\x01K\x09\x85cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R\x89C\x04abcdtb."
        ),
        "cut short": pickle.dumps({"model": ARRAYS})[:100],
        "empty": b"",
        "text": b"hello",
    }


@pytest.mark.parametrize("kind", list(opcodes(Path("x"))))
def test_pickles_that_no_program_writes_are_refused_and_change_nothing(tmp_path: Path, kind: str) -> None:
    created, path = tmp_path / "created", tmp_path / "a.pkl"
    path.write_bytes(opcodes(created)[kind])
    with pytest.raises(CheckpointFault, match=r"a\.pkl"):
        read_weights(path)
    assert not created.exists()
    assert Array.value is None
    assert all(not hasattr(stand_in, "__defaults__") for stand_in in STAND_INS.values())
    honest = read_weights(stored(tmp_path / "b.pkl", {"model": {"w": ARRAYS["conv.weight"]}}))
    np.testing.assert_array_equal(honest.tensors["w"].numpy(), ARRAYS["conv.weight"])


def test_the_hostile_pickles_of_these_tests_would_run_elsewhere(tmp_path: Path) -> None:
    created = tmp_path / "created"
    path = stored(tmp_path / "a.pkl", hostile(created)["os.system"][0])
    code = f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert created.exists()
