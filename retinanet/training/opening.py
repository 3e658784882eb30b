"""The first lines of a run: what is trained, on what, for how long, how and where."""

import platform
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from retinanet.build.network import build_precision
from retinanet.config.data_keys import DataKeys
from retinanet.config.fields import known
from retinanet.config.schedule_keys import ScheduleKeys
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.display.facts import Fact
from retinanet.display.numbers import amount, epochs_text
from retinanet.distributed import Ranks
from retinanet.files import data_title
from retinanet.training.balance import describe_balance
from retinanet.training.optim import Plan, describe_rescaling

MOST_CLASSES = 8
"""Classes whose objects are counted by name."""


class Opening(NamedTuple):
    """What the first lines of a run describe."""

    config: Config
    plan: Plan
    train_set: CocoDataset
    val_set: CocoDataset
    epoch_images: int
    """Images of an epoch, repeated ones counted each time."""
    evaluations: int
    """Of the whole run."""
    model: nn.Module
    step: int
    """Updates that were done before."""
    device: torch.device
    ranks: Ranks
    folder: Path


def describe_run(opening: Opening) -> list[Fact]:
    """The first lines of a run, for `display.facts.Facts`."""
    config, plan = opening.config, opening.plan
    rescaled, balance = describe_rescaling(config.schedule, plan), describe_balance(config, opening.train_set)
    return [
        Fact("network", describe_model(config, opening.model, from_scratch=opening.step == 0)),
        Fact("train", describe_data(opening.train_set)),
        *([Fact("", balance)] if balance else []),
        Fact("val", describe_data(opening.val_set)),
        Fact("input", describe_input(config.data)),
        Fact("batch", describe_batch(config.schedule, opening.ranks)),
        Fact("length", describe_length(opening)),
        Fact("optimizer", describe_optimizer(config.schedule, plan)),
        *([Fact("", rescaled)] if rescaled else []),
        Fact("device", describe_device(config, opening.device, opening.ranks)),
        Fact("writes", describe_files(opening)),
    ]


def describe_model(config: Config, model: nn.Module, *, from_scratch: bool) -> str:
    """Backbone, pyramid and heads, the parameters and how many train, and where the weights come from."""
    parameters = [(p.numel(), p.requires_grad) for p in model.parameters()]
    count, trained = sum(n for n, _ in parameters), sum(n for n, trains in parameters if trains)
    keys = config.model
    heads = f"heads of {keys.head.depth + 1} convolution{'s' if keys.head.depth else ''}"
    share = "all of them train" if trained == count else f"{trained:,} of them train"
    weights = keys.backbone.weights
    source = "random weights" if weights == "none" else f"backbone weights: {weights}"
    return (
        f"RetinaNet: {keys.backbone.name}, pyramid {keys.fpn.finest.upper()} to P7, {keys.fpn.channels} wide, {heads}\n"
        f"{count:,} parameters, {share}; {source if from_scratch else 'weights of the run so far'}"
    )


def describe_data(dataset: CocoDataset) -> str:
    """Images, objects, classes, and what was left out, cut or noted."""
    counts = Counter[int]()
    for image in dataset.images:
        counts.update(image.classes_G.tolist())
    crowd = sum(len(image.crowd_C4) for image in dataset.images)
    empty = sum(not len(image.boxes_G4) for image in dataset.images)
    classes = len(dataset.categories)
    unused = classes - len(counts)
    parts = [
        amount(len(dataset.images), "image") + (f" ({empty:,} without objects)" if empty else ""),
        f"{amount(counts.total(), 'object')} of {amount(classes, 'class')}"
        + (f" ({unused} without objects)" if unused else ""),
        *([amount(crowd, "crowd region")] if crowd else []),
    ]
    most = ", ".join(f"{dataset.categories[k].name} {n:,}" for k, n in counts.most_common(MOST_CLASSES))
    rest = classes - MOST_CLASSES
    dropped = [f"{number:,} {kind.replace('_', ' ')}" for kind, number in dataset.dropped.items() if number]
    changed = [f"dropped: {', '.join(dropped)}"] if dropped else []
    changed += [f"clipped to the image: {dataset.clipped:,}"] if dataset.clipped else []
    return "\n".join(
        [
            ", ".join(parts),
            *([most + (f", and {rest} more" if rest > 0 else "")] if most else []),
            *(["; ".join(changed)] if changed else []),
            *(f"note: {note}" for note in dataset.notes),
            f"from {data_title(dataset.annotation_file)}",
        ]
    )


