"""What property tests share: profiles and JSON values. `ci` is small and always the same, `nightly` large and random.

HYPOTHESIS_PROFILE=nightly python -m pytest -k properties
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["given", "refused_at_most", "scalars", "st", "trees", "with_one_change"]

pytest.importorskip("hypothesis", reason="hypothesis is not installed (pip install -r requirements.txt)")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retinanet.errors import UserError

_COMMON: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("ci", max_examples=25, derandomize=True, phases=[Phase.explicit, Phase.generate], **_COMMON)
settings.register_profile("nightly", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "2000")), **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from([2**53, 2**63, -(2**70), 1e308, "1", "1.0", "\x1b[2J", "a\0b", "\u202e", "\ud800", "é" * 300, ""]),
)


def trees(keys: st.SearchStrategy[str], leaves: st.SearchStrategy[Any] = scalars) -> st.SearchStrategy[Any]:
    """Plain data of JSON, with the keys given."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


@st.composite
def with_one_change(draw: st.DrawFn, tree: Any, leaves: st.SearchStrategy[Any]) -> Any:
    """A copy of plain data in which one value is replaced, or one key or item is left out."""
    copy = json.loads(json.dumps(tree))
    node = copy
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            if draw(st.integers(0, 4)) == 0:
                del node[key]
            else:
                node[key] = draw(leaves)
            return copy
        node = inner


@contextmanager
def refused_at_most(name: object) -> Iterator[None]:
    """The block ends, or raises a UserError whose message has `name` in it, such as the file's path."""
    try:
        yield
    except UserError as error:
        if str(name) not in str(error):
            raise AssertionError(f"the message does not name {name}: {error}") from error
