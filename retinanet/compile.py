"""torch.compile for a run's network: whether the machine supports it, where compiled code is cached, error messages."""

import atexit
import hashlib
import logging
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinanet.errors import DataError, ResourceError
from retinanet.files import cache_folder, read_json, write_json

DIGESTS = "retinanet_digests.json"
"""In the folder of compiled code."""

Backend = Callable[[torch.fx.GraphModule, list[Any]], Callable[..., Any]]
"""What compiles a graph for inputs of these shapes."""


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


def compile_network(network: nn.Module, backend: Backend) -> None:
    """Compile `network`'s forward and backward, in place, for each input shape that occurs.

    Shapes are static to the compiler, so a run compiles once for each canvas of its data. Each compilation is one
    graph, which torch splits under DistributedDataParallel by its gradient buckets. Networks of the same layers and
    modes share what they compile with one backend. Parameters, their names and copies of the network are unaffected;
    results are equal up to rounding.
    """
    network.compile(backend=backend, fullgraph=True, dynamic=False)


def build_backend(device: torch.device, say: Callable[[str], None], *, graphs: bool = False) -> Backend:
    """The compiler of `compile_network` for `device`; `say` announces each compilation.

    graphs: also record CUDA graphs, whose results are valid until the next call. The rounding of code for CUDA depends
    on measurements on the device, unless torch is set to deterministic algorithms.
    """
    prepare_compiler()
    import torch._dynamo  # takes a second, so only if needed

    folder = _own_code_folder()
    if folder is not None:
        if damaged := remove_damaged(folder):
            say(f"{damaged} damaged files of compiled code were deleted from {folder}; they are compiled anew")
        atexit.register(record_code, folder)

    inductor = torch._dynamo.lookup_backend("inductor")
    # Canvases are few, and a fallback to the uncompiled network after N of them would change a resumed run.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 1 << 20

    options: dict[str, Any] = {}
    if device.type == "cuda":
        patches = {"triton.cudagraphs": graphs, "deterministic": torch.are_deterministic_algorithms_enabled()}
        options = {"config_patches": patches}

    def compiled(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        places = [node.name.strip("_").lower() for node in graph.graph.nodes if node.op == "placeholder"]
        for count, _, height, width in [given.shape for name, given in zip(places, inputs) if name == "l_images"]:
            say(f"compiling the network for {count} x {height} x {width} pixels: one step that takes minutes")
        code: Callable[..., Any] = inductor(graph, inputs, **options)
        if folder is not None:
            record_code(folder)
        return code

    return compiled


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Convert a failure of the compiler within the block into a ResourceError.

    Compiled code that may be the cause is deleted, so that it does not fail every later run.
    """
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except (BackendCompilerFailed, ImportError, OSError) as error:
        folder = _own_code_folder()
        # Cached libraries that cannot be loaded raise one of the others.
        if not isinstance(error, BackendCompilerFailed) and (folder is None or f"{folder}/" not in str(error)):
            raise
        lines = str(getattr(error, "inner_exception", error)).splitlines()
        reason = next((line for line in lines if line.strip()), type(error).__name__)
        removed = remove_unverified(folder) + remove_damaged(folder) if folder is not None else 0
        again = f"{removed} files that may be damaged were deleted from {folder}: try --resume. " if removed else ""
        raise ResourceError(
            f"compile: torch.compile failed: {reason}\n{again}Continue without it: compile=false --resume."
        ) from error


def _own_code_folder() -> Path | None:
    """The folder of compiled code if it is this project's alone; nothing is deleted from another."""
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", ""))
    with suppress(RuntimeError):  # no home folder
        if folder.parent == cache_folder("compiled") and folder.is_dir():
            return folder
    return None


def remove_damaged(folder: Path) -> int:
    """Delete files of compiled code that are not what `record_code` saw; returns their number.

    torch loads what it finds: a library with a flipped bit computes other numbers.
    """
    known = _known_code(folder)
    damaged = [name for name, digest in known.items() if (folder / name).is_file() and _digest(folder / name) != digest]
    for name in damaged:
        (folder / name).unlink(missing_ok=True)
        del known[name]
    if damaged:
        _write_known(folder, known)
    return len(damaged)


def remove_unverified(folder: Path) -> int:
    """Delete libraries that no run has loaded, such as a killed linker's half ones; returns their number.

    torch never compiles a library again whose file exists.
    """
    known = _known_code(folder)
    unknown = [path for path in folder.rglob("*.so") if path.relative_to(folder).as_posix() not in known]
    for path in unknown:
        path.unlink(missing_ok=True)
    return len(unknown)


def record_code(folder: Path) -> None:
    """Add the digests of compiled code that this process has loaded, and of files that torch writes atomically."""
    known = _known_code(folder)
    maps = Path("/proc/self/maps")  # Linux's; elsewhere no library is recorded
    loaded = maps.read_text(encoding="utf-8", errors="replace") if maps.exists() else ""
    added = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        is_sure = str(path) in loaded if path.suffix == ".so" else path.suffix in (".py", ".cpp", "")
        if name not in known and is_sure and path.is_file():
            with suppress(OSError):  # another run may delete it
                added[name] = _digest(path)
    if added:
        _write_known(folder, known | added)


def _known_code(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of files of compiled code; empty where there is no record, or a damaged one."""
    try:
        content = read_json(folder / DIGESTS)
    except DataError:
        return {}
    return {str(name): str(digest) for name, digest in content.items()} if isinstance(content, dict) else {}


def _write_known(folder: Path, known: Mapping[str, str]) -> None:
    with suppress(ResourceError):  # a full disk is reported by files that matter
        write_json(folder / DIGESTS, dict(known))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
