"""The keys of a study file, and what is wrong with one, by file and line.

A study file is YAML under the same strict rules as a config. Values for config keys stand under `overrides`, nested
or with dots: `loss.classification.gamma: 1.0`.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from retinanet.config import strict_yaml as yaml_strict
from retinanet.config.faults import shown
from retinanet.config.fields import Count, Natural, Positive, Section
from retinanet.display.console import COCO_PRECISIONS

Name = Literal["AP", "AP50", "AP75", "APs", "APm", "APl"]


class ArmKeys(Section):
    """One arm."""

    name: str = Field(min_length=1, description="what tables and pictures call it")
    overrides: dict[str, Any] = Field({}, description="config keys of this arm")
    paper: dict[Name, float] = Field({}, description="the paper's numbers for it, 0 to 100: {AP: 34.0, AP50: 52.5}")
    note: str = Field("", description="a remark for the report")


class Budget(Section):
    """Length of every training."""

    iterations: Count | None = Field(None, description="steps at the reference batch")
    epochs: Positive | None = Field(None, description="passes over the data")

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give exactly one of iterations and epochs")
        return self


class LrRule(Section):
    """The learning-rate rule for losses of different magnitude."""

    rule: Literal["same", "grid"] = Field("same", description="same, or grid: each arm takes the best of `values`")
    values: list[Positive] = Field([], description="learning rates of the grid")

    @model_validator(mode="after")
    def _grid_has_values(self) -> "LrRule":
        if self.rule == "grid" and len(set(self.values)) < 2:
            raise ValueError("rule grid needs at least two different `values`")
        if self.rule == "same" and self.values:
            raise ValueError("rule same takes no `values`; the learning rate is the base's schedule.lr")
        return self


class SplitKeys(Section):
    """What every finished training is measured on."""

    annotations: str = Field(description="COCO-format JSON, from data.root")
    images: str = Field(description="folder of its images, from data.root")


class ShapesKeys(Section):
    """A generated data set (`retinanet data shapes`)."""

    train: Count = Field(description="scenes to train on")
    val: Count = Field(description="scenes of the selection split")
    test: Natural = Field(0, description="scenes of the test split")
    size: Annotated[list[Count], Field(min_length=2, max_length=2)] = Field([320, 320], description="[height, width]")
    seed: Natural = Field(0, description="seed of the scenes")


class StudyKeys(Section):
    """A study file."""

    title: str = Field("", description="headline of the report")
    note: str = Field("", description="what the study is about, for the report")
    base: str | None = Field(None, description="path of a config, from this file; none: the defaults")
    shapes: ShapesKeys | None = Field(None, description="data to generate in data.root unless it is there")
    overrides: dict[str, Any] = Field({}, description="config keys for all arms")
    arms: list[ArmKeys] = Field([], description="the arms, {name, overrides, paper, note} each")
    grid: dict[str, list[Any]] = Field({}, description="instead of arms: {config key: [values]}, every combination")
    paper: list[float | None] = Field([], description="with grid: the paper's AP of each combination, in order")
    reference: str = Field(description="name of the arm that the others are compared with")
    seeds: list[Natural] = Field([0, 1, 2], min_length=1, description="seeds of every arm")
    budget: Budget | None = Field(None, description="length of every training; none: the base's")
    lr: LrRule = Field(default_factory=LrRule, description="the learning-rate rule")
    test: SplitKeys | None = Field(None, description="test split; none: the config's val split")
    may_differ: list[str] = Field(["loss.classification"], description="config keys in which arms may differ")
    jobs: Count = Field(1, description="trainings at a time on one machine")
    output: str | None = Field(None, description="folder of the study; none: runs/ablations/<name of this file>")

    @model_validator(mode="after")
    def _arms_or_grid(self) -> "StudyKeys":
        if bool(self.arms) == bool(self.grid):
            raise ValueError("give either arms or grid, with at least one entry")
        if self.paper and not self.grid:
            raise ValueError("paper beside arms: write it into each arm, as `paper: {AP: 34.0}`")
        return self

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("the same seed twice would count one training as two")
        return seeds


SECTIONS: dict[str, type[Section]] = {
    "": StudyKeys, "arms": ArmKeys, "budget": Budget, "lr": LrRule, "shapes": ShapesKeys, "test": SplitKeys,
}  # fmt: skip


class Places(NamedTuple):
    """Where the keys of a study file stand."""

    source: Path
    lines: dict[str, int]
    """Dotted path (`arms.0.overrides.schedule.lr`) -> line."""

    def of(self, path: str) -> str:
        """`file:line` of a dotted path, or of the nearest one above that is written down."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return f"{self.source}:{self.lines.get(path, 1)}"


def read_study_file(path: Path) -> tuple[StudyKeys | None, Places, list[str]]:
    """Keys (None where they cannot be used), places, and every error as `file:line: message`."""
    parsed = yaml_strict.read(path)
    places = Places(path, parsed.positions)
    errors = [f"{path}:{line}: {message}" for line, message in parsed.errors]
    try:
        keys = StudyKeys.model_validate(parsed.data)
    except ValidationError as error:
        found = [_located(dict(one), places) for one in error.errors(include_url=False)]
        return None, places, errors + ([] if parsed.partial else found)
    return (None if errors else keys), places, errors


def _located(error: dict[str, Any], places: Places) -> str:
    path = [part for part in error["loc"] if part != "[key]"]
    dotted = ".".join(map(str, path))
    place = dotted
    if not dotted:
        named = [key for key in ("paper", "grid", "arms") if key in places.lines and key in str(error["msg"])]
        place = next(iter(named), "")
    return f"{places.of(place)}: {_message(error, dotted)}"


def _message(error: dict[str, Any], dotted: str) -> str:
    """Own words for one pydantic error."""
    *above, key = ["", *map(str, error["loc"])]
    section = SECTIONS.get(next((part for part in above if part), ""), StudyKeys)
    fields = section.model_fields
    match error["type"]:
        case "value_error":
            return f"{dotted}: {error['ctx']['error']}" if dotted else str(error["ctx"]["error"])
        case "extra_forbidden":
            return f"{dotted}: unknown key; {near_or_all(key, list(fields))}"
        case "missing":
            return f"{dotted}: is missing; give {fields[key].description}"
        case "model_type" | "dict_type":
            return f"{dotted}: wants a mapping of keys, got {shown(error['input'])}"
        case "literal_error" if key == "[key]":
            return f"{dotted}: unknown number; {near_or_all(str(error['input']), list(COCO_PRECISIONS))}"
    wanted = str(error["msg"]).replace("Input should be", "wants").replace("List should have", "wants")
    return f"{dotted}: {wanted}, got {shown(error['input'])}"


def near_or_all(name: str, known: list[str]) -> str:
    """Ending of a message about an unknown name."""
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"


def leaves(overrides: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted config key, value) of nested or dotted overrides, in order; a key written twice comes twice."""
    found: list[tuple[str, Any]] = []
    for key, value in overrides.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
