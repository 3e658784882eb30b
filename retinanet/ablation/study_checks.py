"""Errors of a study file that its keys alone do not show: names, splits, and arms that cannot be compared."""

from pathlib import Path

from retinanet.ablation.arms import Arm, Origins, WrittenArm, slug_of
from retinanet.ablation.guards import is_under, unfair_differences
from retinanet.ablation.study_file import StudyKeys
from retinanet.config.auto import has_auto
from retinanet.config.flat import flat
from retinanet.config.load import config_to_dict
from retinanet.config.origins import LocatedError, located, nearest_origin
from retinanet.config.schema import Config
from retinanet.config.suggestions import suggest_name

NOT_FOR_ARMS = ("seed", "output", "schedule.iterations", "schedule.epochs")
"""Keys that the study itself sets, the same for all arms."""


def name_errors(keys: StudyKeys, written: list[WrittenArm], origins: Origins) -> list[LocatedError]:
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


def selection_errors(keys: StudyKeys, base: Config, origins: Origins) -> list[LocatedError]:
    """Keys that would give arms different lengths, or select on the test split."""
    errors = []
    if base.data.source is not None:
        message = "data.source: a study compares arms on files that are written down: give data.root and the four paths"
        errors.append(located(nearest_origin("overrides", origins), message))
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


def fairness_errors(
    keys: StudyKeys, arms: list[Arm], written: list[WrittenArm], origins: Origins
) -> list[LocatedError]:
    """Arms that differ in settings that the study does not name."""
    texts = {arm.name: arm for arm in written}
    fixed = (*NOT_FOR_ARMS, "schedule.lr") if keys.lr.values else NOT_FOR_ARMS
    errors = []
    for arm in arms:
        for key, _ in arm.overrides:
            if key in fixed:
                instead = "lr" if key == "schedule.lr" else "seeds" if key == "seed" else "budget"
                place = nearest_origin(f"{texts[arm.name].section()}.{key}", origins)
                message = f"arm {arm.name}: {key} is the same for all arms; see `{instead}` of the study"
                errors.append(located(place, message))
    everything = sorted({key for arm in arms for key in flat(config_to_dict(arm.config))})
    for index, prefix in enumerate(keys.may_differ):
        if not any(is_under(key, (prefix,)) for key in everything):
            message = f"may_differ: no config key {prefix}; {suggest_name(prefix, everything)}"
            errors.append(located(nearest_origin(f"may_differ.{index}", origins), message))
    references = [arm.config for arm in arms if arm.name == keys.reference]
    for arm in arms if references else ():
        unfair = unfair_differences(references[0], arm.config, tuple(keys.may_differ))
        if differing := [key for key in unfair if key not in fixed]:
            message = (
                f"arm {arm.name} differs from {keys.reference} in {', '.join(differing)}: name what the study is about "
                "under may_differ, or set it for all arms"
            )
            errors.append(located(nearest_origin(texts[arm.name].path, origins), message))
    return errors


def level_errors(keys: StudyKeys, written: list[WrittenArm], origins: Origins) -> list[LocatedError]:
    """Levels that would share their files, or that set what the study sets."""
    errors = []
    names: dict[str, str] = {}
    for index, level in enumerate(keys.levels):
        slug = slug_of(level.name).lower()
        if slug in names:
            first = names[slug]
            why = "the name is given twice" if level.name == first else f"its files would be those of level {first}"
            place = nearest_origin(f"levels.{index}.name", origins)
            errors.append(located(place, f"level {level.name}: {why}; give it another name"))
        names.setdefault(slug, level.name)
        for key, instead in (("seed", "seeds"), ("output", "output")):
            if key in level.overrides:
                place = nearest_origin(f"levels.{index}.overrides.{key}", origins)
                errors.append(located(place, f"level {level.name}: {key}: the study sets it; use its `{instead}`"))
    files = [f"{slug_of(level.name)}-{slug_of(arm.name)}".lower() for level in keys.levels for arm in written]
    if both := sorted({name for name in files if files.count(name) > 1} if len(names) == len(keys.levels) else ()):
        message = f"levels: two pairs of level and arm would share the files of {', '.join(both)}; rename a level"
        errors.append(located(nearest_origin("levels", origins), message))
    return errors


def comparison_errors(keys: StudyKeys, written: list[WrittenArm], origins: Origins) -> list[LocatedError]:
    """A primary comparison of what the study does not have, and a grid that is tried with seeds of the results."""
    errors = []
    if both := sorted(set(keys.lr.seeds or []) & set(keys.seeds)):
        message = (
            f"lr.seeds: {', '.join(map(str, both))} {'are' if len(both) > 1 else 'is'} among `seeds` too: a rate that "
            "was chosen with a seed is partly fitted to it; give other seeds"
        )
        errors.append(located(nearest_origin("lr.seeds", origins), message))
    primary = keys.primary
    if primary is None:
        return errors
    known = [arm.name for arm in written]
    if primary.arm not in known or primary.arm == keys.reference:
        others = [name for name in known if name != keys.reference]
        message = (
            f"primary.arm: {primary.arm!r} is no arm other than the reference; {suggest_name(primary.arm, others)}"
        )
        errors.append(located(nearest_origin("primary.arm", origins), message))
    if primary.against != keys.reference:
        message = (
            f"primary.against: {primary.against!r} is not the reference, {keys.reference}; arms are compared with it"
        )
        errors.append(located(nearest_origin("primary.against", origins), message))
    levels = [level.name for level in keys.levels]
    if primary.level is not None and primary.level not in levels:
        message = f"primary.level: no level {primary.level!r}; {suggest_name(primary.level, levels)}"
        errors.append(located(nearest_origin("primary.level", origins), message))
    return errors
