"""What was probably meant by an unknown name or key."""

import difflib
import re
from typing import Any

from retinanet.config.other_names import known_elsewhere

KeyPath = tuple[str | int, ...]
"""Keys, and indices of lists, from the top."""


def suggest_name(name: str, known: list[str]) -> str:
    """Ending of a message about an unknown name: the nearest known ones, else all."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"


def leaf_paths(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted path of every key that is no section -> its description."""
    paths: dict[str, str] = {}
    for key, node in tree["properties"].items():
        if "properties" in node:
            paths |= leaf_paths(node, f"{prefix}{key}.")
        else:
            paths[prefix + key] = node.get("description", "")
    return paths


def _section_paths(tree: dict[str, Any]) -> list[str]:
    """Dotted paths of the sections, sections within sections included."""
    return sorted({leaf.rsplit(".", depth)[0] for leaf in leaf_paths(tree) for depth in range(1, leaf.count(".") + 1)})


def _speaks_of(description: str, parts: list[str]) -> bool:
    """Whether a description has all parts of a key, up to a typing error, such as `lerning_rate`."""
    used = re.findall(r"[a-z]+", description.lower())
    return len("".join(parts)) > 3 and all(difflib.get_close_matches(part, used, n=1, cutoff=0.8) for part in parts)


def named_elsewhere(name: str, tree: dict[str, Any]) -> str:
    """Ending of a message about a name without its section: the key that has it, or that other projects call so."""
    leaves = leaf_paths(tree)
    same = [leaf for leaf in leaves if leaf.rsplit(".", 1)[-1] == name]
    return known_elsewhere(name, leaves) or (f"did you mean {' or '.join(same[:3])}?" if same else "")


def suggest_key(path: KeyPath, tree: dict[str, Any]) -> str:
    """Ending of a message about an unknown key: the keys that may have been meant."""
    key = str(path[-1])
    siblings = list(schema_node(path[:-1], tree).get("properties", {}))
    parent = f"{dotted_path(path[:-1])}.".removeprefix(".")
    leaves = leaf_paths(tree)
    everything = list(leaves) + _section_paths(tree)
    kinds = [
        kind for kind, option in schema_node(path[:-1], tree).get("kinds", {}).items() if key in option["properties"]
    ]
    if kinds:
        return f"it is a key of kind {', '.join(kinds)}, and the keys of this kind are {', '.join(siblings)}"
    if key in leaves:
        return f"did you mean {key}?"
    if elsewhere := known_elsewhere(key.rsplit(".", 1)[-1], leaves):
        return elsewhere
    meant = [parent + near for near in difflib.get_close_matches(key, siblings, n=1)]
    meant += [path for path in everything if path.rsplit(".", 1)[-1] == key]
    if not meant:
        last = key.rsplit(".", 1)[-1]
        names = {leaf.rsplit(".", 1)[-1] for leaf in leaves}
        near_names = difflib.get_close_matches(last, names, n=1, cutoff=0.75)
        meant = [leaf for leaf in leaves if leaf.rsplit(".", 1)[-1] in near_names]
        meant += difflib.get_close_matches(parent + key, leaves, n=1, cutoff=0.75)
    if not meant:
        parts = key.lower().split("_")
        initials = "".join(part[:1] for part in parts)
        meant = [leaf for leaf, description in leaves.items() if _speaks_of(description, parts)]
        # `lr` before other keys that mention the learning rate; then keys of the section that the user named.
        meant.sort(key=lambda leaf: (leaf.rsplit(".", 1)[-1] != initials, not leaf.startswith(parent or " ")))
    if meant:
        return f"did you mean {' or '.join(list(dict.fromkeys(meant))[:3])}?"
    return f"the keys of {parent[:-1] or 'the top level'} are {', '.join(siblings)}"


def schema_node(path: KeyPath, tree: dict[str, Any]) -> dict[str, Any]:
    """Schema node at a path; an index takes the node of a list's items. Empty if the schema has none."""
    node = tree
    for part in path:
        if isinstance(part, int):
            options = node.get("anyOf", [node])
            items = [option["items"] for option in options if "items" in option]
            items += [each for option in options for each in option.get("prefixItems", [])[part : part + 1]]
            node = items[0] if items else {}
        else:
            values = node.get("additionalProperties")
            node = node.get("properties", {}).get(part, values if isinstance(values, dict) else {})
    return node


def dotted_path(path: KeyPath) -> str:
    """`("a", 0, "b")` as `a[0].b`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
