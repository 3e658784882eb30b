"""Items in their order, in groups that one call can take."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def grouped(items: Iterable[Item], cost: Callable[[list[Item]], int], most: int) -> Iterator[list[Item]]:
    """Neighbours together while their group costs at most `most`; an item that costs more is alone."""
    group: list[Item] = []
    for item in items:
        if group and cost([*group, item]) > most:
            yield group
            group = []
        group.append(item)
    if group:
        yield group
