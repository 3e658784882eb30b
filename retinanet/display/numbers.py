"""One way to print metrics, differences and p-values, in terminals and reports alike."""

import math

NOTHING = "–"
"""Stands for a number that is not known."""


def amount(count: int, noun: str) -> str:
    """A count with its noun, given in the singular: `1 image`, `1,200 boxes`."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x")) else "s"
    return f"{count:,} {noun}{ending}"


def epochs_text(epochs: float) -> str:
    """Epochs to three digits: `1 epoch`, `0.667 epochs`."""
    shown = f"{epochs:.3g}"
    return f"{shown} epoch" if shown == "1" else f"{shown} epochs"


def points(value: float, decimals: int = 1) -> str:
    """A metric in 0..1 as points; a dash for NaN and for COCO's -1."""
    return NOTHING if math.isnan(value) or value < 0 else f"{100 * value:.{decimals}f}"


def signed_points(value: float, decimals: int = 1) -> str:
    """A difference of metrics in -1..1 as points with its sign, a minus sign for negative ones; a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{100 * value:+.{decimals}f}".replace("-", "−")


def p_text(p: float) -> str:
    """A p-value to three decimals, `<0.001` below that; a dash for NaN."""
    return NOTHING if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
