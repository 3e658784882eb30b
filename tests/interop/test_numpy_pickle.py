"""The restricted reader returns what a model zoo's pickle holds, and runs nothing, whatever a file asks for."""

import collections
import functools
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinanet.errors import CheckpointError
from retinanet.interop.numpy_pickle import read_numpy_pickle
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
        assert isinstance(array, np.ndarray)
        assert array.dtype.newbyteorder("=") == wanted.dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, wanted)


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
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, ARRAYS["conv.weight"])

    raw = struct.pack("<2f", 1.5, -2.0)
    python2 = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tb."
    )
    (tmp_path / "b.pkl").write_bytes(python2)
    array = read_numpy_pickle(tmp_path / "b.pkl")
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, np.array([1.5, -2.0], dtype=np.float32))


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
        "set": ({1, 2}, r"builtins?(__)?\.set|the opcode EMPTY_SET"),
        "frozen set": (frozenset({1, 2}), r"builtins?(__)?\.frozenset|the opcode FROZENSET"),
        "long double": (np.zeros(2, dtype=np.longdouble), "dtype 'f16'"),
        "complex": (np.zeros(2, dtype=np.complex64), "dtype 'c8'"),
        "tuple as a key": ({(1, 2): 3}, "a dict with keys other than texts and integers"),
        "huge integer as a key": ({2**61 - 1: 3}, "a dict with keys other than texts and integers"),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_a_pickle_that_asks_for_more_is_refused_by_name_and_never_run(tmp_path: Path, kind: str, protocol: int) -> None:
    created = tmp_path / "created"
    content, named = hostile(created)[kind]
    path = stored(tmp_path / "a.pkl", {"model": {"w": ARRAYS["conv.weight"], "x": content}}, protocol)
    with pytest.raises(CheckpointError, match=named) as caught:
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
        "entry of an array": (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87RK\x00K\x01s."
        ),
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
    with pytest.raises(CheckpointError, match=r"a\.pkl"):
        read_weights(path)
    assert not created.exists()
    honest = read_weights(stored(tmp_path / "b.pkl", {"model": {"w": ARRAYS["conv.weight"]}}))
    np.testing.assert_array_equal(honest.tensors["w"].numpy(), ARRAYS["conv.weight"])


def test_the_hostile_pickles_of_these_tests_would_run_elsewhere(tmp_path: Path) -> None:
    created = tmp_path / "created"
    path = stored(tmp_path / "a.pkl", hostile(created)["os.system"][0])
    code = f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert created.exists()


def doubled(levels: int) -> bytes:
    """A tuple that holds one tuple twice, and so on."""
    return b")" + b"2\x86" * levels


def doubled_by_memo(levels: int) -> bytes:
    """The same without the opcode that doubles."""
    return b")q\x00" + b"h\x00\x86q\x00" * levels


DTYPE = b"\x80\x02cnumpy\ndtype\n"
OF_BYTES = DTYPE + b"X\x02\x00\x00\x00u1\x85Rq\x010"
"""A dtype in place 1 of the memo, of numbers of one byte."""

ARRAY = b"cnumpy.core.numeric\n_frombuffer\n"
MEBI = 2**20

OUT_OF_PROPORTION = {
    "nested dtype": DTYPE + doubled(60) + b"\x85R.",
    "nested dtype by memo": DTYPE + doubled_by_memo(60) + b"\x85R.",
    "nested key": b"}" + doubled(60) + b"I1\ns.",
    "nested key by memo": b"}" + doubled_by_memo(60) + b"I1\ns.",
    "nested key of several": b"}(" + doubled_by_memo(60) + b"I1\nu.",
    "nested key of a whole dict": b"(" + doubled_by_memo(60) + b"I1\nd.",
    "nested key kept and fetched": b"\x80\x04}" + doubled_by_memo(60) + b"\x940h\x01K\x01s.",
    "nested key of an ordered dict": b"ccollections\nOrderedDict\n(" + doubled_by_memo(60) + b"K\x01tq\x01\x85\x85R.",
    "nested set": b"\x80\x04\x8f(" + doubled_by_memo(60) + b"\x90.",
    "nested frozen set": b"\x80\x04(" + doubled_by_memo(60) + b"\x91.",
    "keys of one hash": b"}(" + b"".join(pickle.dumps(n * (2**61 - 1))[2:-1] + b"N" for n in range(2**16)) + b"u.",
    "shape of large integers": OF_BYTES
    + (ARRAY + b"(C\x00h\x01(\x8b\x00\x00\x10\x00" + b"\x01" * MEBI + b"q\x02")
    + (b"h\x02" * 10_000 + b"tX\x01\x00\x00\x00CtR."),
    "same bytes in many arrays": OF_BYTES
    + (b"B\x00\x00\x10\x00" + bytes(MEBI) + b"q\x020(")
    + (ARRAY + b"(h\x02h\x01J\x00\x00\x10\x00\x85X\x01\x00\x00\x00CtR") * 2000
    + b"l.",
    "same text in many bytes": b"X\x00\x00\x10\x00"
    + bytes(MEBI)
    + (b"q\x000(" + b"c_codecs\nencode\nh\x00\x85R" * 2000 + b"l."),
    "same pairs in many dicts": b"(" + b"".join(b"X\x05\x00\x00\x00%05dN\x86" % n for n in range(10**4)) + b"lq\x000("
    b"" + b"ccollections\nOrderedDict\nh\x00\x85R" * 6000 + b"l.",
}
"""Small files that ask for gigabytes or for years; a reader that only restricts globals would obey."""

