"""Whether pickled content may be read at all, told from its opcodes alone, before anything of it is built.

A few bytes can ask for a table of gigabytes, or name one tuple twice in the next until hashing it never ends. What
is let through here is built in time and memory linear in the file's size. No program that stores weights writes any
of the rest.
"""

import io
import pickletools
from itertools import count

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
