"""MSRA's ResNets, as Detectron and detectron2 publish them (R-50.pkl, R-101.pkl), under torchvision's names. Pure.

The files hold Caffe2's blobs. A convolution is NAME_w, sometimes with NAME_b. Its norm is a scale and a shift,
NAME_bn_s and NAME_bn_b (Detectron), or also has statistics: NAME_bn_gamma, _beta, _running_mean and _running_var
(detectron2).
Weights are (out, in, height, width) as torch has them, and conv1 reads blue, green, red: no axis or channel moves, and
config `model.pixels.order: bgr` provides that order.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet

from retinanet.errors import CheckpointError, list_errors
from retinanet.interop.layout import RESNETS
from retinanet.interop.state_dicts import NORM_EPS
from retinanet.interop.weights_file import not_finite

CONV = {"weight": "_w", "bias": "_b"}
"""Suffix of a blob's name by torchvision's name of the tensor; also of the classifier."""
SCALE_AND_SHIFT = {"weight": "_s", "bias": "_b"}
WITH_STATISTICS = {
    "weight": "_gamma",
    "bias": "_beta",
    "running_mean": "_running_mean",
    "running_var": "_running_var",
}

OF_TRAINING = re.compile(r".*_momentum|lr|iter|model_iter|optimizer_iteration")
"""Blobs of a training in progress, which are ignored."""


class Converted(NamedTuple):
    """One of MSRA's ResNets."""

    name: str
    """Config `model.backbone.name`."""
    state: dict[str, Tensor]
    """float32, by torchvision's names; with the classifier if the file has one."""
    folded: dict[str, float]
    """Biases of convolutions that were merged into a norm, with the largest absolute value of each."""


def to_torchvision(blobs: Mapping[str, Tensor], source: str) -> Converted:
    """The ResNet in `blobs`.

    A scale and a shift become a norm of mean 0 and variance 1 - eps, so that (x - mean) / sqrt(variance + eps) is x. A
    bias before a norm is subtracted from its mean: the same function, exactly.
    Raises CheckpointError that lists every blob that is missing, unexpected, misshapen or not finite.
    """
    given = {name: value.float() for name, value in blobs.items() if not OF_TRAINING.fullmatch(name)}
    blocks = _nearest_blocks(given, source)
    modules = blob_modules(blocks)
    wanted = _wanted(blocks, modules, given)
    norms = {own: blob.removesuffix("_bn").removeprefix("res_") for own, blob in modules.items() if "_bn" in blob}
    _check(given, wanted, list(norms.values()), source)
    state = {own: given[blob] for blob, (own, _) in wanted.items()}
    folded = {}
    for norm, convolution in norms.items():
        shift, bias = state[f"{norm}.bias"], given.get(f"{convolution}_b")
        mean = state.get(f"{norm}.running_mean", torch.zeros_like(shift))
        state[f"{norm}.running_mean"] = mean if bias is None else mean - bias
        state.setdefault(f"{norm}.running_var", torch.full_like(shift, 1 - NORM_EPS))
        if bias is not None and bias.any():
            folded[f"{convolution}_b"] = float(bias.abs().max())
    return Converted(RESNETS[blocks, True], state, folded)


def blob_modules(blocks: tuple[int, ...]) -> dict[str, str]:
    """Modules of torchvision's ResNet with `blocks` bottlenecks per stage -> the first part of their blobs' names."""
    modules = {"conv1": "conv1", "bn1": "res_conv1_bn", "fc": "fc1000"}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            own, foreign = f"layer{stage}.{block}", f"res{stage + 1}_{block}_branch"
            for n, letter in enumerate("abc", start=1):
                modules |= {f"{own}.conv{n}": f"{foreign}2{letter}", f"{own}.bn{n}": f"{foreign}2{letter}_bn"}
            if block == 0:
                modules |= {f"{own}.downsample.0": f"{foreign}1", f"{own}.downsample.1": f"{foreign}1_bn"}
    return modules


def _nearest_blocks(blobs: Mapping[str, Tensor], source: str) -> tuple[int, int, int, int]:
    """The bottlenecks per stage of the supported ResNet that is nearest."""
    found = [re.match(r"res([2-5])_(\d{1,3})_branch", name) for name in blobs]
    places = [(int(match[1]), int(match[2])) for match in found if match]
    if not places:
        shown = ", ".join(list(blobs)[:3])
        raise CheckpointError(
            f"{source}: not a ResNet of Caffe2: no blob is named like res2_0_branch2a_w. It holds {len(blobs)}: "
            f"{shown}, ... Expected is R-50.pkl or R-101.pkl of Detectron's or detectron2's MSRA models."
        )
    counts = [max((b + 1 for s, b in places if s == stage), default=0) for stage in (2, 3, 4, 5)]
    candidates = [blocks for blocks, bottleneck in RESNETS if bottleneck]
    return min(candidates, key=lambda blocks: sum(abs(a - b) for a, b in zip(blocks, counts, strict=True)))


def _wanted(
    blocks: tuple[int, ...], modules: dict[str, str], given: Mapping[str, Tensor]
) -> dict[str, tuple[str, torch.Size]]:
    """Every blob that is required -> torchvision's name and the shape."""
    with torch.device("meta"):
        network = ResNet(Bottleneck, list(blocks))
    norm = WITH_STATISTICS if any(name.endswith("_bn_gamma") for name in given) else SCALE_AND_SHIFT
    classified = any(f"{modules['fc']}{end}" in given for end in CONV.values())
    wanted = {}
    for name, value in network.state_dict().items():
        module, _, leaf = name.rpartition(".")
        ends = norm if modules[module].endswith("_bn") else CONV
        if leaf in ends and (module != "fc" or classified):
            wanted[modules[module] + ends[leaf]] = (name, value.shape)
    return wanted


def _check(
    given: Mapping[str, Tensor],
    wanted: Mapping[str, tuple[str, torch.Size]],
    convolutions: list[str],
    source: str,
) -> None:
    shapes = {blob: shape for blob, (_, shape) in wanted.items()}
    errors = [f"missing {blob} {tuple(shape)}" for blob, shape in shapes.items() if blob not in given]
    shapes |= {f"{name}_b": shapes[f"{name}_w"][:1] for name in convolutions}
    for blob, value in given.items():
        if blob not in shapes:
            errors.append(f"unexpected {blob} {tuple(value.shape)}")
        elif value.shape != shapes[blob]:
            errors.append(f"{blob} is {tuple(value.shape)}, wanted {tuple(shapes[blob])}")
    errors += not_finite(given)
    if errors:
        title = f"{source}: does not fit the ResNet that it appears to be"
        raise CheckpointError(list_errors(title, errors, most=1000))
