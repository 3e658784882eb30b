"""torch.compile for what a run computes again and again, and whether a machine has what that needs."""

import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinanet.errors import ResourceError


@lru_cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile has what it needs there: a C++ compiler for the CPU, Triton for a CUDA device."""
    if device_type == "cpu":
        command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
        return shutil.which(command[0]) is not None
    return device_type == "cuda" and find_spec("triton") is not None


def check_compiler(device: torch.device) -> None:
    """ResourceError where config `compile` asks for what the machine cannot do."""
    if not can_compile(device.type):
        needed = {"cpu": "a C++ compiler (g++, or the one that CXX names)", "cuda": "Triton"}.get(device.type)
        mend = f"install {needed}, or set" if needed else "set"
        raise ResourceError(f"compile: this machine cannot compile a network for {device.type}; {mend} compile=false.")


def prepare_compiler() -> None:
    """Settings of torch.compile for all that this process compiles.

    Compiled code goes where it outlives a reboot, unless the user has said where or it cannot: torch's choice is /tmp.
    """
    # On machines with CUDA's files and no GPU it would tell every user that it found none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    with suppress(OSError, RuntimeError):  # a home that is not there, or not known, or full
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinanet" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def compile_network(network: nn.Module, say: Callable[[str], None]) -> None:
    """Compile `network`'s forward and backward, in place, for each shape of images that it meets.

    Shapes are known to the compiler, so a run compiles as often as its data have canvases, and tells `say` each time.
    Each is one graph, which torch splits under DistributedDataParallel by its buckets of gradients. Parameters, their
    names and copies of the network stay as they are; results are equal to rounding.
    """
    prepare_compiler()
    import torch._dynamo  # a second to import, for those who need it

    inductor = torch._dynamo.lookup_backend("inductor")
    # Canvases are few, and a network that ran uncompiled after so many would no longer be the one that is resumed.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1 << 20

    def compiled(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        places = [node.name.strip("_").lower() for node in graph.graph.nodes if node.op == "placeholder"]
        for count, _, height, width in [given.shape for name, given in zip(places, inputs) if name == "l_images"]:
            say(f"compiling the network for {count} x {height} x {width} pixels: one step that takes minutes")
        code: Callable[..., Any] = inductor(graph, inputs)
        return code

    network.compile(backend=compiled, fullgraph=True, dynamic=False)


@contextmanager
def compiler_errors() -> Iterator[None]:
    """A compiler that fails on a network becomes a ResourceError."""
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except BackendCompilerFailed as error:
        lines = str(error.inner_exception or error).splitlines()
        reason = next((line for line in lines if line.strip()), type(error).__name__)
        raise ResourceError(
            f"compile: torch.compile failed: {reason}\nContinue with compile=false --resume."
        ) from error
