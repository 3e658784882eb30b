"""The state that changes during training: how it starts, is updated, saved to a checkpoint and restored from one."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from retinanet.build.network import build_channels_last, build_loss_and_model, in_memory_order
from retinanet.config.flat import differing, flat
from retinanet.config.load import config_to_dict
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.errors import CheckpointError, ConfigError, list_errors
from retinanet.interop.backbone_file import read_backbone_weights
from retinanet.interop.start import Start, load_start
from retinanet.losses.criterion import RUNNING_START
from retinanet.run.checkpoint import Checkpoint, Progress, load_weights
from retinanet.structures import Category
from retinanet.training.moving_average import MovingAverage
from retinanet.training.optim import build_optimizer

FREE_TO_CHANGE = (
    "data.source",
    "data.root",
    "data.workers",
    "data.cache_mib",
    "data.feature_cache",
    "data.check_images",
    "data.on_bad_image",
    "data.bad_images",
    "eval.onnx_provider",
    "log.",
    "distributed.",
    "output",
    "device",
    "compile",
    "deterministic",
)
"""Config keys that may differ in a resumed run, because they do not change what is computed or, as `device`, `compile`,
`deterministic` and `data.feature_cache`, only its rounding."""

LENGTH = ("schedule.iterations", "schedule.epochs", "schedule.milestones", "schedule.early_stop")
"""Config keys with which a run may be resumed for another length."""

RATES = ("schedule.lr", "schedule.warmup", "schedule.clip_norm")
"""Config keys with which a run may be resumed after its loss has exploded."""


@dataclass
class TrainState:
    """What last.pt holds besides the config and the categories."""

    model: nn.Module
    network: nn.Module
    """`model` itself, or DistributedDataParallel around it."""
    average: MovingAverage | None
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    running_positives_R: Tensor | None = None
    """(R,) float32, each rank's running mean of positives, the same on every rank; see `criterion.move_running`."""
    note: str = ""
    """What the user should know of the initial weights."""
    saved_step: int = 0
    """The step of last.pt; 0: there is none."""
    skipped: int = 0
    """Updates in a row that float16 loss scaling has skipped."""

    def weights(self) -> nn.Module:
        """The network to evaluate: the moving average if there is one."""
        return self.average.module if self.average is not None else self.model


def build_state(
    config: Config,
    classes: int,
    device: torch.device,
    ranks: Ranks,
    load_weights: bool = True,
    start: Start | None = None,
) -> TrainState:
    """Network, average, optimizer and loss scaler at step 0, the same on every rank.

    start: the detector of config `model.weights`. Without one config `model.backbone.weights` is read, except with
    load_weights False, because a checkpoint will replace the weights.
    """
    if config.model.backbone.norm == "sync_bn" and ranks.world_size > 1 and device.type != "cuda":
        raise ConfigError("model.backbone.norm: sync_bn over several processes needs GPUs; use bn, or one process.")
    backbone = config.model.backbone
    from_backbone = load_weights and start is None
    weights = read_backbone_weights(backbone.name, backbone.weights) if from_backbone else None
    _, model = build_loss_and_model(config, classes, weights)
    if start is not None:
        load_start(model, start)
    model = in_memory_order(model.to(device), channels_last=build_channels_last(config.model, device, training=True))
    average = None
    if config.schedule.ema:
        average = MovingAverage(model, config.schedule.ema)
    network: nn.Module = model
    if ranks.world_size > 1:
        network = exchange_gradients(model, config, device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16" and device.type == "cuda")
    running_R = None
    if config.loss.normaliser == "running_positives":
        running_R = torch.full((ranks.world_size,), RUNNING_START, device=device)
    optimizer = build_optimizer(model, config.schedule)
    return TrainState(
        model=model,
        network=network,
        average=average,
        optimizer=optimizer,
        scaler=scaler,
        progress=Progress(step=0),
        running_positives_R=running_R,
        note=weights.note if weights is not None else "",
    )


def exchange_gradients(model: nn.Module, config: Config, device: torch.device) -> DistributedDataParallel:
    """The network with gradients that are averaged over all ranks, in the type of config `distributed.gradients`."""
    with warnings.catch_warnings():
        # torch 2.14 has another name for broadcast_buffers, which 2.11 does not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        network = DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            # Of all norms only `bn` has buffers that change, and on each rank by its own images.
            broadcast_buffers=config.model.backbone.norm == "bn",
        )
    if config.distributed.gradients == "bfloat16":
        network.register_comm_hook(None, bf16_compress_hook)
    return network


