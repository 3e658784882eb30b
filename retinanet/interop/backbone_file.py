"""Backbone weights that config `model.backbone.weights` names: a file, torchvision's download, or a whole detector."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from retinanet.errors import CheckpointError
from retinanet.interop.formats import FORMATS, detect_format
from retinanet.interop.layout import infer
from retinanet.interop.naming import TORCHVISION, name_map, translate
from retinanet.interop.state_dicts import with_current_names
from retinanet.interop.weights_file import WeightsFile, read_weights
from retinanet.model.backbone import ARCHITECTURES, InitialWeights, published_stage_names
from retinanet.run.published import open_checkpoint

FIRST = ("layer1.0.conv1.weight", "features.0.0.weight")
"""Names by which torchvision's ResNets and MobileNets are recognised."""

BODY = "backbone.body."
"""Where torchvision's detector has its ResNet."""


def read_backbone_weights(name: str, weights: str) -> InitialWeights | None:
    """Read the weights that config `model.backbone` names, to be handed to `build_loss_and_model`.

    name: config `model.backbone.name`. weights: config `model.backbone.weights`: `imagenet` (torchvision's file, from
    torch's cache or downloaded into it), `none` (which gives None), or a file for `read_weights`, of which a whole
    detector gives its backbone.
    Raises CheckpointError for weights that cannot be read or downloaded.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        remedy = "set model.backbone.weights to a file of weights, or to `none` to train from scratch"
        path = fetch_published(
            ARCHITECTURES[name].weights, "model.backbone.weights", "torchvision's ImageNet weights", remedy
        )
        return InitialWeights(read_weights(path).tensors, f"torchvision's {name}")
    path = Path(weights)
    if not path.exists():
        raise CheckpointError(
            f"model.backbone.weights: no file {weights}; give a file of weights (.pth, .pt, .pkl or .safetensors), "
            "`imagenet` or `none`."
        )
    file = read_weights(path)
    found = _own_backbone(name, path) if file.is_ours else _foreign_backbone(name, file, weights)
    return found or InitialWeights(file.tensors, weights)


def fetch_published(published: WeightsEnum, key: str, what: str, remedy: str) -> Path:
    """The file of weights that torchvision publishes, in torch's cache; downloaded, with its hash checked, if missing.

    key: the config key that asks for them; remedy: what else can be done. Raises CheckpointError if it cannot be
    downloaded.
    """
    file: Path = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[1]
    if not file.is_file():
        try:
            published.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{key}: cannot download {what} ({error}). Put {published.url} at {file}, or {remedy}."
            ) from error
    return file


def _own_backbone(name: str, path: Path) -> InitialWeights:
    """The backbone of a checkpoint of this project, under torchvision's names."""
    saved = open_checkpoint(path)
    keys = saved.config.model.backbone
    _check_name(name, keys.name, str(path))
    renames = published_stage_names(keys.name)
    state = {}
    for key, value in saved.weights().items():
        parts = key.split(".")
        if parts[0] == "backbone":
            state[".".join([renames[(int(parts[2]), parts[3])], *parts[4:]])] = value
    more = "; it has strides in 1x1 convolutions" if keys.stride_in_1x1 else ""
    return _with_note(state, str(path), "this project", more)


def _foreign_backbone(name: str, file: WeightsFile, source: str) -> InitialWeights | None:
    """The backbone of another project's RetinaNet, under torchvision's names; None for other files."""
    found = detect_format(file.tensors)
    if found is None:
        return _backbone_inside(file, source)
    naming = FORMATS[found].naming
    state = with_current_names(file.tensors) if naming is TORCHVISION else file.tensors
    layout = infer(dict(state), naming, source)
    _check_name(name, layout.backbone, source)
    modules = name_map(naming, TORCHVISION, layout.shape)
    renamed = {translate(key, modules): value for key, value in state.items()}
    body = {key.removeprefix(BODY): value for key, value in renamed.items() if key.startswith(BODY)}
    caffe = "; Caffe's backbones also need model.backbone.stride_in_1x1=true and model.pixels of recipes/detectron2"
    return _with_note(body, source, found, caffe if found == "detectron2" else "")


def _backbone_inside(file: WeightsFile, source: str) -> InitialWeights | None:
    """The one ResNet or MobileNet with torchvision's names below a prefix, as other detectors have it; None without."""
    prefixes = {name.removesuffix(first) for first in FIRST for name in file.tensors if name.endswith(f".{first}")}
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    body = {name.removeprefix(prefix): value for name, value in file.tensors.items() if name.startswith(prefix)}
    note = (
        f"model.backbone.weights: of {source} the tensors below {prefix!r} are loaded ({len(body)} of "
        f"{len(file.tensors)}), the rest is not"
    )
    return InitialWeights(body, source, note)


def _check_name(wanted: str, found: str, source: str) -> None:
    if wanted != found:
        raise CheckpointError(
            f"{source}: is a whole detector with the backbone {found}, but model.backbone.name is {wanted}; set "
            f"model.backbone.name={found}, or model.weights={source} to start from the whole detector."
        )


def _with_note(state: dict[str, Tensor], source: str, origin: str, more: str) -> InitialWeights:
    note = (
        f"model.backbone.weights: {source} is a whole detector ({origin}); its backbone is loaded ({len(state)} "
        f"tensors), the rest is not. model.weights={source} would start from all of it{more}"
    )
    return InitialWeights(state, source, note)
