"""The arms of a study: as written, and with their whole configs."""

import itertools
import json
import re
from typing import Any, NamedTuple

from retinanet.ablation.study_file import StudyKeys
from retinanet.config.flat import leaves
from retinanet.config.load import with_values
from retinanet.config.origins import InvalidConfig, LocatedError, Origin, located, nearest_origin
from retinanet.config.schema import Config

Origins = dict[str, Origin]


class Arm(NamedTuple):
    """One arm; its cells differ in seed and learning rate only."""

    name: str
    slug: str
    """The name as a file name."""
    config: Config
    overrides: tuple[tuple[str, Any], ...]
    """(dotted config key, value) of what the arm sets on top of the base."""
    paper: dict[str, float]
    note: str
    level: str = ""
    """Name of the level whose base the config starts from; empty in a study without levels."""


class WrittenArm(NamedTuple):
    """An arm as written, before its config is resolved."""

    name: str
    overrides: list[tuple[str, Any]]
    paper: dict[str, float]
    note: str
    path: str
    """Dotted path of the arm in the study file."""

    def section(self) -> str:
        """Dotted path of its overrides."""
        return "grid" if self.path == "grid" else f"{self.path}.overrides"


def slug_of(name: str) -> str:
    """A name as a file name on any system: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "arm"


def override_lines(overrides: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    """`key.path: value` of each override."""
    return tuple(f"{key}: {value if isinstance(value, str) else flow(value)}" for key, value in overrides)


def flow(value: Any) -> str:
    """A value in JSON, which the strict YAML reader accepts."""
    return json.dumps(value, ensure_ascii=False)


def written_arms(keys: StudyKeys) -> list[WrittenArm]:
    """The arms as written, or those that a grid spans."""
    if keys.arms:
        return [
            WrittenArm(
                name=arm.name,
                overrides=list(leaves(arm.overrides)),
                paper={str(name): value for name, value in arm.paper.items()},
                note=arm.note,
                path=f"arms.{index}",
            )
            for index, arm in enumerate(keys.arms)
        ]
    arms = []
    for index, values in enumerate(itertools.product(*keys.grid.values())):
        overrides = list(zip(keys.grid, values, strict=True))
        name = ", ".join(f"{key.rpartition('.')[2]} {_plain(value)}" for key, value in overrides)
        paper = keys.paper[index] if index < len(keys.paper) else None
        paper_numbers = {} if paper is None else {"AP": paper}
        arms.append(WrittenArm(name=name, overrides=overrides, paper=paper_numbers, note="", path="grid"))
    return arms


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else flow(value)


def resolve_arms(
    written: list[WrittenArm], base: Config, origins: Origins, level: str = ""
) -> tuple[list[Arm], list[LocatedError]]:
    """The arms upon a base, that of a level if one is named, without those that have errors; and the errors."""
    arms: list[Arm] = []
    errors: list[LocatedError] = []
    for arm in written:
        errors += repeated_keys(arm.overrides, arm.section(), origins)
        places = {key: nearest_origin(f"{arm.section()}.{key}", origins) for key, _ in arm.overrides}
        try:
            config = with_values(base, dict(arm.overrides), origins=places)
        except InvalidConfig as error:
            errors += [located(one.origin, f"arm {arm.name}: {one.message}") for one in error.errors]
            continue
        arms.append(
            Arm(
                name=arm.name,
                slug=slug_of(arm.name),
                config=config,
                overrides=tuple(arm.overrides),
                paper=arm.paper,
                note=arm.note,
                level=level,
            )
        )
    return arms, errors


def repeated_keys(overrides: list[tuple[str, Any]], section: str, origins: Origins) -> list[LocatedError]:
    """Config keys that a section gives more than once."""
    names = [key for key, _ in overrides]
    return [
        located(
            nearest_origin(f"{section}.{key}", origins),
            f"{section}.{key}: given twice, nested and with dots: keep one",
        )
        for key in dict.fromkeys(names)
        if names.count(key) > 1
    ]
