"""The contestants that the parts on whole networks share: ours by precision, torchvision's variants, files' models."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.contest import Comparison, Contestant, Precision
from benchmarks.foreign import foreign_contestant
from benchmarks.options import TORCHVISION, Options
from benchmarks.ours import own_precisions
from benchmarks.theirs import AS_SHIPPED, Variant, variants

Goals = Mapping[tuple[str, str], float]
"""(one of ours, peer) -> least ratio."""


class Field(NamedTuple):
    """Who takes part, and who is compared with whom."""

    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    flops_of: str | None
    """Whose arithmetic a share of the peak is counted by; None: a compiled network's cannot be counted."""


def build_field(
    options: Options,
    ours: Callable[[Precision], Contestant],
    theirs: Callable[[Variant], Contestant],
    goals: Goals,
) -> Field:
    """All contestants; ours in float32 meets float32 alone, in bfloat16 everyone, each of ours every file's model.

    goals name ours `ours PRECISION`, however `ours` itself names what it makes.
    """
    device = torch.device(options.device)
    own = own_precisions(device)
    known = variants(device, "bfloat16" in own) if TORCHVISION in options.peers else ()
    files = [foreign_contestant(Path(peer), options) for peer in options.peers if peer != TORCHVISION]
    mine = {precision: ours(precision) for precision in own}
    return Field(
        (*mine.values(), *map(theirs, known), *files),
        (
            *(_comparison(mine[p], v, goals) for p in own for v in known if p != "float32" or v.precision == p),
            *(Comparison(mine[p].name, file.name, "whatever that file does otherwise") for p in own for file in files),
        ),
        AS_SHIPPED.name if known else None if options.compile else mine[own[0]].name,
    )


def finite_losses(results: Mapping[str, Any]) -> str:
    """Weights differ, so losses do too; each must be a number."""
    for name, value in results.items():
        assert value is None or math.isfinite(value), f"{name}: its loss is {value}"
    return ""


def _comparison(ours: Contestant, variant: Variant, goals: Goals) -> Comparison:
    precisions = "" if ours.precision == variant.precision else f"{ours.precision} against {variant.precision}"
    told = "; ".join(text for text in (precisions, variant.not_same) if text)
    return Comparison(ours.name, variant.name, told, at_least=goals.get((f"ours {ours.precision}", variant.name)))
