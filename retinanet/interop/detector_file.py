"""The trained detector that config `model.weights` names: this project's, another project's, or torchvision's download.

A foreign file is converted as `retinanet convert` does, with the recipe of its format.
"""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torchvision.models import WeightsEnum
from torchvision.models.detection import RetinaNet_ResNet50_FPN_V2_Weights, RetinaNet_ResNet50_FPN_Weights

from retinanet.config.class_losses import is_own_kind, kind_of
from retinanet.config.flat import flat
from retinanet.config.model_keys import ModelKeys
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, list_errors
from retinanet.interop.backbone_file import fetch_published
from retinanet.interop.classes import NOT_A_CLASS, coco_categories
from retinanet.interop.convert import NO_OPTIONS, convert_foreign
from retinanet.interop.formats import detect_format
from retinanet.interop.weights_file import WeightsFile, not_finite, read_weights
from retinanet.run.checkpoint import Checkpoint
from retinanet.run.nearest import nearest_checkpoints
from retinanet.run.published import open_checkpoint
from retinanet.structures import Category

PUBLISHED: dict[str, WeightsEnum] = {
    "torchvision_v1_coco": RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    "torchvision_v2_coco": RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
}
"""Detectors that torchvision publishes, by the name that config `model.weights` takes."""


ARCHITECTURES = {
    "roi_head": "a two-stage detector such as Faster R-CNN",
    "ctrness": "an FCOS or ATSS",
    "centerness": "an FCOS or ATSS",
    "transformer.": "a detector of the DETR family",
    "model.22.": "a YOLO of ultralytics",
    "classification_head.module_list.": "an SSD",
}
"""Part of a tensor's name -> architecture that it shows."""


class TrainedDetector(NamedTuple):
    """A trained detector to start from."""

    source: str
    """As config `model.weights` names it."""
    description: str
    """What it is, for the user."""
    model: ModelKeys
    """Its own config `model`, every key of it."""
    is_softmax: bool
    """Whether its class head has a last output for the background."""
    categories: tuple[Category | None, ...]
    """Of the outputs of its class head; None for one without a name."""
    weights: dict[str, Tensor]
    """This project's state dict, on the CPU."""
    notes: tuple[str, ...]
    """What the user should know of it."""


def read_detector(keys: ModelKeys) -> TrainedDetector:
    """The detector that `keys.weights` names. Raises CheckpointError, with the cause and the remedy, if there is none.

    Anchors that are set in `keys` are taken for a foreign file's own, because such a file does not hold them.
    """
    source = str(keys.weights)
    path = _locate(source)
    file = read_weights(path)
    if file.is_ours:
        return _own(source, open_checkpoint(path))
    name = detect_format(file.tensors)
    if name is None:
        raise CheckpointError(_describe_other(source, file))
    anchors = keys.anchors.model_dump(exclude_unset=True)
    if keys.fpn.finest == "p2" and "sizes" in anchors:
        anchors["sizes"] = anchors["sizes"][1:]  # other projects' files have P3 to P7
    given = flat({"model": {"anchors": anchors}})
    words = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    checkpoint, lines = convert_foreign(name, path, file, NO_OPTIONS._replace(overrides=words))
    notes = [line for line in lines if line.startswith(("names:", "weights:", "batch norms:"))]
    if source not in PUBLISHED and (guess := coco_by_count(checkpoint, lines)):
        notes.append(guess)
    return _detector(source, checkpoint, f"file in the format {name}", notes)


def coco_by_count(saved: Checkpoint, lines: Sequence[str]) -> str:
    """A note where a conversion took the classes of a file without names for COCO's; else empty."""
    if any("named by the weights file" in line for line in lines):
        return ""
    if not any(category in coco_categories() for category in saved.categories):
        return ""
    return f"its {len(saved.categories)} outputs are taken for COCO's classes, as that number suggests"


def fetch_detector(name: str) -> Checkpoint:
    """The detector of COCO's 80 classes that torchvision publishes under a name in PUBLISHED, to detect with as it is.

    Raises CheckpointError where it cannot be downloaded.
    """
    path = fetch_published(PUBLISHED[name], name, "torchvision's detector", "give a file")
    file = read_weights(path)
    form = detect_format(file.tensors)
    assert form is not None
    return convert_foreign(form, path, file, NO_OPTIONS._replace(coco_only=True))[0]


