"""Tests that need CUDA, and are skipped without it.

RETINANET_GPU_TESTS=cpu runs them on the CPU, which finds mistakes in the tests themselves, not in the CUDA path.
"""

import os
from collections.abc import Iterator

import pytest
import torch

from benchmarks.gpu.numerics import Checks, Setting


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or the CPU in a dry run."""
    if os.environ.get("RETINANET_GPU_TESTS") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here; RETINANET_GPU_TESTS=cpu tries these tests' own code on the CPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # is read at the first product
    return torch.device("cuda", 0)


@pytest.fixture
def setting(device: torch.device) -> Setting:
    """What `benchmarks.gpu.numerics` compares with the CPU."""
    return Setting(device=device, canvas=(64, 96), images=2, checks=Checks())


@pytest.fixture(autouse=True)
def arithmetic_is_restored() -> Iterator[None]:
    """The process-wide switches that `prepare_torch` sets."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before
    torch.use_deterministic_algorithms(was_deterministic, warn_only=True)
