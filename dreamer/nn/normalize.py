"""Running statistics that scale returns and rewards."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PercentileScale(nn.Module):
    """Exponential moving 5th and 95th percentiles of returns; their distance scales advantages.

    scale = max(floor, high - low). The moving averages start at 0; the offset is not subtracted,
    because it cancels in advantages.

    Args:
        rate: Share of the new percentiles per update. floor: Least scale, so that noise is never
            amplified.
        debias: Whether to divide by the share of the averages that was seen. The paper does not,
            and with its floor of 1 hardly needs to; with a lower one the first updates would be
            amplified.

    Source: arXiv 2301.04104, "Actor learning".
    """

    low: Tensor
    high: Tensor
    mass: Tensor

    def __init__(self, rate: float = 0.01, floor: float = 1.0, *, debias: bool = False) -> None:
        super().__init__()
        self.rate, self.floor = rate, floor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("mass", torch.zeros(()) if debias else torch.ones(()))

    def update(self, ret: Tensor) -> None:
        """Take in a batch of returns of any shape (linear interpolation between order
        statistics).
        """
        ordered = ret.detach().flatten().sort().values
        self.low.lerp_(_percentile(ordered, 0.05), self.rate)
        self.high.lerp_(_percentile(ordered, 0.95), self.rate)
        self.mass.lerp_(torch.ones_like(self.mass), self.rate)

    def scale(self) -> Tensor:
        """() current scale."""
        return ((self.high - self.low) / self.mass.clamp_min(self.rate)).clamp_min(self.floor)


def _percentile(ordered: Tensor, share: float) -> Tensor:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)


class RunningScale(nn.Module):
    """Divides by the root of a debiased moving mean of squares and clips to [-limit, limit].

    Args:
        rate: Share of the new batch per update. limit: Of the result.
    """

    square: Tensor
    mass: Tensor

    def __init__(self, rate: float = 0.01, limit: float = 5.0) -> None:
        super().__init__()
        self.rate, self.limit = rate, limit
        self.register_buffer("square", torch.zeros(()))
        self.register_buffer("mass", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Take in a batch of any shape, in training mode, and scale it."""
        if self.training:
            self.square.lerp_(x.detach().square().mean(), self.rate)
            self.mass.lerp_(torch.ones_like(self.mass), self.rate)
        root = (self.square / self.mass.clamp_min(self.rate)).sqrt().clamp_min(1e-8)
        return (x / root).clamp(-self.limit, self.limit)


class RunningCenter(nn.Module):
    """Subtracts a debiased moving mean.

    Args:
        rate: Share of the new batch per update.
    """

    mean: Tensor
    mass: Tensor

    def __init__(self, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("mass", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Take in a batch of any shape, in training mode, and centre it."""
        if self.training:
            self.mean.lerp_(x.detach().mean(), self.rate)
            self.mass.lerp_(torch.ones_like(self.mass), self.rate)
        return x - self.mean / self.mass.clamp_min(self.rate)
