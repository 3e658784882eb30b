"""A study file resolved: arms with whole configs, checked to be comparable; and back to one plain text."""

import itertools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.guards import Splits, is_under, unfair_differences
from retinanet.ablation.study_file import ShapesKeys, SplitKeys, StudyKeys, read_study_file
from retinanet.config.auto import has_auto
from retinanet.config.dump import dump_config
from retinanet.config.faults import suggest_name
from retinanet.config.flat import flat, leaves
from retinanet.config.load import config_name, config_to_dict, load_config, with_values
from retinanet.config.origins import InvalidConfig, LocatedError, Origin, located, nearest_origin, raise_located
from retinanet.config.schema import Config
from retinanet.errors import ConfigError

NOT_FOR_ARMS = ("seed", "output", "schedule.iterations", "schedule.epochs")
"""Keys that the study itself sets, the same for all arms."""

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

    def splits(self) -> Splits:
        """The annotation files of both splits."""
        data = self.base.data
        return Splits(Path(data.root) / data.val_annotations, Path(data.root) / self.test[0])


class _WrittenArm(NamedTuple):
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


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """The study of a file; `key=value` words in `overrides` change the base, `output=` the study's folder.

    Raises ConfigError naming every error with its file and line; OSError if the file cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"there is no study {path}; the studies that ship are in configs/ablations/")
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
    written = _written_arms(keys)
    arms, wrong = _resolve_arms(written, base, origins)
    errors += wrong + _name_errors(keys, written, origins) + _selection_errors(keys, base, origins)
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
    )
    if not wrong:
        errors += _fairness_errors(study, written, origins)
    raise_located(errors, title)
    return study


def study_text(study: Study) -> str:
    """The study as one self-contained file that loads back to an equal study."""
    base = [line for line in dump_config(study.base).splitlines() if not line.startswith(("seed:", "output:"))]
    rule = {"rule": "grid", "values": study.lr_values} if study.lr_values else {"rule": "same"}
    lines = [
        f"title: {_flow(study.title)}",
        f"note: {_flow(study.note)}",
        f"reference: {_flow(study.reference)}",
        f"seeds: {_flow(study.seeds)}",
        f"lr: {_flow(rule)}",
        f"test: {_flow({'annotations': study.test[0], 'images': study.test[1]})}",
        f"may_differ: {_flow(study.may_differ)}",
        f"jobs: {study.jobs}",
        f"output: {_flow(str(study.folder))}",
        *([] if study.shapes is None else [f"shapes: {_flow(study.shapes.model_dump())}"]),
        "arms:",
    ]
    for arm in study.arms:
        lines += [
            f"  - name: {_flow(arm.name)}",
            f"    overrides: {_flow(dict(arm.overrides))}",
            f"    paper: {_flow(arm.paper)}",
            f"    note: {_flow(arm.note)}",
        ]
    return "\n".join([*lines, "overrides:", *(f"  {line}" for line in base)]) + "\n"


def slug_of(name: str) -> str:
    """A name as a file name on any system: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "arm"


