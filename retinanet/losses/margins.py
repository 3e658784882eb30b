"""The dense sigmoid losses as functions of s = -y x: value and slope of one output, without its weight.

y is 1 at the label's class and -1 elsewhere, so s is large where the output is wrong: p_t = sigmoid(-s) (paper
section 3). By x the derivative is -y times the slope. Written for a compiler that makes one pass of them (`fused.py`):
one exponential, no branch, no log of zero. Legend: (...) any shape, float32 or float64.
"""

import torch
from torch import Tensor


def softplus_and_sigmoid(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log(1 + e^s), sigmoid(s) and log sigmoid(s), from one exponential that cannot overflow.

    log(1 + e) for e = exp(-|s|) in 0..1 is 2 artanh(z), z = e / (2 + e) <= 1/3, by its series to z^13: what is left
    out is under 3e-8 of it, and compilers vectorise this but not log1p.
    """
    e = torch.exp(-s.abs())
    z = e / (2.0 + e)
    q = z * z
    log_term = 2.0 * z * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q / 13))))))
    larger = 1.0 / (1.0 + e)
    sigmoid = torch.where(s >= 0, larger, e * larger)
    return s.clamp(min=0) + log_term, sigmoid, s.clamp(max=0) - log_term


def cross_entropy_margin(s: Tensor) -> tuple[Tensor, Tensor]:
    """-log p_t (equation 1) and its slope."""
    softplus, sigmoid, _ = softplus_and_sigmoid(s)
    return softplus, sigmoid


def focal_margin(s: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """-(1 - p_t)^gamma log p_t (equation 4) and its slope (appendix B)."""
    softplus, sigmoid, log_sigmoid = softplus_and_sigmoid(s)
    modulation = sigmoid * sigmoid if gamma == 2.0 else torch.exp(gamma * log_sigmoid)
    return modulation * softplus, modulation * (gamma * (1.0 - sigmoid) * softplus + sigmoid)


def focal_star_margin(s: Tensor, gamma: float, beta: float) -> tuple[Tensor, Tensor]:
    """-log(sigmoid(gamma x_t + beta)) / gamma (appendix A) and its slope."""
    softplus, sigmoid, _ = softplus_and_sigmoid(gamma * s - beta)
    return softplus / gamma, sigmoid
