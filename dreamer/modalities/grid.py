"""Symbolic grids: cells of small integers that name things, one-hot and never measured.

Convolutions see one-hots of every layer; what a cell holds is predicted as classes, one
distribution per cell and layer. Numbers that name things have no distance: an image of them would
put a door between a key and a wall.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.modalities.image import CHANNEL_FACTORS, Conv, stages_of
from dreamer.nn.layers import MLP, Linear, NormedLinear
from dreamer.types import ConfigError, ObsSpec, SizeLike

DECODER_LAYERS = 2


def cells_of(specs: Mapping[str, ObsSpec]) -> tuple[int, int]:
    """Height and width of grid keys.

    Raises:
        ConfigError: If they differ.
    """
    sizes = sorted({(spec.shape[0], spec.shape[1]) for spec in specs.values()})
    if len(sizes) > 1:
        raise ConfigError(f"grids {sorted(specs)}", sizes, "one height and width for all of them")
    return sizes[0]


def classes_of(specs: Mapping[str, ObsSpec]) -> list[int]:
    """Classes of all layers, key after key."""
    return [classes for _, spec in sorted(specs.items()) for classes in spec.layers]


def one_hots(specs: Mapping[str, ObsSpec], obs: Mapping[str, Tensor]) -> Tensor:
    """key -> (..., height, width, layers) integers to (..., height, width, sum of classes)."""
    parts = [
        functional.one_hot(obs[key][..., layer].long(), classes)
        for key, spec in sorted(specs.items())
        for layer, classes in enumerate(spec.layers)
    ]
    return torch.cat(parts, -1).float()


class GridEncoder(nn.Module):
    """Grid keys, layer beside layer: every cell is embedded, then halved as an image is, thrice at
    most.

    Args:
        specs: Keys of this modality, of one height and width.
    """

    def __init__(
        self, specs: Mapping[str, ObsSpec], size: SizeLike, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        height, width = cells_of(specs)
        stages = stages_of(height, width)
        widths = [size.depth * factor for factor in CHANNEL_FACTORS[: stages + 1]]
        self.embed = NormedLinear(sum(classes_of(specs)), widths[0], generator)
        self.convs = nn.ModuleList(Conv(a, b, generator) for a, b in pairwise(widths))
        step = 2 ** len(self.convs)
        self.pad = (-height % step, -width % step)
        self.tokens = ((height + self.pad[0]) // step) * ((width + self.pad[1]) // step)
        self.out_dim = widths[-1] * self.tokens

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """key -> (..., height, width, layers) integers to (..., out_dim), position by position."""
        x = self.embed(one_hots(self.specs, obs))
        lead = x.shape[:-3]
        x = functional.pad(x.flatten(0, -4), (0, 0, 0, self.pad[1], 0, self.pad[0]))
        for conv in self.convs:
            x = cast(Conv, conv).down(x)
        return x.reshape(*lead, -1)


class GridDecoder(nn.Module):
    """Feature -> classes of every cell and layer; cross-entropy summed over both."""

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        feat_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        self.classes = classes_of(specs)
        self.height, self.width = cells_of(specs)
        stages = stages_of(self.height, self.width)
        widths = [size.depth * factor for factor in CHANNEL_FACTORS[stages::-1]]
        step = 2 ** (len(widths) - 1)
        self.low = (-(-self.height // step), -(-self.width // step))
        self.start = widths[0]
        cells = self.low[0] * self.low[1] * self.start
        self.mlp = MLP(feat_dim, size.units, DECODER_LAYERS, generator)
        self.spread = NormedLinear(size.units, cells, generator)
        self.convs = nn.ModuleList(Conv(a, b, generator) for a, b in pairwise(widths))
        self.out = Linear(widths[-1], sum(self.classes), generator)

    def forward(self, feat: Tensor) -> tuple[Tensor, ...]:
        """(..., F) -> per layer (..., height, width, classes) logits."""
        x = self.spread(self.mlp(feat.flatten(0, -2))).view(-1, *self.low, self.start)
        for conv in self.convs:
            x = cast(Conv, conv).up(x)
        logits = self.out(x[:, : self.height, : self.width].contiguous())
        return logits.view(*feat.shape[:-1], *logits.shape[1:]).split(self.classes, -1)

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """key -> (...) cross-entropy of all cells and layers."""
        losses, layers = {}, iter(self(feat))
        for key, spec in self.specs.items():
            wanted = one_hots({key: spec}, obs)
            log_probs = [functional.log_softmax(next(layers), -1) for _ in spec.layers]
            losses[key] = -(torch.cat(log_probs, -1) * wanted).sum((-3, -2, -1))
        return losses

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """key -> (..., height, width, layers) most probable classes."""
        decoded, layers = {}, iter(self(feat))
        for key, spec in self.specs.items():
            best = torch.stack([next(layers).argmax(-1) for _ in spec.layers], -1)
            decoded[key] = best.to(getattr(torch, spec.dtype))
        return decoded