def _locate(source: str) -> Path:
    if source in PUBLISHED:
        remedy = "set model.weights to a file"
        return fetch_published(PUBLISHED[source], "model.weights", "torchvision's detector", remedy)
    path = Path(source)
    if not path.exists():
        near = difflib.get_close_matches(source, PUBLISHED, n=1)
        meant = f" Did you mean {near[0]}?" if near and not path.suffix else ""
        near_files = nearest_checkpoints(path) if path.suffix or len(path.parts) > 1 else []
        meant = meant or (f" The nearest is {near_files[0]}." if near_files else "")
        raise CheckpointError(
            f"model.weights: no file {source}.{meant} Give a detector's checkpoint (.pt, .pth, .pkl or .safetensors) "
            f"or one of {', '.join(PUBLISHED)}."
        )
    return path


def _own(source: str, saved: Checkpoint) -> TrainedDetector:
    errors = not_finite(saved.weights())
    if errors:
        raise CheckpointError(list_errors(f"{source}: its weights cannot be used", errors))
    average = ", the moving average of its weights" if saved.average else ""
    what = f"of step {saved.progress.step:,}{average}" if saved.progress.step else "converted by retinanet convert"
    return _detector(source, saved, f"checkpoint of this project {what}", [])


def _detector(source: str, saved: Checkpoint, description: str, notes: list[str]) -> TrainedDetector:
    return TrainedDetector(
        source=source,
        description=description,
        model=saved.config.model,
        is_softmax=softmax_head(saved.config),
        categories=tuple(None if is_unnamed(category, saved) else category for category in saved.categories),
        weights=saved.weights(),
        notes=tuple(notes),
    )


def softmax_head(config: Config) -> bool:
    """Whether the class loss asks for a head with a last output for the background."""
    kind = str(kind_of(config.loss.classification))
    return kind.startswith("softmax") and not is_own_kind(kind)


def is_unnamed(category: Category, saved: Checkpoint) -> bool:
    """Whether the conversion of a foreign file numbered this output, or it is none of a class."""
    numbered = saved.progress.step == 0 and re.fullmatch(r"class \d+", category.name) is not None
    return numbered or category.name in NOT_A_CLASS


def _describe_other(source: str, file: WeightsFile) -> str:
    kind, shown = content_of(file), first_tensors(file)
    match kind:
        case "a state dict of this project without its config and classes":
            return f"{source}: {kind}; give the checkpoint that it was taken from, such as a run's checkpoints/best.pt."
        case "a backbone alone":
            return (
                f"{source}: {kind}, not a detector. {shown}. Give it as model.backbone.weights={source} and "
                "leave out model.weights."
            )
        case "a RetinaNet whose class output is missing":
            return (
                f"{source}: {kind}. {shown}. Give the file as it was saved: outputs of classes that the data "
                "set does not have start anew anyhow."
            )
    return (
        f"{source}: {kind}, not a RetinaNet of this project, torchvision, detectron2 or mmdetection. {shown}. "
        f"Another architecture cannot be loaded; its backbone may be, with model.backbone.weights={source}."
    )


def first_tensors(file: WeightsFile) -> str:
    """How many tensors a file holds, and the first names."""
    names = list(file.tensors)
    return f"It holds {len(names)} tensors: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def content_of(file: WeightsFile) -> str:
    """What a file of weights holds that is no whole RetinaNet, in words."""
    names = list(file.tensors)
    if any(name.startswith(("backbone.stages.", "class_head.")) for name in names):
        return "a state dict of this project without its config and classes"
    if {"conv1.weight", "layer1.0.conv1.weight"} <= file.tensors.keys() or any(
        name.startswith(("features.0.", "0.0.", "conv1_w", "stem.")) for name in names
    ):
        return "a backbone alone"
    kind = next((text for mark, text in ARCHITECTURES.items() if any(mark in name for name in names)), "")
    if not kind and any(mark in name for name in names for mark in ("classification_head", "cls_subnet", "retina_reg")):
        return "a RetinaNet whose class output is missing"
    return kind or "something else"
