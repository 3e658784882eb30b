"""The one reader of pickles: numbers, texts, plain containers and numpy arrays, and nothing that could run.

detectron2's model zoo stores weights so. Every global that a pickle names is answered by a stand-in of this file or
refused; no function and no class of another module is ever called.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.errors import CheckpointFault

NUMBER_CODE = re.compile(r"\?|[biuf]\d{1,2}")
"""dtypes of plain numbers: bool, integers and floating point."""


class Refused(Exception):
    """A pickle that asks for more than plain data."""


class DType:
    """Stands for numpy.dtype: of plain numbers only."""

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or not NUMBER_CODE.fullmatch(code):
            raise Refused(f"an array of dtype {code!r}, not of plain numbers")
        self.code, self.big_endian = code, False

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("a dtype that is not of plain numbers")
        self.big_endian = state[1] == ">"

    def array(self, raw: object) -> np.ndarray:
        """The numbers of `raw` bytes, (N,), in this machine's byte order, a copy."""
        data = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 stored bytes as text
        if not isinstance(data, bytes | bytearray):
            raise Refused("an array whose content is no bytes")
        stored = np.frombuffer(data, np.dtype(self.code).newbyteorder(">" if self.big_endian else "<"))
        return stored.astype(stored.dtype.newbyteorder("="))


class Array:
    """Stands for numpy.ndarray; `value` is None until its bytes are known."""

    value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array in an unknown form")
        self.value = _shaped(state[4], state[2], state[1], "F" if state[3] else "C")


def _shaped(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    if not isinstance(dtype, DType) or order not in ("C", "F"):
        raise Refused("an array in an unknown form")
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise Refused("an array whose shape is no tuple of integers")
    flat = dtype.array(raw)
    if flat.size != math.prod(shape):
        raise Refused(f"an array of shape {shape} with {flat.size} numbers")
    return np.ascontiguousarray(flat.reshape(shape, order="F" if order == "F" else "C"))


def _empty(kind: object, *_shape_and_code: object) -> Array:
    if kind is not Array:
        raise Refused("an array of an unknown kind")
    return Array()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> Array:
    array = Array()
    array.value = _shaped(raw, dtype, shape, order)
    return array


def _scalar(dtype: object, raw: object) -> Any:
    if not isinstance(dtype, DType):
        raise Refused("a number in an unknown form")
    return _shaped(raw, dtype, (1,), "C")[0].item()


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """How protocols below 3 spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("bytes in an unknown form")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 spells no bytes at all."""
    return b""


class Call(NamedTuple):
    """A function that a pickle may call and, unlike a bare function, cannot write attributes into."""

    function: Callable[..., Any]

    def __call__(self, *arguments: object) -> Any:
        return self.function(*arguments)


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DType,
    ("numpy.core.multiarray", "_reconstruct"): Call(_empty),
    ("numpy._core.multiarray", "_reconstruct"): Call(_empty),
    ("numpy.core.multiarray", "scalar"): Call(_scalar),
    ("numpy._core.multiarray", "scalar"): Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): Call(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): Call(_from_buffer),
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): Call(_latin1),
    ("__builtin__", "bytes"): Call(_no_bytes),
    ("builtins", "bytes"): Call(_no_bytes),
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise Refused(f"the global {module}.{name}")
        return STAND_INS[module, name]

    def persistent_load(self, _identity: object) -> Any:
        raise Refused("a reference to data outside the file")


def read_numpy_pickle(path: Path) -> object:
    """The content of a pickle; an array is an `Array` whose `value` holds it.

    CheckpointFault, naming the first global that is refused, for one that is more than plain data, and for a file
    that is no whole pickle. Nothing of the file is run.
    """
    try:
        return _Reader(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Refused as refused:
        raise CheckpointFault(
            f"{path}: this pickle asks for {refused}. Only numbers, texts, lists, dicts and numpy arrays are read; "
            "the file may be meant to run code. Nothing of it was run."
        ) from refused
    except Exception as error:  # a damaged pickle raises almost any kind
        raise CheckpointFault(f"{path}: not a whole pickle of plain data ({error!r:.200}).") from error
