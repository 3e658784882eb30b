"""torch.compile for what a run computes again and again, and whether a machine has what that needs."""

import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinanet.errors import ResourceFault

MOST_SHAPES = 64
"""Shapes of images that a network may be compiled for: seven canvases at nine sizes."""


@lru_cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile has what it needs there: a C++ compiler for the CPU, Triton for a CUDA device."""
    if device_type == "cpu":
        command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
        return shutil.which(command[0]) is not None
    return device_type == "cuda" and find_spec("triton") is not None


def check_compiler(device: torch.device) -> None:
    """ResourceFault where config `compile` asks for what the machine cannot do."""
    if not can_compile(device.type):
        needed = {"cpu": "a C++ compiler (g++, or the one that CXX names)", "cuda": "Triton"}.get(device.type)
        mend = f"install {needed}, or set" if needed else "set"
        raise ResourceFault(f"compile: this machine cannot compile a network for {device.type}; {mend} compile=false.")


def keep_compiled() -> None:
    """Have compiled code outlive a reboot, unless the user has said where it goes: torch's own choice is /tmp."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinanet" / "compiled"
    with suppress(OSError):  # a home that cannot be written to: torch's choice then
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def compile_network(network: nn.Module, say: Callable[[str], None]) -> None:
    """Compile `network`'s forward and backward, in place, as one graph for each shape of images that it meets.

    Shapes are known to the compiler, so a run compiles as often as its data have canvases, and tells `say` each time.
    Parameters, their names and copies of the network stay as they are; results are equal to rounding.
    """
    keep_compiled()
    import torch._dynamo  # a second to import, for those who need it

    inductor = torch._dynamo.lookup_backend("inductor")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)

    def compiled(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        say(f"compiling the network for {_images_of(graph, inputs)}: one step that takes minutes")
        code: Callable[..., Any] = inductor(graph, inputs)
        return code

    network.compile(backend=compiled, fullgraph=True, dynamic=False)


def _images_of(graph: torch.fx.GraphModule, inputs: list[Any]) -> str:
    """Number and size of the images among a graph's inputs, which are mostly parameters."""
    places = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    for name, given in zip(places, inputs, strict=True):
        if name.strip("_").lower() == "l_images":
            count, _, height, width = given.shape
            return f"{count} x {height} x {width} pixels"
    return "images of a new shape"
