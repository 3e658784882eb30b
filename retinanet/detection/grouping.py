"""Splitting a sequence into groups of neighbours that one call can process."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def group_neighbours(items: Iterable[Item], cost: Callable[[list[Item]], int], limit: int) -> Iterator[list[Item]]:
    """Groups of consecutive items, as long as a group costs at most `limit`; an item that costs more is alone."""
    group: list[Item] = []
    for item in items:
        if group and cost([*group, item]) > limit:
            yield group
            group = []
        group.append(item)
    if group:
        yield group
