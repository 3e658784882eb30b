"""Notes on what was read in another way than it is written: one sentence a kind. Imports no tensor library."""

import re

_VERBS = {"are": "is", "have": "has", "lack": "lacks", "repeat": "repeats", "differ": "differs", "begin": "begins"}
_SUBJECT = re.compile(rf"(?P<words>[^:;,]*?)(?P<noun>\w+s) (?P<verb>{'|'.join(_VERBS)})\b")


class KindNotes:
    """Counts of each kind of reading, with the first example of each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count one or more readings. kind: what follows the count in the sentence, such as "names are ..."."""
        before, first = self._found.get(kind, (0, example))
        self._found[kind] = before + count, first

    def say(self, sentence: str) -> None:
        """Note something that is not counted."""
        self._found.setdefault(sentence, (0, ""))

    def count(self, kind: str) -> int:
        """How many readings of a kind there are."""
        return self._found.get(kind, (0, ""))[0]

    def texts(self) -> list[str]:
        """A sentence of each kind with its count and its first example, in the order of their first readings."""
        return [
            f"{counted(count, kind)}; for example {example}" if count else kind
            for kind, (count, example) in self._found.items()
        ]


def counted(count: int, kind: str) -> str:
    """A count before a sentence in the plural, which becomes singular for 1: `1 file name is ...`."""
    subject = _SUBJECT.match(kind)
    if count != 1 or subject is None:
        return f"{count:,} {kind}"
    noun = subject["noun"]
    rest = kind[subject.end() :].replace(", and are ", ", and is ")
    one = noun[:-2] if noun.endswith(("xes", "sses")) else f"{noun[:-3]}y" if noun.endswith("ies") else noun[:-1]
    return f"1 {subject['words']}{one} {_VERBS[subject['verb']]}{rest}"
