"""Convert one file of weights to another (`retinanet convert`)."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, assert_never

import torch
from torch import Tensor

from retinanet.build.network import build_anchor_spec
from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.detection.anchors import cell_anchors
from retinanet.errors import CheckpointError, ConfigError, ResourceError, list_errors
from retinanet.interop import msra
from retinanet.interop.classes import Classes, choose_classes
from retinanet.interop.formats import FORMATS, Format, FormatName, build_config
from retinanet.interop.layout import Layout, infer, order_from_scale_major
from retinanet.interop.naming import TORCHVISION
from retinanet.interop.state_dicts import NORM_EPS, export_state, import_state, with_current_names
from retinanet.interop.torchvision_out import (
    TorchvisionName,
    constructor_call,
    preprocessing_differences,
    torchvision_shape,
)
from retinanet.interop.weights_file import WeightsFile, not_finite, read_weights, write_state
from retinanet.run.checkpoint import Checkpoint, Progress
from retinanet.run.published import open_checkpoint, write_inference_checkpoint, write_safetensors

PUBLISHED_WITHOUT_EPS = "eeacb38b"
"""Start of the SHA-256 of torchvision's RetinaNet_ResNet50_FPN_Weights.COCO_V1, whose batch norms have eps 0."""

Conversion = Literal[
    "torchvision_v1",
    "torchvision_v2",
    "detectron2",
    "mmdetection",
    "msra_resnet",
    "ours",
    "to_torchvision_v1",
    "to_torchvision_v2",
]


class ConversionOptions(NamedTuple):
    """Options of the command line."""

    classes: Path | None
    coco_only: bool
    norm_eps: float | None
    overrides: list[str]


NO_OPTIONS = ConversionOptions(classes=None, coco_only=False, norm_eps=None, overrides=[])


def convert(
    conversion: Conversion, source: Path, target: Path, options: ConversionOptions, *, overwrite: bool = False
) -> list[str]:
    """Write `target` from `source`; returns lines that describe what was done.

    An existing `target` is replaced only with `overwrite`. Raises ConfigError, CheckpointError, DataError or
    ResourceError for options and files that cannot be used.
    """
    _check_target(source, target, overwrite)
    match conversion:
        case "torchvision_v1" | "torchvision_v2" | "detectron2" | "mmdetection":
            return _from_foreign(conversion, source, target, options)
        case "msra_resnet":
            return _msra_resnet(source, target, options)
        case "ours":
            _refuse_options(options)
            checkpoint = _read_finite(source)
            write_inference_checkpoint(target, checkpoint)
            return [
                f"{source}: {len(checkpoint.weights())} tensors, {len(checkpoint.categories)} classes, "
                f"step {checkpoint.progress.step}",
                f"written to {target}",
            ]
        case "to_torchvision_v1":
            return _to_torchvision("torchvision_v1", source, target, options)
        case "to_torchvision_v2":
            return _to_torchvision("torchvision_v2", source, target, options)
        case _:
            assert_never(conversion)


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ResourceError(f"{target}: cannot be written, because {folder} is a file, not a folder; give another OUT.")
    if target.is_dir():
        raise ConfigError(f"{target}: is a folder; give a file in it as OUT.")
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{target}: the output would replace the input; give another file.")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists; give another OUT or add --overwrite.")


def _read_finite(source: Path) -> Checkpoint:
    """A checkpoint of this project. Raises CheckpointError that lists weights with NaN or infinity."""
    checkpoint = open_checkpoint(source)
    errors = not_finite(checkpoint.weights())
    if errors:
        raise CheckpointError(list_errors(f"{source}: its weights cannot be used", errors, most=1000))
    return checkpoint


def _refuse_options(options: ConversionOptions) -> None:
    if options != NO_OPTIONS:
        raise ConfigError("--classes, --coco-only, --norm-eps and key=value are for RetinaNets of other projects only.")