def override_lines(overrides: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    """`key.path: value` of each override."""
    return tuple(f"{key}: {value if isinstance(value, str) else _flow(value)}" for key, value in overrides)


def _flow(value: Any) -> str:
    """A value in JSON, which the strict YAML reader accepts."""
    return json.dumps(value, ensure_ascii=False)


def _resolve_base(
    file: Path, keys: StudyKeys, origins: Origins, words: list[str]
) -> tuple[Config | None, list[LocatedError]]:
    """The config that all arms start from (None if it has errors of its own), and the errors."""
    written = list(leaves(keys.overrides))
    errors = _repeated_keys(written, "overrides", origins)
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


def _written_arms(keys: StudyKeys) -> list[_WrittenArm]:
    """The arms as written, or those that a grid spans."""
    if keys.arms:
        return [
            _WrittenArm(
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
        arms.append(_WrittenArm(name=name, overrides=overrides, paper=paper_numbers, note="", path="grid"))
    return arms


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _flow(value)


def _resolve_arms(written: list[_WrittenArm], base: Config, origins: Origins) -> tuple[list[Arm], list[LocatedError]]:
    arms: list[Arm] = []
    errors: list[LocatedError] = []
    for arm in written:
        errors += _repeated_keys(arm.overrides, arm.section(), origins)
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
            )
        )
    return arms, errors


def _repeated_keys(overrides: list[tuple[str, Any]], section: str, origins: Origins) -> list[LocatedError]:
    names = [key for key, _ in overrides]
    return [
        located(
            nearest_origin(f"{section}.{key}", origins),
            f"{section}.{key}: given twice, nested and with dots: keep one",
        )
        for key in dict.fromkeys(names)
        if names.count(key) > 1
    ]


def _name_errors(keys: StudyKeys, written: list[_WrittenArm], origins: Origins) -> list[LocatedError]:
    """Arms that would share their files, a reference that is no arm, and a paper's numbers that do not fit a grid."""
    errors = []
    names: dict[str, str] = {}
    for arm in written:
        slug = slug_of(arm.name).lower()
        if slug in names:
            first = names[slug]
            why = "the name is given twice" if arm.name == first else f"its files would be those of arm {first}"
            place = nearest_origin(f"{arm.path}.name", origins)
            errors.append(located(place, f"arm {arm.name}: {why}; give it another name"))
        names.setdefault(slug, arm.name)
    known = [arm.name for arm in written]
    if keys.reference not in known:
        message = f"reference: no arm {keys.reference!r}; {suggest_name(keys.reference, known)}"
        errors.append(located(nearest_origin("reference", origins), message))
    if keys.grid and keys.paper and len(keys.paper) != len(written):
        message = f"paper: the grid has {len(written)} combinations, got {len(keys.paper)} values"
        errors.append(located(nearest_origin("paper", origins), message))
    return errors


def _selection_errors(keys: StudyKeys, base: Config, origins: Origins) -> list[LocatedError]:
    """Keys that would give arms different lengths, or select on the test split."""
    errors = []
    if automatic := has_auto(base):
        message = (
            f"{', '.join(automatic)}: `auto` in the base; a study compares arms at a length that is written down: give "
            "numbers under overrides"
        )
        errors.append(located(nearest_origin("overrides", origins), message))
    if base.schedule.early_stop is not None:
        message = (
            f"schedule.early_stop is {base.schedule.early_stop}: arms would get different numbers of steps; set "
            "`schedule.early_stop: null` under overrides"
        )
        errors.append(located(nearest_origin("overrides.schedule.early_stop", origins), message))
    if keys.lr.rule == "grid":
        root, selection = Path(base.data.root), base.data.val_annotations
        if keys.test is None:
            message = (
                "lr: rule grid selects on data.val_annotations, so it needs a `test` split with other images: give "
                "test: {annotations: ..., images: ...}"
            )
            errors.append(located(nearest_origin("lr", origins), message))
        elif (root / selection).resolve() == (root / keys.test.annotations).resolve():
            message = "test.annotations: is data.val_annotations, on which rule grid selects; give another file"
            errors.append(located(nearest_origin("test.annotations", origins), message))
    return errors


def _test_split(test: SplitKeys | None, base: Config) -> tuple[str, str]:
    if test is None:
        return base.data.val_annotations, base.data.val_images
    return test.annotations, test.images


def _fairness_errors(study: Study, written: list[_WrittenArm], origins: Origins) -> list[LocatedError]:
    """Arms that differ in settings that the study does not name."""
    arms = {arm.name: arm for arm in written}
    fixed = (*NOT_FOR_ARMS, "schedule.lr") if study.lr_values else NOT_FOR_ARMS
    errors = []
    for arm in study.arms:
        for key, _ in arm.overrides:
            if key in fixed:
                instead = "lr" if key == "schedule.lr" else "seeds" if key == "seed" else "budget"
                place = nearest_origin(f"{arms[arm.name].section()}.{key}", origins)
                message = f"arm {arm.name}: {key} is the same for all arms; see `{instead}` of the study"
                errors.append(located(place, message))
    everything = sorted({key for arm in study.arms for key in flat(config_to_dict(arm.config))})
    for index, prefix in enumerate(study.may_differ):
        if not any(is_under(key, (prefix,)) for key in everything):
            message = f"may_differ: no config key {prefix}; {suggest_name(prefix, everything)}"
            errors.append(located(nearest_origin(f"may_differ.{index}", origins), message))
    references = [arm.config for arm in study.arms if arm.name == study.reference]
    for arm in study.arms if references else ():
        keys = [key for key in unfair_differences(references[0], arm.config, study.may_differ) if key not in fixed]
        if keys:
            message = (
                f"arm {arm.name} differs from {study.reference} in {', '.join(keys)}: name what the study is about "
                "under may_differ, or set it for all arms"
            )
            errors.append(located(nearest_origin(arms[arm.name].path, origins), message))
    return errors
