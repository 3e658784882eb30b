"""A study file resolved: arms with whole configs, for each level, checked to be comparable."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.arms import Arm, Origins, WrittenArm, repeated_keys, resolve_arms, slug_of, written_arms
from retinanet.ablation.guards import Splits
from retinanet.ablation.study_checks import (
    comparison_errors,
    fairness_errors,
    level_errors,
    name_errors,
    selection_errors,
)
from retinanet.ablation.study_file import PrimaryKeys, ShapesKeys, SplitKeys, StudyKeys, read_study_file
from retinanet.config.flat import leaves
from retinanet.config.load import config_name, load_config, with_values
from retinanet.config.origins import InvalidConfig, LocatedError, Origin, located, nearest_origin, raise_located
from retinanet.config.schema import Config
from retinanet.config.shipped import STUDIES, shipped_configs
from retinanet.config.suggestions import suggest_name
from retinanet.errors import ConfigError


class Level(NamedTuple):
    """A variant of the data or the config in which all arms are trained."""

    name: str
    slug: str
    """The name as a file name."""
    base: Config
    arms: tuple[Arm, ...]
    overrides: tuple[tuple[str, Any], ...]
    """(dotted config key, value) of what the level sets on top of the study's base."""
    shapes: ShapesKeys | None
    """The data to generate in the level's data.root; None: that of the study, if it generates any."""
    note: str


class Study(NamedTuple):
    """Everything in a study file, resolved."""

    title: str
    note: str
    reference: str
    base: Config
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    lr_values: tuple[float, ...]
    """The grid, ascending; empty: every arm trains with its own config's schedule.lr."""
    test: tuple[str, str]
    """Annotations and images of the test split, from data.root."""
    may_differ: tuple[str, ...]
    jobs: int
    folder: Path
    shapes: ShapesKeys | None
    """The data to generate in data.root; None: the data is the user's."""
    levels: tuple[Level, ...] = ()
    lr_seeds: tuple[int, ...] | None = None
    """Seeds of the grid, which no result has; None: the grid is tried with the first of the results' seeds."""
    lr_widen: int = 0
    """Rates that may be added at each end of the grid."""
    primary: PrimaryKeys | None = None
    score_thresholds: tuple[float, ...] = ()
    """AP on test is of detections above each, the first is the main one; empty: the base's eval.score_threshold."""

    def parts(self) -> tuple["Study", ...]:
        """The study of each level, which has that level alone and its base, arms and data; without levels itself."""
        if not self.levels:
            return (self,)
        return tuple(
            self._replace(levels=(level,), base=level.base, arms=level.arms, shapes=level.shapes or self.shapes)
            for level in self.levels
        )

    def base_of(self, arm: Arm) -> Config:
        """The config that an arm starts from: its level's, or the study's."""
        return next((level.base for level in self.levels if level.name == arm.level), self.base)

    def all_arms(self) -> tuple[Arm, ...]:
        """Every arm of every level, level by level."""
        return tuple(arm for part in self.parts() for arm in part.arms)

    def splits(self) -> Splits:
        """The annotation files of both splits."""
        data = self.base.data
        return Splits(Path(data.root) / data.val_annotations, Path(data.root) / self.test[0])


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """The study of a file; `key=value` words in `overrides` change the base, `output=` the study's folder.

    Raises ConfigError naming every error with its file and line; OSError if the file cannot be read.
    """
    if not path.is_file():
        known = [name.removeprefix(STUDIES) for name in shipped_configs() if name.startswith(STUDIES)]
        raise ConfigError(f"there is no study {path}; {suggest_name(path.stem, known)}")
    title = f"cannot use the study {path}"
    keys, origins, errors = read_study_file(path)
    if keys is None:
        raise InvalidConfig(title, errors)
    words = overrides or []
    outputs = [word.partition("=")[2].strip() for word in words if word.partition("=")[0].strip() == "output"]
    words = [word for word in words if word.partition("=")[0].strip() != "output"]
    base, errors = _resolve_base(path, keys, origins, words)
    if base is None:
        raise InvalidConfig(title, errors)
    written = written_arms(keys)
    arms, wrong = resolve_arms(written, base, origins)
    errors += wrong + name_errors(keys, written, origins) + selection_errors(keys, base, origins)
    errors += level_errors(keys, written, origins) + comparison_errors(keys, written, origins)
    levels, of_levels = _resolve_levels(keys, [] if wrong else written, base, origins)
    errors += of_levels
    study = Study(
        title=keys.title or config_name(path),
        note=keys.note,
        reference=keys.reference,
        base=base,
        arms=tuple(arms),
        seeds=tuple(keys.seeds),
        lr_values=tuple(sorted(set(keys.lr.values))),
        test=_test_split(keys.test, base),
        may_differ=tuple(keys.may_differ),
        jobs=keys.jobs,
        folder=Path((outputs[-1] if outputs else keys.output) or f"runs/ablations/{config_name(path)}"),
        shapes=keys.shapes,
        levels=tuple(levels),
        lr_seeds=None if keys.lr.seeds is None else tuple(keys.lr.seeds),
        lr_widen=keys.lr.widen,
        primary=keys.primary,
        score_thresholds=tuple(keys.score_thresholds),
    )
    if not wrong:
        errors += fairness_errors(keys, arms, written, origins)
    raise_located(errors, title)
    return study


