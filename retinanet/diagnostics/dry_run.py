"""`retinanet train --dry-run`: will a training fit, and how long will it take? Nothing of it is kept."""

import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from retinanet import distributed
from retinanet.build.network import build_anchor_spec, build_loss_and_model, build_precision
from retinanet.build.rules import build_resize_rule
from retinanet.config.auto import describe_auto
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.data.transforms import ResizeRule
from retinanet.detection.anchors import pyramid_anchors
from retinanet.diagnostics.anchors.report import describe_fit, measure_anchors
from retinanet.diagnostics.pace import STEPS, WARM_STEPS, Pace, estimate_duration, measure_pace
from retinanet.display.console import format_seconds
from retinanet.display.facts import Fact, Facts
from retinanet.display.numbers import epochs_text
from retinanet.errors import ResourceError
from retinanet.interop.start import resolve_model
from retinanet.training.balance import count_epoch, describe_balance
from retinanet.training.batches import load_data
from retinanet.training.engine import resolve
from retinanet.training.optim import build_plan, describe_long_warmup


def report_dry_run(config: Config, output: Path) -> None:
    """Train a few steps in a temporary folder, and print what a whole run takes and whether it fits.

    output: the run folder that the training would write to; only its disk is looked at. Raises a UserError for input
    that cannot be used, as the training would.
    """
    ranks = distributed.read_ranks()
    device = distributed.choose_device(config.device, ranks)
    config, _ = resolve_model(config)
    train_set, val_set = load_data(config, ranks)
    resolved = resolve(config, train_set, device, ranks, None)
    images, balance = count_epoch(resolved, train_set), describe_balance(resolved, train_set)
    with tempfile.TemporaryDirectory() as folder:
        try:
            pace = measure_pace(resolved, Path(folder) / "run")
        except ResourceError as error:
            if folder not in str(error):  # the memory of a GPU, for one
                raise
            raise ResourceError(
                f"--dry-run writes checkpoints below {Path(folder).parent} while it measures: "
                f"{str(error).partition(';')[0]}. Set the environment variable TMPDIR to a folder with space."
            ) from error
    rows = [
        *describe_network(resolved, train_set),
        Fact("data", f"{len(train_set.images):,} training images, {len(val_set.images):,} validation images"),
        *([Fact("", balance)] if balance else []),
        Fact("anchors", describe_anchors(resolved, train_set)),
        Fact("positives", f"{pace.positives_per_image:.1f} anchors an image"),
        *describe_time(resolved, pace, images, len(val_set.images), device),
        Fact("memory", describe_memory(pace, device)),
        Fact("disk", describe_disk(pace, output)),
    ]
    plan = build_plan(resolved.schedule, images)
    lines = (describe_auto(config, resolved, images), describe_long_warmup(resolved.schedule, plan))
    Console().print(Facts([*rows, *(Fact("", line) for line in lines if line)]), crop=False)


def describe_network(config: Config, train_set: CocoDataset) -> list[Fact]:
    """Rows on the network's parameters by part and on the FLOPs of one image."""
    _, model = build_loss_and_model(config, len(train_set.categories))
    parts = {name: count_parameters(part) for name, part in model.named_children()}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    by_part = ", ".join(f"{name} {describe_count(count)}" for name, count in parts.items())
    height, width = usual_canvas(train_set, build_resize_rule(config))
    anchors = len(pyramid_anchors((height, width), build_anchor_spec(config.model), torch.device("cpu")).boxes_A4)
    flops = count_flops(model, (height, width))
    return [
        Fact("network", f"{config.model.backbone.name}, {describe_count(sum(parts.values()))} parameters: {by_part}"),
        Fact("", f"{describe_count(trained)} of them are trained"),
        Fact("canvas", f"{height} x {width} pixels (the most frequent one), {anchors:,} anchors"),
        Fact("FLOPs", f"{flops / 1e9:.1f} GFLOP for the forward pass of an image (a multiply-add counts as 2)"),
    ]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, frozen ones included. Folded batch norms hold none."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe_count(count: float) -> str:
    """A number of parameters as `950`, `12.3 k` or `37.9 M`."""
    if count < 1e3:
        return f"{count:.0f}"
    return f"{count / 1e3:.1f} k" if count < 1e6 else f"{count / 1e6:.1f} M"


def usual_canvas(dataset: CocoDataset, rule: ResizeRule) -> tuple[int, int]:
    """(height, width) of the canvas of most images, at the shorter side of evaluation."""
    shorter = rule.shorter_side[-1]
    canvases = Counter(
        rule.image_canvas(rule.fitted(r.height, r.width, shorter), rule.aspect_bucket(r.height, r.width), shorter)
        for r in dataset.images
    )
    return canvases.most_common(1)[0][0]


def count_flops(model: nn.Module, canvas: tuple[int, int]) -> int:
    """FLOPs of the forward pass of one image; a multiply-add counts as 2, and only products and convolutions count."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *canvas))
    return int(counter.get_total_flops())


def describe_anchors(config: Config, dataset: CocoDataset) -> str:
    """Whether the anchors reach the training set's boxes, and which command suggests better ones."""
    _, recall = measure_anchors(config, dataset)
    return describe_fit(recall, config.assign)


def describe_time(config: Config, pace: Pace, train_images: int, val_images: int, device: torch.device) -> list[Fact]:
    """Rows on the measured step and the length of the whole run."""
    whole = estimate_duration(config, pace, train_images, val_images)
    batch = known(config.schedule.batch_size)
    precision = str(build_precision(config, device)).removeprefix("torch.")
    epochs = whole.steps * batch / train_images
    return [
        Fact(
            "step",
            f"{pace.step:.3g} s for {batch} images, {batch / pace.step:.1f} images/s on {device} in {precision} "
            f"(median of {STEPS - WARM_STEPS} after {WARM_STEPS})",
        ),
        Fact(
            "time",
            f"{format_seconds(whole.total())}: {whole.steps:,} steps ({epochs_text(epochs)}) "
            f"{format_seconds(whole.training)}, evaluations {format_seconds(whole.evaluation)}",
        ),
    ]


def describe_memory(pace: Pace, device: torch.device) -> str:
    """The peak of the measured steps, next to what a GPU has."""
    if math.isnan(pace.memory_mb):
        return "not known on this system"
    used = f"{pace.memory_mb / 1024:.1f} GiB at most in the measured steps"
    if device.type != "cuda":
        return f"{used} (the whole process)"
    return f"{used}, of {torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB of the GPU"


def describe_disk(pace: Pace, output: Path) -> str:
    """What the checkpoints take, and what is free where the run folder will be."""
    existing = next(folder for folder in (output, *output.absolute().parents) if folder.is_dir())
    needed, free = pace.checkpoint_bytes, shutil.disk_usage(existing).free
    text = f"{needed / 1e6:,.0f} MB for checkpoints in {output}; {free / 1e9:,.1f} GB are free"
    return text if needed < free else f"{text}: not enough, choose another folder with output=PATH"
