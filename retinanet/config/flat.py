"""Nested keys as dotted keys: one flattener for configs, studies and checkpoints."""

from collections.abc import Mapping
from typing import Any


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, in the order of the keys. An empty mapping leaves nothing."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose values differ or that only one has: the first's order, then those of the second alone."""
    left, right = flat(first), flat(second)
    absent = object()
    keys = [*left, *(key for key in right if key not in left)]
    return [key for key in keys if left.get(key, absent) != right.get(key, absent)]
