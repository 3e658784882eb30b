"""A study file resolved: arms with whole configs, checked to be comparable; and back to one plain text."""

import itertools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.guards import Splits, flat, is_under, unfair_differences
from retinanet.ablation.study_file import Places, ShapesKeys, SplitKeys, StudyKeys, leaves, near_or_all, read_study_file
from retinanet.config.dump import dump_config
from retinanet.config.load import config_name, load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, list_errors

NOT_FOR_ARMS = ("seed", "output", "schedule.iterations", "schedule.epochs")
"""Keys that the study itself sets, the same for all arms."""


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
    """Everything that a study file says, resolved."""

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
        data = self.base.data
        return Splits(Path(data.root) / data.val_annotations, Path(data.root) / self.test[0])


class _ArmText(NamedTuple):
    """An arm as written, before its config is resolved."""

    name: str
    overrides: list[tuple[str, Any]]
    paper: dict[str, float]
    note: str
    path: str
    """Dotted path of the arm in the study file."""


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """The study of a file; `key=value` words in `overrides` change the base, `output=` the study's folder.

    Raises ConfigError naming every error with its file and line; OSError where the file cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"there is no study {path}; the studies that ship are in configs/ablations/")
    keys, places, errors = read_study_file(path)
    if keys is None:
        raise ConfigError(list_errors(f"cannot use the study {path}", errors))
    words = overrides or []
    outputs = [word.partition("=")[2].strip() for word in words if word.partition("=")[0].strip() == "output"]
    words = [word for word in words if word.partition("=")[0].strip() != "output"]
    base, errors = _resolve_base(keys, places, words)
    if base is None:
        raise ConfigError(list_errors(f"cannot use the study {path}", errors))
    written = _arm_texts(keys)
    arms, wrong = _resolve_arms(written, base, places)
    errors += wrong + _name_errors(keys, written, places) + _seed_errors(keys, base, places)
    values = tuple(sorted(set(keys.lr.values)))
    study = Study(
        title=keys.title or config_name(path),
        note=keys.note,
        reference=keys.reference,
        base=base,
        arms=tuple(arms),
        seeds=tuple(keys.seeds),
        lr_values=values,
        test=_test_split(keys.test, base),
        may_differ=tuple(keys.may_differ),
        jobs=keys.jobs,
        folder=Path((outputs[-1] if outputs else keys.output) or f"runs/ablations/{config_name(path)}"),
        shapes=keys.shapes,
    )
    if not wrong:
        errors += _fairness_errors(study, written, places)
    if errors:
        raise ConfigError(list_errors(f"cannot use the study {path}", list(dict.fromkeys(errors))))
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
    """A value in JSON, which the strict YAML reader takes."""
    return json.dumps(value, ensure_ascii=False)


def _word(key: str, value: Any) -> str:
    return f"{key}={_flow(value)}"


def _resolve_base(keys: StudyKeys, places: Places, words: list[str]) -> tuple[Config | None, list[str]]:
    """The config that all arms start from, or its errors."""
    written = leaves(keys.overrides)
    errors = _twice(written, "overrides", places)
    for word in words:
        if word.partition("=")[0].strip() in ("seed", "seeds"):
            errors.append(f"override {word!r}: the study sets the seeds; change `seeds` in {places.source}")
    words = [word for word in words if word.partition("=")[0].strip() not in ("seed", "seeds")]
    for key in ("seed", "output"):
        if any(name == key for name, _ in written):
            instead = "seeds" if key == "seed" else "output, at the top of the study"
            errors.append(f"{places.of(f'overrides.{key}')}: overrides.{key}: the study sets it; use {instead}")
    budget = [] if keys.budget is None else [(k, v) for k, v in keys.budget.model_dump().items() if v is not None]
    where = {_word(key, value): places.of(f"overrides.{key}") for key, value in written}
    where |= {_word(f"schedule.{key}", value): places.of(f"budget.{key}") for key, value in budget}
    try:
        if keys.base is None:
            return with_overrides(Config(), [*where, *words]), errors
        path = places.source.parent / keys.base
        if not path.is_file():
            return None, [*errors, f"{places.of('base')}: base: there is no config {path}"]
        return load_config(path, [*where, *words]), errors
    except ConfigError as error:
        return None, errors + _lines_of(error, where)


def _lines_of(error: ConfigError, where: dict[str, str], prefix: str = "") -> list[str]:
    """Errors of a config, one each, with `override 'key=value'` replaced by the line of the study."""
    text = str(error)
    for word, place in where.items():
        text = text.replace(f"override {word!r}: ", f"{place}: {prefix}")
    lines = [line.removeprefix("  - ") for line in text.splitlines()]
    return lines[1:] or lines


def _arm_texts(keys: StudyKeys) -> list[_ArmText]:
    """The arms as written, or those that a grid spans."""
    if keys.arms:
        return [
            _ArmText(arm.name, leaves(arm.overrides), {str(k): v for k, v in arm.paper.items()}, arm.note, f"arms.{i}")
            for i, arm in enumerate(keys.arms)
        ]
    arms = []
    for index, values in enumerate(itertools.product(*keys.grid.values())):
        overrides = list(zip(keys.grid, values, strict=True))
        name = ", ".join(f"{key.rpartition('.')[2]} {_plain(value)}" for key, value in overrides)
        paper = keys.paper[index] if index < len(keys.paper) else None
        arms.append(_ArmText(name, overrides, {} if paper is None else {"AP": paper}, "", "grid"))
    return arms


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _flow(value)


def _resolve_arms(written: list[_ArmText], base: Config, places: Places) -> tuple[list[Arm], list[str]]:
    arms: list[Arm] = []
    errors: list[str] = []
    for arm in written:
        section = "grid" if arm.path == "grid" else f"{arm.path}.overrides"
        errors += _twice(arm.overrides, section, places)
        where = {_word(key, value): places.of(f"{section}.{key}") for key, value in arm.overrides}
        try:
            config = with_overrides(base, list(where))
        except ConfigError as error:
            errors += _lines_of(error, where, f"arm {arm.name}: ")
            continue
        arms.append(Arm(arm.name, slug_of(arm.name), config, tuple(arm.overrides), arm.paper, arm.note))
    return arms, errors


def _twice(overrides: list[tuple[str, Any]], section: str, places: Places) -> list[str]:
    names = [key for key, _ in overrides]
    return [
        f"{places.of(f'{section}.{key}')}: {section}.{key}: given twice, nested and with dots: keep one"
        for key in dict.fromkeys(names)
        if names.count(key) > 1
    ]


def _name_errors(keys: StudyKeys, written: list[_ArmText], places: Places) -> list[str]:
    errors = []
    names: dict[str, str] = {}
    for arm in written:
        slug = slug_of(arm.name).lower()
        if slug in names:
            errors.append(
                f"{places.of(arm.path + '.name')}: arm {arm.name}: "
                + (
                    "the name is given twice"
                    if arm.name == names[slug]
                    else f"its files would be those of arm {names[slug]}"
                )
                + "; give it another one"
            )
        names.setdefault(slug, arm.name)
    known = [arm.name for arm in written]
    if keys.reference not in known:
        place = places.of("reference")
        errors.append(f"{place}: reference: no arm {keys.reference!r}; {near_or_all(keys.reference, known)}")
    if keys.grid and keys.paper and len(keys.paper) != len(written):
        place = places.of("paper")
        errors.append(f"{place}: paper: the grid has {len(written)} combinations, got {len(keys.paper)} values")
    return errors


def _seed_errors(keys: StudyKeys, base: Config, places: Places) -> list[str]:
    """Keys that would give arms another length, or choose on the test split."""
    errors = []
    if base.schedule.early_stop is not None:
        errors.append(
            f"{places.of('overrides.schedule.early_stop')}: schedule.early_stop is {base.schedule.early_stop}: arms "
            "would get different numbers of steps; set `schedule.early_stop: null` under overrides"
        )
    if keys.lr.rule == "grid":
        if keys.test is None:
            errors.append(
                f"{places.of('lr')}: lr: rule grid chooses on data.val_annotations, so it needs a `test` split with "
                "other images: give test: {annotations: ..., images: ...}"
            )
        elif (
            Path(base.data.root, base.data.val_annotations).resolve()
            == Path(base.data.root, keys.test.annotations).resolve()
        ):
            errors.append(
                f"{places.of('test.annotations')}: test.annotations: is data.val_annotations, on which rule grid "
                "chooses; give another file"
            )
    return errors


def _test_split(test: SplitKeys | None, base: Config) -> tuple[str, str]:
    if test is None:
        return base.data.val_annotations, base.data.val_images
    return test.annotations, test.images


def _fairness_errors(study: Study, written: list[_ArmText], places: Places) -> list[str]:
    """Arms that differ in what the study does not name."""
    paths = {arm.name: arm.path for arm in written}
    fixed = (*NOT_FOR_ARMS, "schedule.lr") if study.lr_values else NOT_FOR_ARMS
    errors = []
    for arm in study.arms:
        section = "grid" if paths[arm.name] == "grid" else f"{paths[arm.name]}.overrides"
        for key, _ in arm.overrides:
            if key in fixed:
                instead = "lr" if key == "schedule.lr" else "seeds" if key == "seed" else "budget"
                place = places.of(f"{section}.{key}")
                errors.append(f"{place}: arm {arm.name}: {key} is the same for all arms; see `{instead}` of the study")
    everything = [key for arm in study.arms for key in flat(arm.config)]
    for index, prefix in enumerate(study.may_differ):
        if not any(is_under(key, (prefix,)) for key in everything):
            place = places.of(f"may_differ.{index}")
            errors.append(
                f"{place}: may_differ: no config key {prefix}; {near_or_all(prefix, sorted(set(everything)))}"
            )
    references = [arm.config for arm in study.arms if arm.name == study.reference]
    for arm in study.arms if references else ():
        keys = [key for key in unfair_differences(references[0], arm.config, study.may_differ) if key not in fixed]
        if keys:
            errors.append(
                f"{places.of(paths[arm.name])}: arm {arm.name} differs from {study.reference} in {', '.join(keys)}: "
                "name what the study is about under may_differ, or set it for all arms"
            )
    return errors
