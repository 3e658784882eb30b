"""Notes on the names of a data set's classes: the same name twice, two spellings, a background. No tensor library."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

_BACKGROUND = ("__background__", "_background_", "background", "bg", "backgrounds", "none")


def folded_name(name: str) -> str:
    """A name without spaces at its ends, in lower case."""
    return name.strip().casefold()


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that are equal without spaces at their ends and in lower case."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(folded_name(name), {})[name] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def class_notes(rows: list[dict[str, Any]], used: set[int]) -> list[str]:
    """Sentences on valid categories. used: the ids that annotations have.

    A category without objects may only be the group of the others, as Roboflow writes it, or other programs'
    background.
    """
    counts = Counter(row["name"] for row in rows)
    notes = [
        f"{count} categories are named {name!r}; they stay separate classes, distinguished by their ids"
        for name, count in counts.items()
        if count > 1
    ]
    notes += [
        f"the classes {' and '.join(map(repr, group))} differ in upper and lower case only; they stay separate "
        "classes: if they are one, give both the same id and name"
        for group in spellings(counts)
    ]
    pairs = [(row["name"], row.get("supercategory")) for row in rows]
    groups = {group for name, group in pairs if isinstance(group, str) and group != name}
    for row in rows:
        name, is_used = row["name"], row["id"] in used
        if name in groups and not is_used:
            notes.append(f"the class {name!r} has no objects and is the supercategory of others: it is harmless")
        elif folded_name(name) in _BACKGROUND and not is_used:
            notes.append(f"the class {name!r} has no objects: RetinaNet needs no class for the background; harmless")
        elif folded_name(name) in _BACKGROUND:
            notes.append(
                f"the class {name!r} has boxes, and is learned as any other: RetinaNet needs no class for the "
                "background, so leave these boxes out unless they are objects"
            )
    return notes
