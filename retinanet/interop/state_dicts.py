"""Foreign state dicts into ours, and ours into torchvision's: names, orders and numbers. Every tensor is accounted for.

Legend: C anchors of a cell, O outputs of the class head for an anchor.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from retinanet.build import build_loss_and_model
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, list_errors
from retinanet.interop.formats import Format
from retinanet.interop.layout import Layout, kept_outputs, ours_from_scale_major, reordered, shape_of
from retinanet.interop.naming import OURS, Naming, Shape, name_map, translated
from retinanet.interop.weights_file import not_finite

COUNTER = "num_batches_tracked"
OUR_NORM_EPS = 1e-5
"""Of every BatchNorm that we build, frozen or not."""


def modernised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's state dict with the module names of its first releases brought up to date.

    Its published RetinaNet (v1) has them: `head.*.conv.0, 2, 4, 6` for `conv.0.0 ... conv.3.0`, and
    `fpn.inner_blocks.0` for `inner_blocks.0.0`.
    """
    renames: dict[str, str] = {}
    for head in ("classification_head", "regression_head"):
        renames |= {f"head.{head}.conv.{2 * i}": f"head.{head}.conv.{i}.0" for i in range(4)}
    for blocks in ("inner_blocks", "layer_blocks"):
        renames |= {f"backbone.fpn.{blocks}.{i}": f"backbone.fpn.{blocks}.{i}.0" for i in range(3)}
    return {translated(name, renames): value for name, value in state.items()}


def expected_tensors(config: Config, outputs: int) -> dict[str, Tensor]:
    """Our network's state dict for a class head of so many outputs, without any data (on the meta device)."""
    with torch.device("meta"):
        _, model = build_loss_and_model(config, outputs)
    return dict(model.state_dict())


def to_our_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], naming: Naming, shape: Shape, source: str
) -> dict[str, Tensor]:
    """`state` under our names, complete and of the shapes `wanted`.

    CheckpointError lists every tensor that is missing, unexpected, misshapen or not finite, by its name in the file.
    BatchNorm's count of batches, which nothing reads, is the one tensor that may be left out, or missing.
    """
    to_theirs = name_map(OURS, naming, shape)
    to_ours = {theirs: ours for ours, theirs in to_theirs.items()}
    given = {translated(name, to_ours): value for name, value in state.items()}
    unknown = [name for name in state if name.rpartition(".")[0] not in to_ours]
    errors = []
    for ours, value in wanted.items():
        theirs = translated(ours, to_theirs)
        if ours in given and given[ours].shape != value.shape:
            errors.append(f"{theirs} is {tuple(given[ours].shape)}, wanted {tuple(value.shape)}")
        elif ours not in given and not ours.endswith(COUNTER):
            errors.append(f"missing {theirs} {tuple(value.shape)}")
    extra = [translated(name, to_theirs) for name in given if name not in wanted and not name.endswith(COUNTER)]
    errors += [f"unexpected {name} {tuple(state[name].shape)}" for name in dict.fromkeys([*extra, *unknown])]
    errors += not_finite(state)
    if errors:
        raise CheckpointError(list_errors(f"{source}: does not fit the network that it seems to be", errors, most=1000))
    return {
        name: given.get(name, torch.zeros((), dtype=torch.int64) if name.endswith(COUNTER) else value)
        for name, value in wanted.items()
    }


def refolded(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """`state` with BatchNorms of another `eps` made ours: the same function, by larger or smaller weights.

    Normalisation multiplies by weight / sqrt(variance + eps), computed here in float64.
    """
    if eps == OUR_NORM_EPS:
        return dict(state)
    changed = dict(state)
    for name, variance in state.items():
        if name.endswith(".running_var"):
            weight = name.removesuffix("running_var") + "weight"
            ratio = ((variance.double() + OUR_NORM_EPS) / (variance.double() + eps)).sqrt()
            changed[weight] = (state[weight].double() * ratio).to(state[weight].dtype)
    return changed


def without_tower_biases(state: Mapping[str, Tensor], shape: Shape, naming: Naming, source: str) -> dict[str, Tensor]:
    """`state` less the biases of convolutions before a GroupNorm, which ours do not have (detectron2's do).

    CheckpointError where such a bias is not zero, since no network of ours computes the same then.
    """
    if not shape.head_gn:
        return dict(state)
    to_theirs = name_map(OURS, naming, shape)
    towers = [theirs for ours, theirs in to_theirs.items() if ".tower." in ours and int(ours.split(".")[-1]) % 3 == 0]
    biases = [f"{module}.bias" for module in towers if f"{module}.bias" in state]
    errors = [f"{name} is not zero" for name in biases if state[name].any()]
    if errors:
        raise CheckpointError(
            list_errors(f"{source}: our subnets have no biases before a GroupNorm, so these would be lost", errors)
        )
    return {name: value for name, value in state.items() if name not in biases}


def to_our_order(state: Mapping[str, Tensor], config: Config, theirs: Format, rows: list[int]) -> dict[str, Tensor]:
    """`state` under our names with the heads' channels in our order of anchors, and only the outputs `rows`."""
    changed = dict(state)
    anchors = config.model.anchors
    count = len(anchors.aspect_ratios) * len(anchors.scales)
    for head in (OURS.class_predict, OURS.box_predict):
        for name in (f"{head}.weight", f"{head}.bias"):
            if theirs.scales_outermost:
                order = ours_from_scale_major(len(anchors.aspect_ratios), len(anchors.scales))
                changed[name] = reordered(changed[name], order)
            if head == OURS.class_predict:
                changed[name] = kept_outputs(changed[name], count, rows)
    return changed


def to_our_state(
    state: Mapping[str, Tensor],
    config: Config,
    layout: Layout,
    theirs: Format,
    rows: list[int],
    norm_eps: float,
    source: str,
) -> dict[str, Tensor]:
    """Our network's state dict from a foreign one. CheckpointError lists all that does not fit."""
    anchors = config.model.anchors
    per_cell = len(anchors.aspect_ratios) * len(anchors.scales)
    if per_cell != layout.anchors:
        raise CheckpointError(
            f"{source}: has {layout.anchors} anchors a cell, model.anchors has {per_cell}. Give the keys that differ "
            "from this format's own, such as model.anchors.aspect_ratios=[0.5,1,2], as key=value."
        )
    wanted = expected_tensors(config, layout.outputs)
    head = config.model.head
    shape = shape_of(config.model.backbone.name, head.depth, head.norm == "gn")
    state = without_tower_biases(state, shape, theirs.naming, source)
    ours = to_our_names(state, wanted, theirs.naming, shape, source)
    return to_our_order(refolded(ours, norm_eps), config, theirs, rows)


def to_their_state(state: Mapping[str, Tensor], naming: Naming, shape: Shape) -> dict[str, Tensor]:
    """Our state dict under another project's names; its anchors must be in the same order as ours.

    BatchNorm's count of batches is added where ours keeps none.
    """
    to_theirs = name_map(OURS, naming, shape)
    given = {}
    for name, value in state.items():
        given[translated(name, to_theirs)] = value
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + COUNTER
            given[translated(counter, to_theirs)] = state.get(counter, torch.zeros((), dtype=torch.int64))
    return given
