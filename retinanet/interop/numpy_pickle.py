"""The one reader of pickles: numbers, texts, plain containers and numpy arrays, and nothing that could run.

detectron2's model zoo stores weights so. Every global that a pickle names is answered by a stand-in of this file or
refused; no function and no class of another module is ever called.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.errors import CheckpointError

OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


TEXTS = frozenset({"str", "bytes_or_str"})


INTEGERS = frozenset({"int", "int_or_bool"})
"""What `pickletools` calls the values that may be a dict's keys."""


KEY_LIMIT = 2**60
"""Beyond it integers can be chosen that all have the same hash."""


PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


NEVER_WRITTEN = {"DUP": "one value twice", "EMPTY_SET": "a set", "ADDITEMS": "a set", "FROZENSET": "a set"}


class Refused(Exception):
    """Pickled content that asks for more than plain data; the message is what it asks for."""


class _Machine:
    """The stack and the memo of the machine that builds the content; of each value, whether it may be a key."""

    def __init__(self) -> None:
        self.stack: list[bool] = []
        self.marks: list[int] = []
        self.memo: dict[int, bool] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: object, done: int) -> None:
        """One opcode, `done` others having gone before."""
        name = opcode.name
        if name in NEVER_WRITTEN:
            raise Refused(NEVER_WRITTEN[name])
        if name in PUTS or name in GETS:
            assert isinstance(argument, int)
            if name in PUTS and argument > done:
                raise Refused(f"place {argument} of a memo that holds {len(self.memo)}")
            if name in PUTS:
                self.memo[argument] = self.stack[-1]
            else:
                self.stack.append(self.memo[argument])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._apply(opcode, argument)

    def _apply(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        takes = [kind.name for kind in opcode.stack_before]
        if "mark" in takes:
            since = self.marks.pop()
            taken = self.stack[since:]
            del self.stack[since:]
            below = takes.index("mark")
        else:
            below = len(takes)
            taken = self.stack[-2:]
        if opcode.name in ("DICT", "SETITEM", "SETITEMS") and not all(taken[::2]):
            raise Refused("a dict with keys other than texts and integers")
        if below:
            del self.stack[-below:]
        for kind in opcode.stack_after:
            small = kind.name in INTEGERS and isinstance(argument, int) and abs(argument) < KEY_LIMIT
            self.stack.append(kind.name in TEXTS or small)


NUMBER_CODE = re.compile(r"\?|b1|[iu][1248]|f[248]")
"""dtypes that torch takes over: bool, integers and floating point of at most 64 bits."""

MOST_SIDES = 32
"""Dimensions of numpy's arrays in all its versions."""


class DType:
    """Stands for numpy.dtype: of plain numbers only."""

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or not NUMBER_CODE.fullmatch(code):
            said = repr(code[:40]) if isinstance(code, str) else f"that is a {type(code).__name__}"
            raise Refused(f"an array of dtype {said}, not of plain numbers of at most 64 bits")
        self.code, self.big_endian = code, False

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("a dtype that is not of plain numbers")
        self.big_endian = state[1] == ">"

    def numbers(self, data: bytes | bytearray) -> np.ndarray:
        """The numbers of `data`, (N,), in this machine's byte order, a copy."""
        stored = np.frombuffer(data, np.dtype(self.code).newbyteorder(">" if self.big_endian else "<"))
        return stored.astype(stored.dtype.newbyteorder("="))


class Call(NamedTuple):
    """A function that a pickle may call and, unlike a bare function, cannot write attributes into."""

    function: Callable[..., Any]

    def __call__(self, *arguments: object) -> Any:
        return self.function(*arguments)


def _bare(*_arguments: object) -> Any:
    raise Refused("an array in an unknown form")


NDARRAY = Call(_bare)
"""Stands for numpy.ndarray, which is only ever named, to say what is to be made."""


class Builder:
    """Makes the content of one file; Refused for content of many times the file's size, named again and again."""

    def __init__(self, allowance: int) -> None:
        """`allowance`: bytes of arrays and of texts turned to bytes, and entries of dicts, in all."""
        self.left = allowance

    def stand_ins(self) -> dict[tuple[str, str], Any]:
        """What answers each global that a pickle may name."""
        return {
            ("numpy", "ndarray"): NDARRAY,
            ("numpy", "dtype"): DType,
            ("numpy.core.multiarray", "_reconstruct"): Call(self._empty),
            ("numpy._core.multiarray", "_reconstruct"): Call(self._empty),
            ("numpy.core.multiarray", "scalar"): Call(self._scalar),
            ("numpy._core.multiarray", "scalar"): Call(self._scalar),
            ("numpy.core.numeric", "_frombuffer"): Call(self._from_buffer),
            ("numpy._core.numeric", "_frombuffer"): Call(self._from_buffer),
            ("collections", "OrderedDict"): Call(self._ordered),
            ("_codecs", "encode"): Call(self._latin1),
            ("__builtin__", "bytes"): Call(_no_bytes),
            ("builtins", "bytes"): Call(_no_bytes),
        }

    def shaped(self, raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
        """The array of `raw` bytes."""
        if not isinstance(dtype, DType) or order not in ("C", "F"):
            raise Refused("an array in an unknown form")
        if not isinstance(shape, tuple) or not all(isinstance(side, int) and 0 <= side < 2**63 for side in shape):
            raise Refused("an array whose shape is no tuple of integers")
        if len(shape) > MOST_SIDES:
            raise Refused(f"an array of {len(shape)} dimensions")
        data = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 stored bytes as text
        if not isinstance(data, bytes | bytearray):
            raise Refused("an array whose content is no bytes")
        self._take(len(data))
        flat = dtype.numbers(data)
        if flat.size != math.prod(shape):
            raise Refused(f"an array of shape {shape} with {flat.size} numbers")
        return np.ascontiguousarray(flat.reshape(shape, order="F" if order == "F" else "C"))

    def _take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Refused("the same content again and again, to many times the size of the file")

    def _empty(self, kind: object, *_shape_and_code: object) -> "Array":
        if kind is not NDARRAY:
            raise Refused("an array of an unknown kind")
        return Array(self)

    def _from_buffer(self, raw: object, dtype: object, shape: object, order: object) -> "Array":
        array = Array(self)
        array.value = self.shaped(raw, dtype, shape, order)
        return array

    def _scalar(self, dtype: object, raw: object) -> Any:
        return self.shaped(raw, dtype, (1,), "C")[0].item()

    def _latin1(self, text: object, encoding: object = "latin1") -> bytes:
        """How protocols below 3 spell bytes."""
        if not isinstance(text, str) or encoding != "latin1":
            raise Refused("bytes in an unknown form")
        self._take(len(text))
        return text.encode("latin1")

    def _ordered(self, pairs: object = ()) -> dict[Any, Any]:
        """Python 2 gives an OrderedDict all its pairs at once, Python 3 none."""
        if not isinstance(pairs, list | tuple):
            raise Refused("an OrderedDict in an unknown form")
        self._take(len(pairs))
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            raise Refused("an OrderedDict with keys other than texts")
        return dict(pairs)


class Array:
    """Stands for numpy.ndarray; `value` is None until its bytes are known."""

    value: np.ndarray | None = None

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array in an unknown form")
        self.value = self._builder.shaped(state[4], state[2], state[1], "F" if state[3] else "C")


def _no_bytes() -> bytes:
    """How protocol 2 spells no bytes at all."""
    return b""


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        # Protocol 2 turns the text of an array to bytes, and these to numbers.
        self.stand_ins = Builder(2 * len(data)).stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.stand_ins:
            raise Refused(f"the global {module:.100}.{name:.100}")
        return self.stand_ins[module, name]

    def persistent_load(self, _identity: object) -> Any:
        raise Refused("a reference to data outside the file")


def read_numpy_pickle(path: Path) -> object:
    """The content of a pickle; an array is an `Array` whose `value` holds it.

    CheckpointError, naming the first global that is refused, for one that is more than plain data or would take time
    or memory out of proportion to its size, and for a file that is no whole pickle. Nothing of the file is run.
    """
    data = path.read_bytes()
    try:
        check_opcodes(data)
        return _Reader(data).load()
    except Refused as refused:
        raise CheckpointError(
            f"{path}: this pickle asks for {refused}. Only numbers, texts, lists, dicts and numpy arrays are read, "
            "since a pickle can be meant to run code or to fill the memory. Nothing of it was run."
        ) from refused
    except Exception as error:  # a damaged pickle raises almost any kind
        # Arguments that are no texts can be nested without end, so that they are not shown.
        said = error.args[0] if error.args and isinstance(error.args[0], str) else ""
        raise CheckpointError(
            f"{path}: not a whole pickle of plain data ({type(error).__name__}: {said:.200})."
        ) from error


def check_opcodes(data: bytes) -> None:
    """Refused for a memo larger than the content, and for sets, doubled values and dict keys but texts and integers.

    ValueError and others for content that is damaged or cut short.
    """
    file, machine = io.BytesIO(data), _Machine()
    for done in count():
        code = file.read(1)
        opcode = OPCODES.get(code.decode("latin1"))
        if opcode is None:
            raise ValueError(f"no opcode {code!r}" if code else "it is cut short")
        if opcode.name == "STRING":
            argument: object = file.readline()  # pickletools reads ASCII only; Python 2 wrote any bytes
        else:
            argument = opcode.arg.reader(file) if opcode.arg else None
        if opcode.name == "STOP":
            return
        machine.step(opcode, argument, done)
