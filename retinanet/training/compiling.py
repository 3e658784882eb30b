"""Whether a run compiles its network (config `compile`), and what stands against it."""

import math
from typing import Literal, NamedTuple

import torch

from retinanet.compile import can_compile, check_compiler
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.errors import ConfigError, list_errors

Compile = bool | Literal["graphs"]
"""A value of config `compile` other than `auto`."""

COMPILE_FROM = 5000
"""Calls of a network from which compiling it pays off on a GPU: it takes a minute or two for each canvas, and a call is
predicted to become some 15 ms faster."""


class CompileCase(NamedTuple):
    """What `compile: auto` depends on."""

    device_type: str
    possible: bool
    """Whether the machine has a compiler for the device and the config has few canvases and no `sync_bn` over ranks."""
    graphs_possible: bool
    """Whether CUDA graphs could be used, see `graph_obstacles`."""
    steps: int
    """Of the whole run."""
    saved: Compile | None
    """The choice of the run that is continued; None for a new one."""


def choose_compile(asked: Compile | Literal["auto"], case: CompileCase) -> Compile:
    """Whether the network is compiled: as asked or, for `auto`, on CUDA in long runs; a continued run keeps its choice.

    On other devices `auto` never compiles, whatever the run did before.
    """
    if asked != "auto":
        return asked
    if case.device_type != "cuda" or not case.possible:
        return False
    if case.saved is not None:
        return True if case.saved == "graphs" and not case.graphs_possible else case.saved
    return case.steps >= COMPILE_FROM


def compiles_evaluations(chosen: Compile, device_type: str, images: int, batch_size: int, evaluations: int) -> bool:
    """Whether a run also compiles the network that it evaluates: on CUDA, where it is called often enough."""
    calls = evaluations * math.ceil(images / batch_size)
    return chosen is not False and device_type == "cuda" and calls >= COMPILE_FROM


def resolve_compile(config: Config, steps: int, device: torch.device, ranks: Ranks, saved: Config | None) -> Config:
    """The config with its choice in place of `compile: auto`. saved: that of the run that is continued."""
    synced = config.model.backbone.norm == "sync_bn" and ranks.world_size > 1
    case = CompileCase(
        device_type=device.type,
        possible=can_compile(device.type) and config.data.canvases != "tight" and not synced,
        graphs_possible=not graph_obstacles(config, device, ranks),
        steps=steps,
        saved=None if saved is None or saved.compile == "auto" else saved.compile,
    )
    return config.model_copy(update={"compile": choose_compile(config.compile, case)})


def check_compile(config: Config, device: torch.device, ranks: Ranks) -> None:
    """Raise ConfigError or ResourceError if `config.compile`, unless it is `auto`, is impossible."""
    if config.compile == "auto" or config.compile is False:
        return
    if config.model.backbone.norm == "sync_bn" and ranks.world_size > 1:
        raise ConfigError("compile: a network with sync_bn over several processes is not compiled; use compile=false.")
    if config.compile == "graphs" and (obstacles := graph_obstacles(config, device, ranks)):
        raise ConfigError(list_errors("compile: graphs cannot be used here; use compile=auto", obstacles))
    check_compiler(device)


def graph_obstacles(config: Config, device: torch.device, ranks: Ranks) -> list[str]:
    """Why the network's forward and backward pass cannot be replayed as CUDA graphs; empty if they can.

    A replay writes to the memory of the one before. A step reads the network's outputs before its backward pass ends,
    and the gradients before the next forward pass begins, unless gradients of several micro-batches are added up or
    DistributedDataParallel keeps them in its buckets.
    """
    conditions = {
        f"CUDA graphs need a GPU by NVIDIA (device=cuda), and this run is on {device.type}": device.type != "cuda",
        "gradients of several micro-batches are added up: schedule.accumulation=1": config.schedule.accumulation > 1,
        "several processes exchange gradients: one process": ranks.world_size > 1,
    }
    return [text for text, holds in conditions.items() if holds]
