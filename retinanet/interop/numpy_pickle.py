"""The one reader of pickles: numbers, texts, plain containers and numpy arrays. Nothing that a file contains is run.

detectron2's model zoo stores weights as pickles. Python's own unpickler, in its pure form (whose memo is a dict and
whose opcodes are a table), is reduced to an allowlist of opcodes and an allowlist of globals.
"""

import io
import pickle
import pickletools
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from retinanet.errors import CheckpointError

PLAIN = """
    PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING
    BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT PUT BINPUT LONG_BINPUT MEMOIZE
    GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE
"""
"""Opcodes that Python's writer has for plain data and that need no check beyond the unpickler's own."""

NUMBER_CODE = re.compile(r"\?|b1|[iu][1248]|f[248]")
"""dtypes that torch can hold: bool, integers and floating point of at most 64 bits."""

KEY_LIMIT = 2**60
"""Larger integers can be chosen so that all have the same hash, which makes a dict of them quadratic in time."""

NDARRAY = "numpy.ndarray"
"""Stands for the class, which a pickle only names as the first argument of `_reconstruct`."""


class Refused(Exception):
    """Pickled content that is more than plain data; the message completes "this pickle asks for ..."."""


def _dtype(code: object, *_flags: object) -> np.dtype[Any]:
    if not isinstance(code, str) or not NUMBER_CODE.fullmatch(code):
        shown = repr(code[:40]) if isinstance(code, str) else f"that is a {type(code).__name__}"
        raise Refused(f"an array of dtype {shown}, not of plain numbers of at most 64 bits")
    return np.dtype(code, align=False, copy=True)  # a copy, because BUILD sets its byte order


def _reconstruct(kind: object, *_shape_and_code: object) -> np.ndarray:
    if kind is not NDARRAY:
        raise Refused("an array of an unknown class")
    return np.empty(0, np.uint8)  # BUILD fills it


def _refusing(opcode: str) -> Callable[["_Reader"], None]:
    def refuse(_reader: "_Reader") -> None:
        raise Refused(f"the opcode {opcode}")

    return refuse


class _Reader(pickle._Unpickler):
    """Builds the content of one file."""

    stack: list[Any]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        # Bytes of arrays and encoded texts, and entries of OrderedDicts, that may be made in all: a small file can name
        # the same content again and again. Protocol 2 encodes the text of an array and copies the result.
        self.left = 2 * len(data)
        scalar = np.float64(0).__reduce__()[0]
        self.globals: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): NDARRAY,
            ("numpy", "dtype"): _dtype,
            ("collections", "OrderedDict"): self.ordered_dict,
            ("_codecs", "encode"): self.latin1,
            ("__builtin__", "bytes"): lambda: b"",  # how protocol 2 writes it; bytes(N) would reserve N bytes
            ("builtins", "bytes"): lambda: b"",
        }
        for core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
            self.globals[f"{core}.multiarray", "_reconstruct"] = _reconstruct
            self.globals[f"{core}.multiarray", "scalar"] = scalar
            self.globals[f"{core}.numeric", "_frombuffer"] = self.from_buffer

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.globals:
            raise Refused(f"the global {module:.100}.{name:.100}")
        return self.globals[module, name]

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Refused("the same content again and again, to many times the size of the file")

    def latin1(self, text: object, encoding: object = "latin1") -> bytes:
        """How protocols below 3 write bytes."""
        if not isinstance(text, str) or encoding != "latin1":
            raise Refused("bytes in an unknown form")
        self.spend(len(text))
        return text.encode("latin1")

    def ordered_dict(self, pairs: Sequence[Any] = ()) -> dict[Any, Any]:
        """Python 2 gives an OrderedDict all its pairs at once, Python 3 none."""
        made: dict[Any, Any] = {}
        self.spend(len(pairs))
        for key, value in pairs:
            self.set_items(made, [key, value])
        return made

    def from_buffer(self, raw: object, dtype: object, shape: object, order: Any) -> np.ndarray:
        """How protocol 5 writes an array."""
        if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
            raise Refused("an array in an unknown form")
        self.spend(len(raw))
        return np.frombuffer(raw, dtype).reshape(shape, order=order)

    def load_build(self) -> None:
        """BUILD: the byte order of a dtype, or shape and content of an array."""
        state = self.stack.pop()
        match self.stack[-1], state:
            case np.dtype() as dtype, (_, "<" | ">" | "|" | "=" as order, *_):
                dtype.__setstate__((3, order, None, None, None, -1, -1, 0))  # type: ignore[attr-defined]
            case np.ndarray() as array, (_, shape, np.dtype() as dtype, is_fortran, bytes() | str() as raw):
                self.spend(len(raw))
                array.__setstate__((1, shape, dtype, bool(is_fortran), raw))  # type: ignore[arg-type]
            case _:
                raise Refused("an attribute of something other than an array of plain numbers")

    def set_items(self, target: object, items: list[Any]) -> None:
        """Keys and values in turn. Keys are texts and integers: nested tuples can take years to hash."""
        if type(target) is not dict:
            raise Refused("an entry of something other than a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < KEY_LIMIT):
                raise Refused("a dict with keys other than texts and integers")
            target[key] = value

    def load_setitem(self) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self.set_items(self.stack[-1], items)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.set_items(self.stack[-1], items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(self.stack[-1], items)

    def load_bytearray8(self) -> None:
        """Python's own reserves the memory before it knows that the file has as many bytes."""
        (count,) = struct.unpack("<Q", self.read(8))
        self.stack.append(bytearray(self.read(count)))

    dispatch: ClassVar[dict[int, Any]] = {
        **{
            ord(opcode.code): pickle._Unpickler.dispatch[ord(opcode.code)]
            if opcode.name in PLAIN.split()
            else _refusing(opcode.name)
            for opcode in pickletools.opcodes
        },
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def read_numpy_pickle(path: Path) -> object:
    """The content of a pickle: numbers, texts, bytes, lists, tuples, dicts and numpy arrays of numbers.

    Raises CheckpointError, naming the first thing that is refused, for a file that is more than plain data or would
    take time or memory out of proportion to its size, and for one that is not a whole pickle. Nothing of it is run.
    """
    try:
        return _Reader(path.read_bytes()).load()
    except Refused as refused:
        raise CheckpointError(
            f"{path}: this pickle asks for {refused}. Only numbers, texts, lists, dicts and numpy arrays are read, "
            "because a pickle can be made to run code or to fill the memory. Nothing of it was run."
        ) from refused
    except Exception as error:  # a damaged pickle raises almost any kind
        # Only a text is shown: other arguments can be nested without end.
        reason = error.args[0] if error.args and isinstance(error.args[0], str) else ""
        raise CheckpointError(
            f"{path}: not a whole pickle of plain data ({type(error).__name__}: {reason:.200})."
        ) from error
