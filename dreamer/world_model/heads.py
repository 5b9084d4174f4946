"""Small predictors on features: reward, continuation, value. They return output distributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamer.nn.distributions import Bernoulli, SymexpTwoHot
from dreamer.nn.layers import MLP, Linear
from dreamer.nn.math import NUM_BINS


class ScalarHead(nn.Module):
    """Feature -> symexp two-hot distribution over a real number; 0 before training.

    An output of zeros, as in the paper, teaches the layers before it nothing until it has grown,
    and it grows along what is easy. One that is not must weigh each bin as its mirror image: the
    largest bins are 5e8, and what they are given beyond one another drowns the mean.

    Args:
        feat_dim: F. units, layers: Of the MLP before the output.
        outscale: Of the initial weights of the output.
    """

    def __init__(
        self,
        feat_dim: int,
        units: int,
        layers: int,
        generator: torch.Generator,
        outscale: float = 0.0,
    ) -> None:
        super().__init__()
        self.mlp = MLP(feat_dim, units, layers, generator)
        self.out = Linear(units, NUM_BINS, generator, outscale=outscale)
        half, weight = NUM_BINS // 2, self.out.weight.data
        weight[:half] = weight[half + 1 :].flip(0)

    def forward(self, feat: Tensor) -> SymexpTwoHot:
        """(..., F) -> distribution over (...)."""
        return SymexpTwoHot(self.out(self.mlp(feat)))


class ContinueHead(nn.Module):
    """Feature -> probability of going on, the discount included."""

    def __init__(self, feat_dim: int, units: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = MLP(feat_dim, units, layers, generator)
        self.out = Linear(units, 1, generator)

    def forward(self, feat: Tensor) -> Bernoulli:
        """(..., F) -> distribution over (...)."""
        return Bernoulli(self.out(self.mlp(feat)).squeeze(-1))