def _resolve_base(
    file: Path, keys: StudyKeys, origins: Origins, words: list[str]
) -> tuple[Config | None, list[LocatedError]]:
    """The config that all arms start from (None if it has errors of its own), and the errors."""
    written = list(leaves(keys.overrides))
    errors = repeated_keys(written, "overrides", origins)
    for word in words:
        if word.partition("=")[0].strip() in ("seed", "seeds"):
            override = Origin(f"override {word!r}")
            errors.append(located(override, f"the study sets the seeds; change `seeds` in {file}"))
    words = [word for word in words if word.partition("=")[0].strip() not in ("seed", "seeds")]
    for key, instead in (("seed", "seeds"), ("output", "output, at the top of the study")):
        if any(name == key for name, _ in written):
            place = nearest_origin(f"overrides.{key}", origins)
            errors.append(located(place, f"overrides.{key}: the study sets it; use {instead}"))
    budget = {} if keys.budget is None else keys.budget.model_dump(exclude_none=True)
    values = dict(written) | {f"schedule.{key}": value for key, value in budget.items()}
    places = {key: nearest_origin(f"overrides.{key}", origins) for key, _ in written}
    places |= {f"schedule.{key}": nearest_origin(f"budget.{key}", origins) for key in budget}
    try:
        if keys.base is None:
            return with_values(Config(), values, origins=places, overrides=words), errors
        path = file.parent / keys.base
        if not path.is_file():
            errors.append(located(nearest_origin("base", origins), f"base: there is no config {path}"))
            return None, errors
        return load_config(path, words, values=values, origins=places), errors
    except InvalidConfig as error:
        return None, errors + error.errors


def _resolve_levels(
    keys: StudyKeys, written: list[WrittenArm], base: Config, origins: Origins
) -> tuple[list[Level], list[LocatedError]]:
    """The levels with their bases and arms, without those that have errors; and the errors."""
    levels: list[Level] = []
    errors: list[LocatedError] = []
    for index, level in enumerate(keys.levels):
        section = f"levels.{index}.overrides"
        overrides = list(leaves(level.overrides))
        errors += repeated_keys(overrides, section, origins)
        values = dict(overrides)
        if level.shapes is not None:
            values.setdefault("data.root", str(Path(base.data.root) / slug_of(level.name)))
        places = {key: nearest_origin(f"{section}.{key}", origins) for key in values}
        try:
            own_base = with_values(base, values, origins=places)
        except InvalidConfig as error:
            errors += [located(one.origin, f"level {level.name}: {one.message}") for one in error.errors]
            continue
        arms, wrong = resolve_arms(written, own_base, origins, level.name)
        errors += [located(one.origin, f"level {level.name}: {one.message}") for one in wrong]
        errors += selection_errors(keys, own_base, origins)
        levels.append(
            Level(
                name=level.name,
                slug=slug_of(level.name),
                base=own_base,
                arms=tuple(arms),
                overrides=tuple(overrides),
                shapes=level.shapes,
                note=level.note,
            )
        )
    return levels, errors


def _test_split(test: SplitKeys | None, base: Config) -> tuple[str, str]:
    if test is None:
        return base.data.val_annotations, base.data.val_images
    return test.annotations, test.images
