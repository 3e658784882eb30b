"""torch.compile for a run's network: whether the machine supports it, where compiled code is cached, error messages."""

import hashlib
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from retinanet.errors import ResourceError
from retinanet.files import cache_folder


@lru_cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile has what it needs on a device: a C++ compiler for the CPU, Triton for CUDA."""
    if device_type == "cpu":
        command = shlex.split(os.environ.get("CXX", "")) or ["g++"]
        return shutil.which(command[0]) is not None
    return device_type == "cuda" and find_spec("triton") is not None


def check_compiler(device: torch.device) -> None:
    """ResourceError if this machine cannot compile a network for `device`."""
    if not can_compile(device.type):
        needed = {"cpu": "a C++ compiler (g++, or the one that CXX names)", "cuda": "Triton"}.get(device.type)
        remedy = f"install {needed}, or set compile=false" if needed else "set compile=false"
        raise ResourceError(f"compile: this machine cannot compile a network for {device.type}; {remedy}.")


def prepare_compiler() -> None:
    """Configure torch.compile for this process.

    Compiled code is cached in the user's cache folder, where it survives a reboot, instead of torch's default in /tmp,
    in one folder for each kind of processor. TORCHINDUCTOR_CACHE_DIR takes precedence, and torch's default remains if
    the folder is not writable.
    """
    # On machines with CUDA's files and no GPU it logs a warning that there is none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # torch sets the variable to its default itself: torch 2.14 does so when torchvision is imported.
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) != default_cache_dir():
        return
    with suppress(OSError, RuntimeError):  # a home folder that is missing, unknown or full
        folder = cache_folder("compiled") / _processor()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def _processor() -> str:
    """Name of the processor's instructions, such as `avx2-1f0a93c2`, for a home folder that several machines share.

    torch's cache does not notice that they differ: code written for AVX512 loads with AVX2 too and reads half the
    numbers (torch 2.14: class losses were wrong by up to 92 %, or the process ended).
    """
    features = sorted(name for name, value in torch.cpu.get_capabilities().items() if value is True)
    digest = hashlib.sha256(repr(features).encode()).hexdigest()[:8]
    return f"{torch.backends.cpu.get_cpu_capability().lower().replace(' ', '_')}-{digest}"


def compile_network(network: nn.Module, say: Callable[[str], None]) -> None:
    """Compile `network`'s forward and backward, in place, for each input shape that occurs.

    Shapes are static to the compiler, so a run compiles once for each canvas of its data; `say` announces each time.
    Each compilation is one graph, which torch splits under DistributedDataParallel by its gradient buckets. Parameters,
    their names and copies of the network are unaffected; results are equal up to rounding.
    """
    prepare_compiler()
    import torch._dynamo  # takes a second, so only if needed

    inductor = torch._dynamo.lookup_backend("inductor")
    # Canvases are few, and a fallback to the uncompiled network after N of them would change a resumed run.
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
    """Convert a failure of the compiler within the block into a ResourceError."""
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except BackendCompilerFailed as error:
        lines = str(error.inner_exception or error).splitlines()
        reason = next((line for line in lines if line.strip()), type(error).__name__)
        raise ResourceError(
            f"compile: torch.compile failed: {reason}\nContinue without it: compile=false --resume."
        ) from error