def _msra_resnet(source: Path, target: Path, options: ConversionOptions) -> list[str]:
    """A backbone alone, as a state dict for config `model.backbone.weights`."""
    _refuse_options(options)
    if target.suffix not in (".pth", ".pt"):
        raise ConfigError(f"{target}: a backbone's state dict is written as .pth or .pt.")
    found = msra.to_torchvision(read_weights(source).tensors, str(source))
    write_state(target, found.state)
    classified = "with" if "fc.weight" in found.state else "without"
    return [
        f"{source}: MSRA's {found.name}, {classified} its classifier",
        *(
            f"note: {name} is not zero (up to {most:.2g}) and was merged into the norm after it, as in MSRA's network; "
            "Detectron and detectron2 ignore it"
            for name, most in found.folded.items()
        ),
        f"written to {target}: {len(found.state)} tensors under torchvision's names. A config that uses it has "
        f"model.backbone.name: {found.name}, model.backbone.stride_in_1x1: true and model.pixels.order: bgr with "
        "std: [1, 1, 1]",
    ]


def _from_foreign(name: FormatName, source: Path, target: Path, options: ConversionOptions) -> list[str]:
    checkpoint, lines = read_foreign(name, source, options)
    write_inference_checkpoint(target, checkpoint)
    return [*lines, f"written to {target}: {len(checkpoint.model)} tensors, step 0, for `retinanet predict` and `eval`"]


def read_foreign(name: FormatName, source: Path, options: ConversionOptions) -> tuple[Checkpoint, list[str]]:
    """This project's checkpoint of a foreign file, and lines that describe what was found in it."""
    return convert_foreign(name, source, read_weights(source), options)


def convert_foreign(
    name: FormatName, source: Path, file: WeightsFile, options: ConversionOptions
) -> tuple[Checkpoint, list[str]]:
    """`read_foreign` of a file that has been read."""
    form = FORMATS[name]
    state = with_current_names(file.tensors) if form.naming is TORCHVISION else dict(file.tensors)
    state, extras = _split_extras(state, form)
    errors = not_finite(extras)
    if errors:
        raise CheckpointError(list_errors(f"{source}: cannot be converted", errors))
    layout = infer(state, form.naming, str(source))
    _check_version(name, layout, source)
    pixels, caffe = _preprocessing(extras, file.meta)
    config = with_overrides(build_config(name, layout, pixels, caffe), options.overrides)
    _check_cell_anchors(extras, config, source)
    known = _known_names(file.meta)
    classes = choose_classes(layout.outputs, form.rows_are_ids, options.classes, known, options.coco_only)
    eps = _norm_eps(source, options)
    model = import_state(state, config, layout, form, classes.rows, eps, str(source))
    checkpoint = Checkpoint(
        config=config,
        categories=classes.categories,
        progress=Progress(step=0, best_ap=-1.0, best_step=0, stale_evaluations=0),
        model=model,
        average={},
        optimizer={},
        scaler={},
    )
    return checkpoint, _description(source, file, form, layout, config, classes, eps)


def _check_version(name: FormatName, layout: Layout, source: Path) -> None:
    if name in ("torchvision_v1", "torchvision_v2") and layout.shape.head_gn != (name == "torchvision_v2"):
        other = "torchvision_v2" if layout.shape.head_gn else "torchvision_v1"
        norms = "have GroupNorm" if layout.shape.head_gn else "have no GroupNorm"
        raise CheckpointError(f"{source}: its subnets {norms}, so it is not {name}; convert it as {other}.")


def _split_extras(state: Mapping[str, Tensor], form: Format) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's tensors, and those that describe detectron2's preprocessing and anchors."""
    if form.name != "detectron2":
        return dict(state), {}
    extra = re.compile(r"pixel_mean|pixel_std|anchor_generator\.cell_anchors\.[0-4]")
    extras = {name: value for name, value in state.items() if extra.fullmatch(name)}
    return {name: value for name, value in state.items() if name not in extras}, extras


def _preprocessing(extras: Mapping[str, Tensor], meta: Mapping[str, Any]) -> tuple[dict[str, Any] | None, bool | None]:
    """Config `model.pixels`, and whether the backbone is one of Caffe's; None for what the file does not specify."""
    if {"pixel_mean", "pixel_std"} <= extras.keys():
        mean, std = (tuple(extras[name].flatten().tolist()) for name in ("pixel_mean", "pixel_std"))
        return {"order": "rgb" if mean[0] > mean[-1] else "bgr", "mean": mean, "std": std}, set(std) == {1.0}
    text = meta.get("cfg", meta.get("config"))
    style = re.search(r"style\s*=\s*['\"](caffe|pytorch)['\"]", text) if isinstance(text, str) else None
    return None, style[1] == "caffe" if style else None


