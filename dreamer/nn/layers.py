"""Layers: truncated-normal linear maps, RMS-normed blocks, MLPs and block-diagonal linear maps.

Source: arXiv 2301.04104 v2, "World model learning" and the official code (initialisation, order of
norm and activation, epsilon).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.fused import NORM_EPS, Norm, NormedLinearSiLU, NormSiLU, norm_silu

# A normal truncated at two standard deviations has 0.8796 of its width; 1.1368 restores it.
TRUNCATION_GAIN = 1.1368


def init_weight(weight: Tensor, fan_in: int, outscale: float, generator: torch.Generator) -> None:
    """Fill in place with a truncated normal of standard deviation outscale / sqrt(fan_in)."""
    if outscale == 0.0:
        nn.init.zeros_(weight)
        return
    std = TRUNCATION_GAIN * outscale * fan_in**-0.5
    nn.init.trunc_normal_(weight, 0.0, std, -2.0 * std, 2.0 * std, generator=generator)


class Linear(nn.Module):
    """x @ weight.T + bias with (outputs, inputs) weight and zero bias.

    Args:
        inputs, outputs: Widths. outscale: Multiplies the initial weight; 0 makes it exactly zero.
        generator: Source of the initial weight.
    """

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, outscale: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_weight(self.weight.data, inputs, outscale, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return functional.linear(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension with a learned scale and no shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return Norm.apply(x.reshape(-1, x.shape[-1]), self.scale).view(x.shape)
        return functional.rms_norm(x, (x.shape[-1],), self.scale, NORM_EPS)


class NormedSiLU(nn.Module):
    """RMSNorm with a learned scale, then SiLU, on (M, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(M, width) -> (M, width)."""
        if torch.compiler.is_compiling():  # it fuses the plain form by itself
            return functional.silu(functional.rms_norm(x, (x.shape[-1],), self.scale, NORM_EPS))
        if torch.is_grad_enabled():
            return NormSiLU.apply(x, self.scale)
        return norm_silu(x, self.scale)


class NormedLinear(nn.Module):
    """Linear -> RMSNorm -> SiLU, the unit every MLP of the agent is made of."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = Linear(inputs, outputs, generator)
        self.activate = NormedSiLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        weight, bias, scale = self.linear.weight, self.linear.bias, self.activate.scale
        if torch.compiler.is_compiling():
            out = self.activate(functional.linear(flat, weight, bias))
        elif torch.is_grad_enabled():
            out = NormedLinearSiLU.apply(flat, weight, bias, scale)
        else:
            out = norm_silu(functional.linear(flat, weight, bias), scale)
        return out.view(*x.shape[:-1], -1)


class MLP(nn.Module):
    """`layers` normed linear layers of `units`; no output layer."""

    def __init__(self, inputs: int, units: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = [inputs] + [units] * layers
        self.layers = nn.ModuleList(NormedLinear(a, b, generator) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., units)."""
        for layer in self.layers:
            x = layer(x)
        return x


class BlockLinear(nn.Module):
    """Block-diagonal linear map: block g maps its slice of the inputs to its slice of the outputs.

    The initial weight counts the inputs of ALL blocks as fan-in, as the official code does.

    Args:
        inputs, outputs: Widths over all blocks, both divisible by `blocks`.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))
        self.bias = nn.Parameter(torch.zeros(outputs))
        init_weight(self.weight.data, inputs, 1.0, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        parts = x.view(x.shape[0], self.blocks, -1).transpose(0, 1)
        out = torch.bmm(parts, self.weight)
        return out.transpose(0, 1).reshape(x.shape[0], -1) + self.bias
