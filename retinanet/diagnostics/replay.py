"""`retinanet replay`: repeat the step that ended a run, and name the first layer whose numbers are not finite."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from retinanet import distributed
from retinanet.build.network import prepare_torch
from retinanet.config.load import with_overrides
from retinanet.display.facts import Fact, Facts
from retinanet.run.checkpoint import load_weights
from retinanet.run.failures import Failure, read_failure
from retinanet.run.interrupts import StopRequest
from retinanet.training.parts import build_step_parts
from retinanet.training.state import build_state
from retinanet.training.step import accumulate_gradients, count_positives, prepare_micro_batches

_MOST_NAMES = 5


class BadLayer(NamedTuple):
    """A layer whose numbers are not finite."""

    layer: str
    kind: str
    what: str
    share: float
    """Part (0..1) of its numbers that is NaN or infinite."""
    largest_input: float
    """Largest finite absolute value that went into it."""

    def describe(self) -> str:
        """As a sentence without full stop."""
        return (
            f"{self.layer} ({self.kind}): {self.share:.2%} of {self.what} not finite; the largest finite value that it "
            f"got is {self.largest_input:.3g}"
        )


class Replay(NamedTuple):
    """What a repeated step has shown."""

    bad_weights: list[str]
    forward: BadLayer | None
    """The first in the forward pass."""
    loss_class: float
    loss_box: float
    bad_image_ids: list[int]
    backward: BadLayer | None
    """The first in the backward pass; None too if the loss is not finite, because then all follow."""
    bad_gradients: list[str]


def report_replay(path: Path, overrides: Sequence[str], rank: int = 0) -> None:
    """Print what `replay` finds. path, rank: as of `read_failure`. Raises a UserError for what cannot be repeated."""
    failure = read_failure(path, rank)
    result = replay(failure, overrides)
    finite = "every one is finite"
    names = ", ".join(result.bad_weights[:_MOST_NAMES])
    loss = f"class {result.loss_class:.4g}, box {result.loss_box:.4g}"
    images = f"; not finite on images {result.bad_image_ids}" if result.bad_image_ids else ""
    gradients = f"{len(result.bad_gradients)} parameters have gradients that are not finite"
    rows = [
        Fact("ended with", failure.message),
        Fact("step", f"{failure.state.progress.step + 1}, from the state before it"),
        Fact("weights", f"{len(result.bad_weights)} tensors are not finite: {names}" if names else finite),
        Fact("forward", result.forward.describe() if result.forward else "the output of every layer is finite"),
        Fact("loss", loss + images),
        Fact("backward", describe_backward(result)),
        Fact("gradients", gradients if result.bad_gradients else finite),
    ]
    Console().print(Facts(rows), crop=False)


def describe_backward(result: Replay) -> str:
    """The layer that made gradients infinite or NaN."""
    if result.bad_image_ids:
        return "says nothing, because the loss is not finite"
    return result.backward.describe() if result.backward else "every layer's gradients are finite"


def replay(failure: Failure, overrides: Sequence[str] = ()) -> Replay:
    """Forward and backward pass of a failed step with hooks on every layer; the weights are not updated.

    overrides: of the config, such as device=cpu or precision=float32.
    """
    state, ranks = failure.state, distributed.Ranks(rank=0, local_rank=0, world_size=1)
    config = with_overrides(state.config, overrides)
    device = distributed.choose_device(config.device, ranks)
    prepare_torch(config)
    run = build_state(config, len(state.categories), device, ranks, load_weights=False)
    load_weights(run.model, state.model, "state.pt")
    run.progress = state.progress
    parts = build_step_parts(config, device, ranks)
    micro_batches = prepare_micro_batches(run, failure.batches, parts)
    counted = count_positives(run, micro_batches, parts, StopRequest())
    with watching(run.model) as (forward, backward):
        losses = accumulate_gradients(run, micro_batches, counted.positives, parts)
    sums, finite_B = losses.sums_3.tolist(), losses.finite_B.cpu()
    ids_B = torch.cat([batch.image_ids_B for batch in failure.batches])
    return Replay(
        bad_weights=[name for name, value in run.model.state_dict().items() if not _is_finite(value)],
        forward=forward[0] if forward else None,
        loss_class=sums[0],
        loss_box=sums[1],
        bad_image_ids=ids_B[~finite_B].tolist(),
        backward=backward[0] if backward and bool(finite_B.all()) else None,
        bad_gradients=[
            name for name, p in run.model.named_parameters() if p.grad is not None and not _is_finite(p.grad)
        ],
    )


@contextmanager
def watching(model: nn.Module) -> Iterator[tuple[list[BadLayer], list[BadLayer]]]:
    """Within this context layers that make numbers infinite or NaN are listed: in the forward and the backward pass."""
    forward: list[BadLayer] = []
    backward: list[BadLayer] = []
    handles: list[RemovableHandle] = []

    def watch(name: str, layer: nn.Module) -> None:
        def before(_: nn.Module, inputs: Any) -> None:
            # Hooks of tensors, because those of modules forbid layers that work in place.
            for value in _tensors(inputs):
                if value.requires_grad:
                    value.register_hook(partial(on_gradient, value.detach().clone()))

        def on_gradient(given: Tensor, gradient: Tensor) -> None:
            note(backward, (name, layer), "the gradient of its input is", gradient, given)

        def after(_: nn.Module, inputs: Any, output: Any) -> None:
            note(forward, (name, layer), "its output is", output, inputs)

        handles.append(layer.register_forward_pre_hook(before))
        handles.append(layer.register_forward_hook(after))

    for name, layer in model.named_modules():
        if not any(True for _ in layer.children()):
            watch(name, layer)
    try:
        yield forward, backward
    finally:
        for handle in handles:
            handle.remove()


def note(found: list[BadLayer], named: tuple[str, nn.Module], what: str, results: Any, given: Any) -> None:
    """Add the layer if its results are not finite."""
    name, layer = named
    tensors = list(_tensors(results))
    bad = sum(int((~value.isfinite()).sum()) for value in tensors)
    if bad:
        finite = [value.detach()[value.isfinite()].abs().max() for value in _tensors(given) if value.isfinite().any()]
        found.append(
            BadLayer(
                layer=name,
                kind=type(layer).__name__,
                what=what,
                share=bad / sum(value.numel() for value in tensors),
                largest_input=float(max(finite, default=torch.tensor(0.0))),
            )
        )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Floating point tensors in nested tuples and lists."""
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, tuple | list):
        parts: Iterable[Any] = value
        for part in parts:
            yield from _tensors(part)


def _is_finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