def _check_cell_anchors(extras: Mapping[str, Tensor], config: Config, source: Path) -> None:
    spec = build_anchor_spec(config.model)
    order = order_from_scale_major(len(spec.aspect_ratios), len(spec.scales))
    for level, (name, stride, size) in enumerate(zip(spec.levels, spec.strides, spec.sizes, strict=True)):
        given = extras.get(f"anchor_generator.cell_anchors.{level}")
        if given is None:
            continue
        wanted = cell_anchors(size, stride, spec)
        if given.shape != wanted.shape or not torch.allclose(given[order], wanted, atol=0.01):
            raise CheckpointError(
                f"{source}: its anchors on {name} are not those of this format's config. Give "
                "the keys that differ, such as model.anchors.sizes=[16,32,64,128,256], as key=value."
            )


def _known_names(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names in mmdetection's `meta`."""
    data_set = meta.get("dataset_meta")
    places = (meta, data_set if isinstance(data_set, dict) else {})
    for names in (place.get(key) for place in places for key in ("CLASSES", "classes")):
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _norm_eps(source: Path, options: ConversionOptions) -> float:
    if options.norm_eps is not None:
        return options.norm_eps
    if source.is_dir():  # weights in several files
        return NORM_EPS
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return 0.0 if digest.startswith(PUBLISHED_WITHOUT_EPS) else NORM_EPS


def _description(
    source: Path, file: WeightsFile, form: Format, layout: Layout, config: Config, classes: Classes, eps: float
) -> list[str]:
    head, backbone, pixels = config.model.head, config.model.backbone, config.model.pixels
    lines = [
        f"{source}: {len(file.tensors)} tensors with {form.name}'s names: {layout.backbone}, "
        f"P6 from {layout.p6_source.upper()}, subnets of {head.depth} convolutions of {layout.head_channels} channels"
        f"{' with GroupNorm' if layout.shape.head_gn else ''}, {layout.anchors} anchors per cell, "
        f"{layout.outputs} outputs",
        f"classes: {len(classes.categories)}, {classes.source}",
        f"recipe: {form.name} (network, preprocessing, assignment, losses and inference of its project)",
        f"pixels: {pixels.order.upper()}, mean {', '.join(f'{v:g}' for v in pixels.mean)}, "
        f"deviation {', '.join(f'{v:g}' for v in pixels.std)}; "
        f"strides in {'1x1' if backbone.stride_in_1x1 else '3x3'} convolutions",
    ]
    if file.stripped:
        lines.append(f"names: the prefix {file.stripped!r} of the training program was removed")
    if file.averaged:
        lines.append(f"weights: {file.averaged}")
    if eps != NORM_EPS:
        lines.append(
            f"batch norms: eps {eps:g} in the file, {NORM_EPS:g} here; their weights are rescaled to compute the same"
        )
    return lines


def _to_torchvision(name: TorchvisionName, source: Path, target: Path, options: ConversionOptions) -> list[str]:
    _refuse_options(options)
    checkpoint = _read_finite(source)
    classes = len(checkpoint.categories)
    shape = torchvision_shape(checkpoint.config, name)
    state = export_state(checkpoint.weights(), TORCHVISION, shape)
    if target.suffix == ".safetensors":
        write_safetensors(target, state, {})
    else:
        write_state(target, state)
    shown = ", ".join(category.name for category in checkpoint.categories[:4])
    return [
        f"written to {target}: {len(state)} tensors, for this torchvision model:",
        f"  {constructor_call(checkpoint.config, classes, name)}",
        f"label k is category k of {source}, from 0: {shown}{', ...' if classes > 4 else ''}",
        *(f"note: {line}" for line in preprocessing_differences(checkpoint.config)),
    ]
