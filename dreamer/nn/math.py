"""Pure functions of tensors: squashing, two-hot bins, lambda-returns.

Source: Hafner et al., "Mastering diverse domains through world models" (arXiv 2301.04104; Nature
2025), sections "Robust predictions" and "Critic learning", in the form of the current official
code.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

NUM_BINS = 255


def symlog(x: Tensor) -> Tensor:
    """sign(x) * ln(1 + |x|), any shape."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`, any shape."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


@cache
def symexp_bins(device: torch.device) -> Tensor:
    """(255,) float32 bins: symexp of a linear grid on [-20, 20].

    One half is computed and mirrored, so that bin 127 is exactly 0 and the bins are exactly
    symmetric.
    """
    grid = torch.linspace(-20.0, 0.0, NUM_BINS // 2 + 1, dtype=torch.float64)
    half = symexp(grid).float()
    return torch.cat([half, -half[:-1].flip(0)]).to(device)


def two_hot(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring bins of raw (not symlog) targets and the weight of the upper one.

    Args:
        target: (...) float32; beyond the outermost bins all mass goes to the end bin.

    Returns:
        lower, upper: (...) int64 bin indices; weight: (...) of `upper` in [0, 1].
    """
    bins = symexp_bins(target.device)
    above = torch.searchsorted(bins, target.contiguous(), right=True)
    lower = (above - 1).clamp(0, NUM_BINS - 1)
    upper = above.clamp(0, NUM_BINS - 1)
    low, high = bins[lower], bins[upper]
    width = high - low
    inside = width > 0
    weight = torch.where(inside, (target - low) / torch.where(inside, width, 1.0), 0.0)
    return lower, upper, weight.clamp(0.0, 1.0)


def lambda_return(reward: Tensor, value: Tensor, cont: Tensor, lam: float) -> Tensor:
    """Bootstrapped lambda-returns along imagined time.

    R_t = r_{t+1} + c_{t+1} * ((1 - lam) * v_{t+1} + lam * R_{t+1}), R_H = v_H.

    Args:
        reward: (H + 1, N); entry t was received on arriving at state t, entry 0 is not used.
        value: (H + 1, N) critic estimate; entry 0 is not used.
        cont: (H + 1, N) in [0, 1], the discount already folded in; entry 0 is not used.
        lam: Mixing weight in [0, 1].

    Returns:
        (H, N) returns of states 0 .. H - 1.

    Source: arXiv 2301.04104, "Critic learning".
    """
    interim = reward[1:] + (1.0 - lam) * cont[1:] * value[1:]
    carry = value[-1]
    returns = []
    for step in reversed(range(len(interim))):
        carry = interim[step] + lam * cont[step + 1] * carry
        returns.append(carry)
    return torch.stack(returns[::-1])


def replay_return(
    reward: Tensor,
    bootstrap: Tensor,
    is_last: Tensor,
    is_terminal: Tensor,
    discount: float,
    lam: float,
) -> Tensor:
    """Lambda-returns of replayed steps, bootstrapped from the first imagined return of each step.

    Truncation (last, not terminal) bootstraps fully; a terminal step does not bootstrap at all.

    Args:
        reward: (T, B). bootstrap: (T, B) imagined return from each step.
        is_last, is_terminal: (T, B) bool. discount, lam: in [0, 1].

    Returns:
        (T - 1, B) returns; the last step has no successor.
    """
    live = (~is_terminal[1:]).float() * discount
    mix = (~is_last[1:]).float() * lam
    interim = reward[1:] + live * (1.0 - mix) * bootstrap[1:]
    decay = live * mix
    carry = bootstrap[-1]
    returns = []
    for step in reversed(range(len(interim))):
        carry = interim[step] + decay[step] * carry
        returns.append(carry)
    return torch.stack(returns[::-1])