def describe_input(data: DataKeys) -> str:
    """The size of the images in the network, and how they are changed at random."""
    sides = " or ".join(str(side) for side in data.shorter_side)
    size = f"shorter side {sides}, longer side at most {data.longer_side}"
    if data.canvas:
        size = f"fitted into {data.canvas[0]} x {data.canvas[1]} (height x width)"
    if data.tile:
        size = f"tiles of {data.tile} x {data.tile} pixels, which share at least {data.tile_overlap:.0%} of a side"
    low, high = data.scale_jitter
    changes = [
        *([f"horizontal flip {data.flip:g}"] if data.flip else []),
        *([f"vertical flip {data.vertical_flip:g}"] if data.vertical_flip else []),
        *([f"zoom {low:g} to {high:g}"] if (low, high) != (1.0, 1.0) else []),
        *([f"colour {data.color_jitter:g}"] if data.color_jitter else []),
    ]
    return f"{size}; at random: {', '.join(changes) or 'nothing'}"


def describe_batch(schedule: ScheduleKeys, ranks: Ranks) -> str:
    """Images of a step, and how they are split over processes and micro-batches."""
    parts = ranks.world_size * schedule.accumulation
    processes = f"{ranks.world_size} process{'es' if ranks.world_size > 1 else ''}"
    micro = f"{schedule.accumulation} micro-batch{'es' if schedule.accumulation > 1 else ''}"
    return f"{schedule.batch_size} images a step: {processes} x {micro} of {known(schedule.batch_size) // parts}"


def describe_length(opening: Opening) -> str:
    """Steps, epochs and evaluations."""
    schedule, total = opening.config.schedule, opening.plan.total_steps
    epochs = total * known(schedule.batch_size) / opening.epoch_images
    count = opening.evaluations
    evaluated = "1 evaluation, at the end" if count == 1 else f"{count} evaluations"
    stops = schedule.early_stop is not None and count > schedule.early_stop
    early = f", fewer if {schedule.early_stop} in a row bring nothing" if stops else ""
    return f"{amount(total, 'step')} ({epochs_text(epochs)}) from step {opening.step}, {evaluated}{early}"


def describe_optimizer(schedule: ScheduleKeys, plan: Plan) -> str:
    """Optimizer, learning rate and its shape, and what else changes an update."""
    name = {"sgd": "SGD", "adamw": "AdamW"}[schedule.optimizer]
    shape = {
        "steps": f"x {plan.decay:g} at steps {', '.join(f'{m:,}' for m in plan.milestones)}"
        if plan.milestones
        else "then constant",
        "cosine": "cosine" + (f" to {plan.final_factor:g} of it" if plan.final_factor else ""),
        "constant": "then constant",
    }[plan.shape]
    parts = [
        f"{name}, lr {plan.lr:g}" + (f" (backbone x {schedule.backbone_lr:g})" if schedule.backbone_lr != 1 else ""),
        f"warmup {amount(plan.warmup, 'step')}",
        shape,
        f"weight decay {schedule.weight_decay:g}",
        *([f"gradients clipped to {schedule.clip_norm:g}"] if schedule.clip_norm else []),
        *([f"EMA {schedule.ema:g}"] if schedule.ema else []),
    ]
    return ", ".join(parts)


def describe_device(config: Config, device: torch.device, ranks: Ranks) -> str:
    """The processor or GPU by name, the precision, and whether the network is compiled."""
    precision = str(build_precision(config, device)).removeprefix("torch.")
    if config.precision == "tf32" and device.type == "cuda":
        precision = "tf32"
    compiled = {True: ", compiled", "graphs": ", compiled, with CUDA graphs"}.get(config.compile, "")
    each = f" each of {ranks.world_size} processes" if ranks.world_size > 1 else ""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB{each}"
    elif device.type == "cpu":
        threads = torch.get_num_threads()
        name = f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}{each}"
    else:
        name = f"{processor_name()}{each}"
    return f"{device.type}: {name}; {precision}{compiled}"


def describe_files(opening: Opening) -> str:
    """The run folder, and the pictures to look at while the run is young."""
    pictures = "\nlook at pictures/data.png and pictures/train_batch.jpg in it"
    return str(opening.folder) + (pictures if opening.step == 0 and opening.config.log.pictures else "")


def processor_name() -> str:
    """The processor and the widest vectors that torch's kernels use on it, such as "AMD EPYC (AVX512)"."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor()) or platform.machine()
    features = torch.cpu.get_capabilities()
    widest = torch.backends.cpu.get_cpu_capability()
    more = [word for word in ("avx512_bf16", "amx_bf16") if features.get(word)]
    return f"{name} ({', '.join([widest, *more])})"
