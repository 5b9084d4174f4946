"""Vectors and categorical numbers: symlog or one-hot, then an MLP.

Source: arXiv 2301.04104, "World model learning" and "Robust predictions" (symlog inputs and
    targets).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.layers import MLP, Linear
from dreamer.nn.math import symexp, symlog
from dreamer.types import ObsSpec, SizeLike

LAYERS = 3


def width_of(spec: ObsSpec) -> int:
    """Inputs that one key takes: its classes per entry, or its entries."""
    return math.prod(spec.shape) * max(spec.classes, 1)


def as_target(spec: ObsSpec, value: Tensor) -> Tensor:
    """(..., *shape) observation -> (..., width): one-hot, or symlog of the numbers."""
    lead = value.shape[: value.dim() - len(spec.shape)]
    if spec.kind == "categorical":
        one_hot = functional.one_hot(value.long(), spec.classes).float()
        return one_hot.reshape(*lead, -1)
    return symlog(value.float()).reshape(*lead, -1)


class VectorEncoder(nn.Module):
    """All vector keys, sorted by name and concatenated, through one MLP.

    Args:
        specs: Keys of this modality. size: Widths. generator: Source of the initial weights.
    """

    def __init__(
        self, specs: Mapping[str, ObsSpec], size: SizeLike, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        inputs = sum(width_of(spec) for spec in self.specs.values())
        self.mlp = MLP(inputs, size.units, LAYERS, generator)
        self.out_dim, self.tokens = size.units, 1

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """key -> (..., *shape) to (..., units)."""
        parts = [as_target(spec, obs[key]) for key, spec in self.specs.items()]
        return self.mlp(torch.cat(parts, -1))


class VectorDecoder(nn.Module):
    """Feature -> every vector key: symlog squared error, or cross-entropy for categorical ones."""

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        feat_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        self.widths = [width_of(spec) for spec in self.specs.values()]
        self.mlp = MLP(feat_dim, size.units, LAYERS, generator)
        self.out = Linear(size.units, sum(self.widths), generator)

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        """(..., F) -> key -> (..., width) symlog predictions or logits."""
        parts = self.out(self.mlp(feat)).split(self.widths, -1)
        return dict(zip(self.specs, parts, strict=True))

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """key -> (...) loss summed over the entries of the key."""
        losses = {}
        for key, predicted in self(feat).items():
            spec = self.specs[key]
            target = as_target(spec, obs[key]).detach()
            if spec.kind == "categorical":
                split = (-1, spec.classes)
                log_probs = functional.log_softmax(predicted.unflatten(-1, split), -1)
                losses[key] = -(log_probs * target.unflatten(-1, split)).sum((-2, -1))
            else:
                losses[key] = (predicted - target).square().sum(-1)
        return losses

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """key -> (..., *shape) in the units of the observation."""
        decoded = {}
        for key, predicted in self(feat).items():
            spec = self.specs[key]
            if spec.kind == "categorical":
                value = predicted.unflatten(-1, (-1, spec.classes)).argmax(-1)
            else:
                value = symexp(predicted)
            decoded[key] = value.reshape(*feat.shape[:-1], *spec.shape)
        return decoded
