"""Start a training from a trained detector: the config that it brings, and its weights in a new network.

Legend: C anchors per cell, O outputs of the class head per anchor.
"""

from typing import NamedTuple

from pydantic import ValidationError
from torch import Tensor, nn

from retinanet.config.flat import flat
from retinanet.config.model_keys import LEVELS, ModelKeys, complete_model
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, list_errors
from retinanet.interop.detector_file import TrainedDetector, read_detector, softmax_head
from retinanet.interop.naming import RETINANET
from retinanet.interop.state_dicts import COUNTER
from retinanet.interop.torchvision_out import FREE
from retinanet.run.checkpoint import load_weights
from retinanet.structures import Category

PARTS = {"backbone": "backbone.", "fpn": "fpn.", "class subnet": "class_head.tower.", "box subnet": "box_head."}
"""Rows of the table -> beginning of the names of their tensors."""

OUTPUT = (f"{RETINANET.class_predict}.weight", f"{RETINANET.class_predict}.bias")

FINER_LEVEL = "fpn.p2."
"""Beginning of the names of P2's tensors, which start anew on a detector without it."""

COUNTED = ("anchors.scales", "anchors.aspect_ratios")
"""Keys of `model` whose values may differ from the detector's, but not their number."""

MOST_NAMES = 12


class PartReport(NamedTuple):
    """A row of the table: what became of one part of the network."""

    part: str
    tensors: str
    """How many were loaded."""
    outcome: str


class Start(NamedTuple):
    """A detector fitted to the classes of a data set."""

    source: str
    """As config `model.weights` names the detector."""
    weights: dict[str, Tensor]
    """Of the detector, by this project's names."""
    outputs: tuple[int | None, ...]
    """For each output of an anchor in the new class head, the detector's; None: it starts from the prior."""
    detector_outputs: int
    report: tuple[PartReport, ...]
    notes: tuple[str, ...]


def resolve_model(config: Config) -> tuple[Config, TrainedDetector | None]:
    """The config with the section `model` of the detector that `model.weights` names, and that detector.

    Keys of `model` that are set stay; those that contradict the detector are refused together in a ConfigError. Without
    `model.weights` the config is returned as it is. Raises CheckpointError for a detector that cannot be read.
    """
    keys = config.model
    if keys.weights is None:
        return config, None
    detector = read_detector(keys)
    errors, words = _contradictions(keys, detector.model)
    if errors:
        title = f"model: these keys contradict the detector of model.weights={detector.source}"
        remedy = "Leave them out of the config, or give the detector's values:"
        raise ConfigError("\n".join([list_errors(title, errors), remedy, f"  {' '.join(words)}"]))
    # A memory order suits a machine, not the detector that was trained on it.
    changed = {"weights": keys.weights, "frozen": keys.frozen, "channels_last": keys.channels_last}
    own = detector.model.model_copy(update=changed)
    return config.model_copy(update={"model": complete_model(keys, own)}), detector


def continue_model(config: Config, saved: Config) -> Config:
    """The config of a run to continue with the section `model` that the run resolved, as far as it is not set.

    That is its memory order and, for runs that started from a detector, whose file may be gone since then, all keys.
    """
    if config.model.channels_last == "auto":
        chosen = config.model.model_copy(update={"channels_last": saved.model.channels_last})
        config = config.model_copy(update={"model": chosen})
    if saved.model.weights is None:
        return config
    try:
        return config.model_copy(update={"model": complete_model(config.model, saved.model)})
    except ValidationError:
        return config  # the differences will be listed


