"""Running statistics that scale returns and rewards."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PercentileScale(nn.Module):
    """Exponential moving 5th and 95th percentiles of returns; their distance scales advantages.

    scale = max(floor, high - low). The moving averages start at 0 and are not debiased; the offset
    is not subtracted, because it cancels in advantages.

    Args:
        rate: Share of the new percentiles per update. floor: Least scale, so that noise is never
            amplified.

    Source: arXiv 2301.04104, "Actor learning".
    """

    low: Tensor
    high: Tensor

    def __init__(self, rate: float = 0.01, floor: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.floor = floor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def update(self, ret: Tensor) -> None:
        """Take in a batch of returns of any shape (linear interpolation between order
        statistics).
        """
        ordered = ret.detach().flatten().sort().values
        self.low.lerp_(_percentile(ordered, 0.05), self.rate)
        self.high.lerp_(_percentile(ordered, 0.95), self.rate)

    def scale(self) -> Tensor:
        """() current scale."""
        return (self.high - self.low).clamp_min(self.floor)


def _percentile(ordered: Tensor, share: float) -> Tensor:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)
