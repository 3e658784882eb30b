"""Nested keys as dotted keys: one flattener for configs, studies and checkpoints."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value that is no mapping, in the order of the keys.

    A key that is written both nested and with dots occurs twice. An empty mapping has no leaves.
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, in the order of the keys."""
    return dict(leaves(tree))


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ or that only one has: the first's order, then those of the second alone."""
    left, right = flat(first), flat(second)
    absent = object()
    keys = [*left, *(key for key in right if key not in left)]
    return [key for key in keys if left.get(key, absent) != right.get(key, absent)]