def _contradictions(given: ModelKeys, detector: ModelKeys) -> tuple[list[str], list[str]]:
    """Keys set in `given` with which the detector's weights would compute something else, and its values as words."""
    own = flat(detector.model_dump())
    errors, words = [], []
    for key, value in flat(given.model_dump(exclude_unset=True)).items():
        theirs = own[key]
        if key == "backbone.norm":
            fits = (value == "gn") == (theirs == "gn")
        elif key == "head.channels":
            pyramid = given.fpn.channels if "channels" in given.fpn.model_fields_set else detector.fpn.channels
            fits = (value or pyramid) == (theirs or detector.fpn.channels)
        elif key == "fpn.finest":
            fits = value in (theirs, "p2")
        elif key == "anchors.sizes":
            finest = given.fpn.finest if "finest" in given.fpn.model_fields_set else detector.fpn.finest
            fits = len(value) == LEVELS[finest]
        elif key in COUNTED:
            fits = len(value) == len(theirs)
        else:
            fits = value == theirs or key in FREE
        if not fits:
            remark = ": another number of anchors per cell" if key in COUNTED else ""
            errors.append(f"model.{key}: {_shown(theirs)} in the detector, {_shown(value)} in the config{remark}")
            words.append(f"model.{key}={_shown(theirs)}")
    return errors, words


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_shown, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def fit_detector(detector: TrainedDetector, config: Config, categories: tuple[Category, ...]) -> Start:
    """What a network of the resolved config for `categories` takes from the detector. Pure.

    Raises ConfigError for a frozen class subnet with outputs that start anew.
    """
    is_softmax = softmax_head(config)
    same_kind = is_softmax == detector.is_softmax
    outputs, by_name = match_classes(detector.categories, categories) if same_kind else ([None] * len(categories), [])
    new = [category.name for category, output in zip(categories, outputs, strict=True) if output is None]
    if new and "class_head" in config.model.frozen:
        raise ConfigError(
            f"model.frozen: class_head, but {len(new)} of its {len(categories)} classes are not in "
            f"{detector.source} and would stay untrained ({_listed(new)}); leave class_head out of model.frozen."
        )
    new_level = config.model.fpn.finest != detector.model.fpn.finest
    if new_level and "fpn" in config.model.frozen:
        raise ConfigError(
            f"model.frozen: fpn, but its level P2 is not in {detector.source} and would stay untrained; leave fpn out "
            "of model.frozen."
        )
    loaded = [category.name for category in categories if category.name not in new]
    background = [len(detector.categories)] if same_kind else [None]
    notes = list(detector.notes)
    if by_name:
        notes.append(f"matched by name, with another id or spelling: {_listed(by_name)}")
    if not same_kind:
        kinds = ("a softmax", "sigmoids") if detector.is_softmax else ("sigmoids", "a softmax")
        notes.append(f"the detector's class scores are {kinds[0]}, those of loss.classification {kinds[1]}")
    unnamed = sum(category is None for category in detector.categories)
    if new and unnamed and not any(detector.categories):
        notes.append(
            f"its {unnamed} classes have no names, so none was matched; retinanet convert --classes names them"
        )
    return Start(
        source=detector.source,
        weights=detector.weights,
        outputs=(*outputs, *background) if is_softmax else tuple(outputs),
        detector_outputs=len(detector.categories) + detector.is_softmax,
        report=(
            PartReport("detector", "", detector.description),
            *_loaded_parts(detector.weights),
            *[PartReport("level P2", "", "new, from random weights")] * new_level,
            PartReport("class output", f"{len(loaded)} of {len(categories)} classes", _output_text(loaded, new)),
            *_anchor_rows(config.model, detector.model),
        ),
        notes=tuple(notes),
    )


def _loaded_parts(weights: dict[str, Tensor]) -> list[PartReport]:
    rows = []
    for part, prefix in PARTS.items():
        names = [name for name in weights if name.startswith(prefix) and not name.endswith(COUNTER)]
        rows += [PartReport(part, f"{len(names)} tensors", "loaded")] * bool(names)
    return rows


def _output_text(loaded: list[str], new: list[str]) -> str:
    parts = [f"loaded: {_listed(loaded)}"] * bool(loaded) + [f"new, from the prior: {_listed(new)}"] * bool(new)
    return "; ".join(parts)


def _anchor_rows(config: ModelKeys, detector: ModelKeys) -> list[PartReport]:
    ours, theirs = flat(config.anchors.model_dump()), flat(detector.anchors.model_dump())
    return [
        PartReport("anchors", key, f"{_shown(value)} instead of the detector's {_shown(theirs[key])}")
        for key, value in ours.items()
        if value != theirs[key]
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def match_classes(
    known: tuple[Category | None, ...], wanted: tuple[Category, ...]
) -> tuple[list[int | None], list[str]]:
    """For each wanted class the output that detects it already, or None; and the names matched without their id.

    Name and id match, or else the name alone (up to case and spaces) if each side has it once.
    """
    exact = {category: output for output, category in enumerate(known) if category is not None}
    outputs = [exact.get(category) for category in wanted]
    names = [None if category is None else _key(category.name) for category in known]
    wanted_names = [_key(category.name) for category in wanted]
    by_name = []
    for index, name in enumerate(wanted_names):
        if outputs[index] is None and names.count(name) == 1 and wanted_names.count(name) == 1:
            outputs[index] = names.index(name)
            by_name.append(wanted[index].name)
    return outputs, by_name


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def load_start(model: nn.Module, start: Start) -> None:
    """Copy the detector's weights into a new network of the resolved config, in place.

    Outputs of classes that the detector does not have keep their initial weights, and so does P2.
    """
    own = model.state_dict()
    state = {name: value for name, value in start.weights.items() if name in own}
    for name in OUTPUT:
        per_cell = own[name].shape[0] // len(start.outputs)
        new_CO = own[name].clone().unflatten(0, (per_cell, len(start.outputs)))
        old_CO = start.weights[name].unflatten(0, (per_cell, start.detector_outputs))
        for index, output in enumerate(start.outputs):
            if output is not None:
                new_CO[:, index] = old_CO[:, output]
        state[name] = new_CO.flatten(0, 1)
    kept = {name: value for name, value in own.items() if name.endswith(COUNTER) or name.startswith(FINER_LEVEL)}
    load_weights(model, kept | state, start.source)
