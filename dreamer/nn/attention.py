"""Attention between tokens, as one residual block.

Source: Vaswani et al. 2017 (arXiv 1706.03762); the norm before each part as in arXiv 2002.04745.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.layers import Linear, NormedLinear, RMSNorm

HEADS = 4  # or as many of them as divide the width


class AttentionBlock(nn.Module):
    """Attention between all tokens, then an MLP on each; both are added to what came in.

    The MLP is no wider than the tokens: a wider one is a third of the cost of attention here.

    Args:
        units: Width of the tokens. generator: Source of the initial weights.
    """

    def __init__(self, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = math.gcd(HEADS, units)
        self.norms = nn.ModuleList(RMSNorm(units) for _ in range(2))
        self.qkv = Linear(units, 3 * units, generator)
        self.out = Linear(units, units, generator)
        self.hidden = NormedLinear(units, units, generator)
        self.back = Linear(units, units, generator)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(M, n, units) -> (M, n, units).

        Args:
            mask: (M, 1, 1, n) bool, which tokens are heard; None is all. One at least must be.
        """
        q, k, v = self._heads(x)
        heard = functional.scaled_dot_product_attention(q, k, v, mask)
        x = x + self.out(heard.transpose(1, 2).flatten(-2))
        return x + self.back(self.hidden(self.norms[1](x)))

    @torch.no_grad()
    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(M, heads, n, n): how much each token, a row, hears of each, a column; rows sum to one.

        For those who look on: `forward` is computed without ever holding them.

        Args: As of `forward`.
        """
        q, k, _ = self._heads(x)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)

    def _heads(self, x: Tensor) -> Tensor:
        """Queries, keys and values (3, M, heads, n, units / heads)."""
        qkv = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1))
        return qkv.permute(2, 0, 3, 1, 4)
