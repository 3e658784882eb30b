"""The keys of a study file.

A study file is YAML under the same strict rules as a config. Values of config keys are given under `overrides`, nested
or with dots: `loss.classification.gamma: 1.0`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from retinanet.config import strict_yaml
from retinanet.config.fields import Count, Natural, Positive, Section
from retinanet.config.origins import LocatedError, Origin, file_origins, located_errors, text_errors

Name = Literal["AP", "AP50", "AP75", "APs", "APm", "APl"]


class ArmKeys(Section):
    """One arm."""

    name: str = Field(min_length=1, description="name of the arm in tables and pictures")
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
    seeds: list[Natural] | None = Field(
        None, min_length=1, description="seeds that the grid is tried with and nothing else; none: the first of `seeds`"
    )
    widen: Natural = Field(
        0, description="rates that may be added at each end, by the grid's own factor, while the best is at that end"
    )

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int] | None) -> list[int] | None:
        return None if seeds is None else _different(seeds)

    @model_validator(mode="after")
    def _grid_has_values(self) -> "LrRule":
        if self.rule == "grid" and len(set(self.values)) < 2:
            raise ValueError("rule grid needs at least two different `values`")
        if self.rule == "same" and self.values:
            raise ValueError("rule same takes no `values`; the learning rate is the base's schedule.lr")
        if self.rule == "same" and (self.seeds is not None or self.widen):
            raise ValueError("rule same takes no `seeds` and no `widen`: no learning rate is searched")
        return self


class SplitKeys(Section):
    """The images on which every finished training is measured."""

    annotations: str = Field(description="COCO-format JSON, relative to data.root")
    images: str = Field(description="folder of its images, relative to data.root")


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("the same seed twice would count one training as two")
    return seeds


class ShapesKeys(Section):
    """A generated data set (`retinanet data shapes`)."""

    train: Count = Field(description="scenes to train on")
    val: Count = Field(description="scenes of the selection split")
    test: Natural = Field(0, description="scenes of the test split")
    size: Annotated[list[Count], Field(min_length=2, max_length=2)] = Field([320, 320], description="[height, width]")
    seed: Natural = Field(0, description="seed of the scenes")
    objects: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[fewest, most] objects of a scene that is not empty; none: 2 to 11"
    )
    object_sizes: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None, description="[least, most] pixels of an object's longer side; none: 8 to 200"
    )
    empty: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="share of scenes without objects; none: 0.03"
    )


class LevelKeys(Section):
    """A variant of the data or the config in which all arms are trained."""

    name: str = Field(min_length=1, description="name of the level in tables, and first part of its cells' names")
    overrides: dict[str, Any] = Field({}, description="config keys of this level, for all arms")
    shapes: ShapesKeys | None = Field(
        None,
        description="data to generate in data.root/<name>; keys that are not given are those of the study's shapes",
    )
    note: str = Field("", description="a remark for the report")


class PrimaryKeys(Section):
    """The comparison that the study is made for, named before it runs."""

    arm: str = Field(description="name of the arm")
    against: str = Field(description="name of the other one, which is the reference")
    level: str | None = Field(None, description="name of the level; none: at every level, corrected for their number")
    difference: Positive = Field(2.0, description="AP points that the study must be able to see with 80 % power")


class StudyKeys(Section):
    """A study file."""

    title: str = Field("", description="headline of the report")
    note: str = Field("", description="remark about the study for the report")
    base: str | None = Field(None, description="path of a config, relative to this file; none: the defaults")
    shapes: ShapesKeys | None = Field(None, description="data set to generate in data.root if it does not exist")
    levels: list[LevelKeys] = Field(
        [], description="variants crossed with the arms, {name, overrides, shapes, note} each"
    )
    overrides: dict[str, Any] = Field({}, description="config keys for all arms")
    arms: list[ArmKeys] = Field([], description="the arms, {name, overrides, paper, note} each")
    grid: dict[str, list[Any]] = Field({}, description="instead of arms: {config key: [values]}, every combination")
    paper: list[float | None] = Field([], description="with grid: the paper's AP of each combination, in order")
    reference: str = Field(description="name of the arm with which the others are compared")
    seeds: list[Natural] = Field([0, 1, 2], min_length=1, description="seeds of every arm")
    budget: Budget | None = Field(None, description="length of every training; none: the base's")
    lr: LrRule = Field(default_factory=LrRule, description="the learning-rate rule")
    primary: PrimaryKeys | None = Field(None, description="the comparison that the study is made for")
    score_thresholds: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [], description="AP on test is of detections above each of these; the first is the main one; none: the base's"
    )
    test: SplitKeys | None = Field(None, description="test split; none: the config's val split")
    may_differ: list[str] = Field(["loss.classification"], description="config keys in which arms may differ")
    jobs: Count = Field(1, description="trainings at a time on one machine")
    output: str | None = Field(None, description="folder of the study; none: runs/ablations/<name of this file>")

    @model_validator(mode="after")
    def _arms_or_grid(self) -> "StudyKeys":
        if bool(self.arms) == bool(self.grid):
            raise ValueError("give either arms or grid, with at least one entry")
        if self.paper and not self.grid:
            raise ValueError("paper belongs to a grid: with arms, write it into each arm, as `paper: {AP: 34.0}`")
        return self

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: list[int]) -> list[int]:
        return _different(seeds)

    @field_validator("score_thresholds")
    @classmethod
    def _thresholds_differ(cls, thresholds: list[float]) -> list[float]:
        if len(set(thresholds)) < len(thresholds):
            raise ValueError("the same threshold twice")
        return thresholds

    @model_validator(mode="before")
    @classmethod
    def _levels_complete_the_shapes(cls, values: Any) -> Any:
        """A level's `shapes` on top of the study's."""
        match values:
            case {"shapes": dict() as common, "levels": list() as levels}:
                return values | {"levels": [_on_top(level, common) for level in levels]}
            case _:
                return values


def _on_top(level: Any, common: dict[str, Any]) -> Any:
    match level:
        case {"shapes": dict() as own}:
            return level | {"shapes": common | own}
        case _:
            return level


def read_study_file(path: Path) -> tuple[StudyKeys | None, dict[str, Origin], list[LocatedError]]:
    """Keys (None if they cannot be used), where each key was written, and every error with its line."""
    parsed = strict_yaml.read(path)
    origins = file_origins(str(path), parsed)
    errors = text_errors(str(path), parsed)
    errors += located_errors(parsed.data, StudyKeys, origins, partial=parsed.partial)
    return (None if errors else StudyKeys.model_validate(parsed.data)), origins, errors