def clip_gradients(state: TrainState, clip_norm: float | None) -> Tensor:
    """Unscale the gradients and clip them; returns their norm before clipping, a scalar on the device.

    The norm is not finite if a gradient is not.
    """
    state.scaler.unscale_(state.optimizer)
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, float("inf") if clip_norm is None else clip_norm)
    return norm


def apply_gradients(state: TrainState) -> None:
    """Update the weights and their average; float16 loss scaling skips a step whose gradients are not finite."""
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update_parameters(state.model)


def snapshot(
    state: TrainState, config: Config, categories: tuple[Category, ...], inference_only: bool = False
) -> Checkpoint:
    """The state as a checkpoint; with inference_only just the weights to evaluate with."""
    if inference_only:
        weights = state.weights().state_dict()
        return Checkpoint(config=config, categories=categories, progress=state.progress, model=weights)
    return Checkpoint(
        config=config,
        categories=categories,
        progress=state.progress,
        model=state.model.state_dict(),
        average=state.average.state_dict() if state.average is not None else {},
        optimizer=state.optimizer.state_dict(),
        scaler=state.scaler.state_dict(),
        running_positives_R=state.running_positives_R,
    )


def restore(
    state: TrainState, saved: Checkpoint, config: Config, categories: tuple[Category, ...], source: Path
) -> None:
    """Continue from `saved`, possibly for another length. ConfigError or CheckpointError if it is another training."""
    was, now = config_to_dict(saved.config), config_to_dict(config)
    check_same_source(was, now, source)
    differences = config_differences(was, now, (*FREE_TO_CHANGE, *LENGTH, *RATES))
    if differences:
        title = f"{source} was trained with another config; --resume cannot continue it"
        remedy = f"A new run can start from its weights: model.weights={source} and another output."
        raise ConfigError(f"{list_errors(title, differences)}\n{remedy}")
    if saved.categories != categories:
        raise CheckpointError(
            f"{source}: its categories differ from those of data.train_annotations; --resume cannot continue it."
        )
    if not saved.optimizer:
        raise CheckpointError(f"{source}: it has no optimizer state, so training cannot continue from it.")
    load_weights(state.model, saved.model, str(source))
    if state.average is not None:
        state.average.load_state_dict(saved.average)
    state.optimizer.load_state_dict(saved.optimizer)
    if state.scaler.is_enabled() and saved.scaler:  # empty where the run began on a device without float16
        state.scaler.load_state_dict(saved.scaler)
    state.running_positives_R = restored_running(state.running_positives_R, saved.running_positives_R, source)
    state.progress = saved.progress
    state.saved_step = saved.progress.step


def check_same_source(was: dict[str, Any], now: dict[str, Any], source: Path) -> None:
    """Raise ConfigError if the file of a loss of the user has changed since the run in `source`."""
    before, after = was["loss"]["classification"], now["loss"]["classification"]
    if before["kind"] == after["kind"] and before.get("source_sha256") != after.get("source_sha256"):
        raise ConfigError(
            f"loss.classification: the file of {after['kind']} has changed since {source} was trained with it; restore "
            f"the file, or start a new run from the weights: model.weights={source} and another output."
        )


def restored_running(own_R: Tensor | None, saved_R: Tensor | None, source: Path) -> Tensor | None:
    """The saved running means if this training keeps some; CheckpointError if there is not one for each rank."""
    if own_R is None:
        return None
    if saved_R is None or saved_R.shape != own_R.shape:
        raise CheckpointError(
            f"{source}: loss.normaliser=running_positives has one mean for each process, and the file holds "
            f"{0 if saved_R is None else len(saved_R)}, not {len(own_R)}; resume with the number of processes of the "
            "interrupted run."
        )
    return saved_R.to(own_R)


def config_differences(
    saved: dict[str, Any], given: dict[str, Any], free: tuple[str, ...] = FREE_TO_CHANGE
) -> list[str]:
    """One line for each key that differs, or that only one has, and does not begin with one of `free`."""
    was, now = flat(saved), flat(given)
    return [
        f"{key}: was {repr(was[key]) if key in was else 'absent'}, now {repr(now[key]) if key in now else 'absent'}"
        for key in differing(saved, given)
        if not key.startswith(free)
    ]
