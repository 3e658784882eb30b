"""Gradients over ranks, in a process group of one: in bfloat16, and of a compiled network."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch.distributed as dist
from torch import Tensor

from retinanet.build.network import prepare_torch
from retinanet.compile import build_backend, compile_network
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.run.interrupts import StopRequest
from retinanet.training.batches import load_data, load_steps
from retinanet.training.parts import build_step_parts
from retinanet.training.state import build_state
from retinanet.training.step import train_step

Tiny = Callable[..., Config]
CPU, FIRST_OF_TWO = torch.device("cpu"), Ranks(0, 0, 2)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """The group that DistributedDataParallel exchanges gradients in."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def gradients(config: Config, compiled: bool = False) -> dict[str, Tensor]:
    """The gradients of a first step of two micro-batches."""
    prepare_torch(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = build_state(config, 3, CPU, FIRST_OF_TWO)
    if compiled:
        compile_network(state.model, build_backend(CPU, lambda _: None))
    steps = load_steps(config, load_data(config, Ranks(0, 0, 1))[0], (0, 1), Ranks(0, 0, 1), pin=False)
    train_step(state, next(steps), build_step_parts(config, CPU, FIRST_OF_TWO), StopRequest())
    steps.close()
    return {name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None}


def test_gradients_in_bfloat16_are_those_of_float32_rounded(tiny: Tiny, group: None) -> None:
    words = ("schedule.accumulation=2", "schedule.clip_norm=null")
    exact, rounded = (gradients(tiny(*words, f"distributed.gradients={kind}")) for kind in ("float32", "bfloat16"))
    assert exact.keys() == rounded.keys()
    for name, gradient in exact.items():
        assert torch.equal(rounded[name], gradient.bfloat16().float()), name


@pytest.mark.slow
def test_a_compiled_network_exchanges_the_same_gradients(
    tiny: Tiny, group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch splits the graph by the gradient buckets; only the last micro-batch exchanges."""
    traced = torch._dynamo.lookup_backend("eager")
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _name: traced)
    torch._dynamo.reset()
    config = tiny("schedule.accumulation=2", "model.backbone.name=resnet18")
    plain, compiled = gradients(config), gradients(config, compiled=True)
    assert plain.keys() == compiled.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(compiled[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
