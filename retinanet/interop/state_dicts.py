"""Convert state dicts to and from this project's: names, order and values. Every tensor is accounted for.

Legend: C anchors per cell, O outputs of the class head per anchor.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from retinanet.build.network import build_loss_and_model
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, list_errors
from retinanet.interop.formats import Format
from retinanet.interop.layout import Layout, order_from_scale_major, reorder_anchors, select_outputs, shape_of
from retinanet.interop.naming import RETINANET, Naming, Shape, name_map, translate
from retinanet.interop.weights_file import not_finite

COUNTER = "num_batches_tracked"
NORM_EPS = 1e-5
"""eps of every BatchNorm of this project, frozen or not."""


def with_current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the module names of torchvision's first releases in a state dict by current ones.

    Its published RetinaNet (v1) has the old ones: `head.*.conv.0, 2, 4, 6` for `conv.0.0 ... conv.3.0`, and
    `fpn.inner_blocks.0` for `inner_blocks.0.0`.
    """
    renames: dict[str, str] = {}
    for head in ("classification_head", "regression_head"):
        renames |= {f"head.{head}.conv.{2 * i}": f"head.{head}.conv.{i}.0" for i in range(4)}
    for blocks in ("inner_blocks", "layer_blocks"):
        renames |= {f"backbone.fpn.{blocks}.{i}": f"backbone.fpn.{blocks}.{i}.0" for i in range(3)}
    return {translate(name, renames): value for name, value in state.items()}


def expected_tensors(config: Config, outputs: int) -> dict[str, Tensor]:
    """State dict of this project's network for a class head of `outputs` outputs, without data (on the meta device)."""
    with torch.device("meta"):
        _, model = build_loss_and_model(config, outputs)
    return dict(model.state_dict())


def import_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], naming: Naming, shape: Shape, source: str
) -> dict[str, Tensor]:
    """`state` under this project's names, complete and of the shapes of `wanted`.

    Raises CheckpointError that lists every tensor that is missing, unexpected, misshapen or not finite, by its name in
    the file. BatchNorm's `num_batches_tracked`, which nothing reads, may be missing or superfluous.
    """
    to_foreign = name_map(RETINANET, naming, shape)
    to_own = {foreign: own for own, foreign in to_foreign.items()}
    given = {translate(name, to_own): value for name, value in state.items()}
    unknown = [name for name in state if name.rpartition(".")[0] not in to_own]
    errors = []
    for own, value in wanted.items():
        foreign = translate(own, to_foreign)
        if own in given and given[own].shape != value.shape:
            errors.append(f"{foreign} is {tuple(given[own].shape)}, wanted {tuple(value.shape)}")
        elif own not in given and not own.endswith(COUNTER):
            errors.append(f"missing {foreign} {tuple(value.shape)}")
    extra = [translate(name, to_foreign) for name in given if name not in wanted and not name.endswith(COUNTER)]
    errors += [f"unexpected {name} {tuple(state[name].shape)}" for name in dict.fromkeys([*extra, *unknown])]
    damaged = not_finite(state)
    if damaged and not errors:
        title = f"{source}: a training that diverged, or a damaged file; give an earlier checkpoint"
        raise CheckpointError(list_errors(title, damaged, most=1000))
    if errors := errors + damaged:
        raise CheckpointError(
            list_errors(f"{source}: does not fit the network that it appears to be", errors, most=1000)
        )
    return {
        name: given.get(name, torch.zeros((), dtype=torch.int64) if name.endswith(COUNTER) else value)
        for name, value in wanted.items()
    }


def rescale_norms(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """`state` with the weights of its BatchNorms rescaled from `eps` to NORM_EPS, so that the function is the same.

    Normalisation multiplies by weight / sqrt(variance + eps), computed here in float64.
    """
    if eps == NORM_EPS:
        return dict(state)
    changed = dict(state)
    for name, variance in state.items():
        if name.endswith(".running_var"):
            weight = name.removesuffix("running_var") + "weight"
            ratio = ((variance.double() + NORM_EPS) / (variance.double() + eps)).sqrt()
            changed[weight] = (state[weight].double() * ratio).to(state[weight].dtype)
    return changed


def without_tower_biases(state: Mapping[str, Tensor], shape: Shape, naming: Naming, source: str) -> dict[str, Tensor]:
    """`state` without biases of convolutions before a GroupNorm, which this project's do not have (detectron2's do).

    Raises CheckpointError if such a bias is not zero, because no network of this project computes the same then.
    """
    if not shape.head_gn:
        return dict(state)
    to_foreign = name_map(RETINANET, naming, shape)
    towers = [foreign for own, foreign in to_foreign.items() if ".tower." in own and int(own.split(".")[-1]) % 3 == 0]
    biases = [f"{module}.bias" for module in towers if f"{module}.bias" in state]
    errors = [f"{name} is not zero" for name in biases if state[name].any()]
    if errors:
        raise CheckpointError(
            list_errors(
                f"{source}: subnets of this project have no biases before a GroupNorm, so these would be lost", errors
            )
        )
    return {name: value for name, value in state.items() if name not in biases}


def arrange_heads(state: Mapping[str, Tensor], config: Config, foreign: Format, rows: list[int]) -> dict[str, Tensor]:
    """`state` with the heads' channels in this project's order of anchors, and only the outputs `rows`."""
    changed = dict(state)
    anchors = config.model.anchors
    count = len(anchors.aspect_ratios) * len(anchors.scales)
    for head in (RETINANET.class_predict, RETINANET.box_predict):
        for name in (f"{head}.weight", f"{head}.bias"):
            if foreign.scales_outermost:
                order = order_from_scale_major(len(anchors.aspect_ratios), len(anchors.scales))
                changed[name] = reorder_anchors(changed[name], order)
            if head == RETINANET.class_predict:
                changed[name] = select_outputs(changed[name], count, rows)
    return changed


def import_state(
    state: Mapping[str, Tensor],
    config: Config,
    layout: Layout,
    foreign: Format,
    rows: list[int],
    norm_eps: float,
    source: str,
) -> dict[str, Tensor]:
    """This project's state dict from a foreign one. Raises CheckpointError that lists everything that does not fit."""
    anchors = config.model.anchors
    per_cell = len(anchors.aspect_ratios) * len(anchors.scales)
    if per_cell != layout.anchors:
        raise CheckpointError(
            f"{source}: has {layout.anchors} anchors per cell, model.anchors has {per_cell}. Give the keys that differ "
            "from this format's config, such as model.anchors.aspect_ratios=[0.5,1,2], as key=value."
        )
    wanted = expected_tensors(config, layout.outputs)
    head = config.model.head
    shape = shape_of(config.model.backbone.name, head.depth, head.norm == "gn")
    state = without_tower_biases(state, shape, foreign.naming, source)
    own = import_names(state, wanted, foreign.naming, shape, source)
    return arrange_heads(rescale_norms(own, norm_eps), config, foreign, rows)


def export_state(state: Mapping[str, Tensor], naming: Naming, shape: Shape) -> dict[str, Tensor]:
    """This project's state dict under another project's names; its anchors must be in the same order.

    BatchNorm's `num_batches_tracked` is added where this project has none.
    """
    to_foreign = name_map(RETINANET, naming, shape)
    given = {}
    for name, value in state.items():
        given[translate(name, to_foreign)] = value
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + COUNTER
            given[translate(counter, to_foreign)] = state.get(counter, torch.zeros((), dtype=torch.int64))
    return given
