"""Notes on what was read in another way than it is written: one sentence a kind. Imports no tensor library."""


class KindNotes:
    """Counts of each kind of reading, with the first example of each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count one or more readings. kind: what follows the count in the sentence, such as "names are ..."."""
        before, first = self._found.get(kind, (0, example))
        self._found[kind] = before + count, first

    def texts(self) -> list[str]:
        """A sentence of each kind with its count and its first example, in the order of their first readings."""
        return [f"{count:,} {kind}; for example {example}" for kind, (count, example) in self._found.items()]