CHEAP = {
    "large memo": (b"\x80\x02}r\x00\x00\x00\x08.", "{}"),
    "large memo, protocol 0": (b"}p134217728\n.", "{}"),
    "more bytes than the file has": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"abc.", "not a whole pickle"),
}
"""Small files for which Python's own unpickler reserves gigabytes and this one does not."""

READ_WITH_LITTLE = """
import resource, sys
from pathlib import Path
from retinanet.errors import CheckpointError
from retinanet.interop.numpy_pickle import read_numpy_pickle
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
resource.setrlimit(resource.RLIMIT_CPU, (8, 8))
try:
    print(read_numpy_pickle(Path(sys.argv[1])))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
@pytest.mark.parametrize("kind", [*OUT_OF_PROPORTION, *CHEAP])
def test_a_small_file_takes_little_memory_and_time(tmp_path: Path, kind: str) -> None:
    refused = "this pickle asks for|maximum supported dimension"
    content, printed = CHEAP[kind] if kind in CHEAP else (OUT_OF_PROPORTION[kind], refused)
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    command = [sys.executable, "-c", READ_WITH_LITTLE, str(path)]
    done = subprocess.run(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(printed, done.stdout)
    assert len(done.stdout) < 1000


def test_one_array_under_many_names_is_converted_once(tmp_path: Path) -> None:
    half = np.arange(6, dtype=np.float16)
    tensors = read_weights(stored(tmp_path / "a.pkl", {"model": {"a": half, "b": half, "c": half.copy()}})).tensors
    assert all(value.tolist() == half.tolist() for value in tensors.values())
    assert tensors["a"].data_ptr() == tensors["b"].data_ptr() != tensors["c"].data_ptr()


def test_an_error_of_python_itself_is_reported_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"c_codecs\nencode\n(" + b"K\x01" * 1000 + b"tR.")
    with pytest.raises(CheckpointError, match="not a whole pickle of plain data") as caught:
        read_numpy_pickle(tmp_path / "a.pkl")
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


@pytest.mark.parametrize("code", ["?", "b1", *(kind + size for kind in "iu" for size in "1248"), "f2", "f4", "f8"])
def test_every_dtype_that_is_read_becomes_a_tensor(tmp_path: Path, code: str) -> None:
    wanted = np.array([[0, 1], [1, 0]], dtype=code)
    value = read_weights(stored(tmp_path / "a.pkl", {"model": {"w": wanted}})).tensors["w"]
    assert value.tolist() == wanted.tolist()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordinary_content_is_read(tmp_path: Path, protocol: int) -> None:
    """Every opcode that Python's own writer has for plain data, with far more of them than a memo index of a byte."""
    names = [f"layer{n}.weight" for n in range(1000)]
    content = {
        "names": names,
        "again": names,
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), tuple(names)),
        "numbers": [0, 1, -1, 300, 70_000, 2**40, -(2**40), 2**5000, 0.5, True, False, None],
        "bytes": [b"", b"a", bytes(range(256)) * 3],
        "by number": dict(enumerate(names)) | {-5: "a", 2**50: "b"},
        "ordered": collections.OrderedDict((name, [n]) for n, name in enumerate(names)),
        "long": "text\n" * 100_000,
        "one": {"a": 1},
        "empty": [{}, [], ""],
    }
    if protocol == 0:
        content["numbers"].remove(2**5000)  # which is written in more decimals than Python reads
    assert read_numpy_pickle(stored(tmp_path / "a.pkl", content, protocol)) == content


def test_an_ordered_dict_of_python_2_is_read(tmp_path: Path) -> None:
    pairs = b"ccollections\nOrderedDict\np1\n((lp2\n(lp3\nS'w\xe9\\x01'\naI1\naatp4\nRp5\n."
    (tmp_path / "a.pkl").write_bytes(pairs)
    assert read_numpy_pickle(tmp_path / "a.pkl") == {"w\xe9\x01": 1}
