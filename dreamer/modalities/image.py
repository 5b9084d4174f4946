"""Images: convolution and max-pooling down, sub-pixel convolution up.

A nearest-neighbour upsampling followed by a 5x5 convolution equals a 3x3 convolution to four times
the channels at the low resolution and a pixel shuffle, with a kernel that sums the 5x5 taps which
fall on the same low-resolution pixel: 36 instead of 100 multiplications per output, and the same
parameters.

Source: layer sizes of the official DreamerV3 code (2024-12 on); arXiv 2301.04104, "World model
learning".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.layers import BlockLinear, Linear, NormedLinear, NormedSiLU, init_weight
from dreamer.types import ConfigError, ObsSpec, SizeLike

CHANNEL_FACTORS = (2, 3, 4, 4)
KERNEL = 5
LEAST_RESOLUTION = 3
BLOCKS = 8
# Which low-resolution tap (row) each of the 5 kernel positions (column) falls on, for even and odd
# pixels.
PHASES = (
    ((1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)),
    ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)),
)


def stages_of(height: int, width: int) -> int:
    """Number of halvings (at most four) that leave a resolution of at least three."""
    stages = 0
    while stages < len(CHANNEL_FACTORS) and min(height, width) / 2 ** (stages + 1) >= (
        LEAST_RESOLUTION
    ):
        stages += 1
    return stages


def channels_of(specs: Mapping[str, ObsSpec]) -> tuple[int, int, int]:
    """Height, width and summed channels of image keys.

    Raises:
        ConfigError: If resolutions differ or are below 6 pixels.
    """
    what, sizes = f"images {sorted(specs)}", sorted({spec.shape[:2] for spec in specs.values()})
    if len(sizes) != 1:
        allowed = "one resolution; choose others by env.active_modalities, or as grid or vector"
        raise ConfigError(what, sizes, allowed)
    height, width = sizes[0]
    if min(height, width) < 2 * LEAST_RESOLUTION:
        allowed = "6x6 and more; a smaller one may be a vector (env.modalities)"
        raise ConfigError(what, f"{height}x{width}", allowed)
    return height, width, sum(spec.shape[2] for spec in specs.values())


class Conv(nn.Module):
    """5x5 convolution, zero bias, RMS norm over channels and SiLU (unless it is the last)."""

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, *, last: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.activate = None if last else NormedSiLU(outputs)
        init_weight(self.weight.data, KERNEL * KERNEL * inputs, 1.0, generator)

    def down(self, x: Tensor) -> Tensor:
        """(M, H, W, C) -> (M, H/2, W/2, C'): convolve, pool, normalise."""
        x = functional.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, padding=2)
        return self._activate(functional.max_pool2d(x, 2).permute(0, 2, 3, 1))

    def up(self, x: Tensor) -> Tensor:
        """(M, H, W, C) -> (M, 2H, 2W, C'): upsample and convolve in sub-pixel form, normalise."""
        batch, height, width, _ = x.shape
        phases = self.weight.new_tensor(PHASES)
        weight = torch.einsum("auk,bvl,ockl->abocuv", phases, phases, self.weight)
        weight = weight.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        x = functional.conv2d(x.permute(0, 3, 1, 2), weight, self.bias.repeat(4), padding=1)
        x = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, -1)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)
        return self._activate(x)

    def _activate(self, x: Tensor) -> Tensor:
        if self.activate is None:
            return x
        return self.activate(x.reshape(-1, x.shape[-1])).view(x.shape)


class ImageEncoder(nn.Module):
    """Image keys concatenated over channels, through convolutions down to 3 to 6 pixels.

    Args:
        specs: Keys of this modality, (height, width, channels) uint8 of one resolution.
    """

    def __init__(
        self, specs: Mapping[str, ObsSpec], size: SizeLike, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.keys = sorted(specs)
        height, width, channels = channels_of(specs)
        stages = stages_of(height, width)
        widths = [channels] + [size.depth * f for f in CHANNEL_FACTORS[:stages]]
        self.convs = nn.ModuleList(Conv(a, b, generator) for a, b in pairwise(widths))
        step = 2**stages
        self.pad = (-height % step, -width % step)
        self.tokens = ((height + self.pad[0]) // step) * ((width + self.pad[1]) // step)
        self.out_dim = widths[-1] * self.tokens

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """key -> (..., height, width, channels) uint8 to (..., out_dim), pixel by pixel."""
        image = torch.cat([obs[key] for key in self.keys], -1)
        lead = image.shape[:-3]
        x = image.flatten(0, -4).float() / 255.0 - 0.5
        x = functional.pad(x, (0, 0, 0, self.pad[1], 0, self.pad[0]))
        for conv in self.convs:
            x = cast(Conv, conv).down(x)
        return x.reshape(*lead, -1)


class ImageDecoder(nn.Module):
    """Feature -> image keys in [0, 1]; squared error summed over pixels and channels."""

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        feat_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        self.deter = size.deter
        self.height, self.width, channels = channels_of(specs)
        stages = stages_of(self.height, self.width)
        self.low = (-(-self.height // 2**stages), -(-self.width // 2**stages))
        factors = CHANNEL_FACTORS[:stages]
        self.start = size.depth * factors[-1]
        # Eight, unless there are fewer stages and the channels do not divide by eight.
        self.blocks = math.gcd(BLOCKS, self.start)
        cells = self.low[0] * self.low[1] * self.start
        self.from_deter = BlockLinear(size.deter, cells, self.blocks, generator)
        self.stoch_hidden = NormedLinear(feat_dim - size.deter, 2 * size.units, generator)
        self.from_stoch = Linear(2 * size.units, cells, generator)
        self.activate = NormedSiLU(self.start)
        widths = [self.start, *(size.depth * f for f in factors[-2::-1])]
        self.convs = nn.ModuleList(Conv(a, b, generator) for a, b in pairwise(widths))
        self.convs.append(Conv(widths[-1], channels, generator, last=True))

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        """(..., F) -> key -> (..., height, width, channels) in [0, 1]."""
        flat = feat.flatten(0, -2)
        deter, stoch = flat[:, : self.deter], flat[:, self.deter :]
        spread = self.from_deter(deter).view(len(flat), self.blocks, *self.low, -1)
        x = spread.permute(0, 2, 3, 1, 4).reshape(len(flat), *self.low, self.start)
        x = x + self.from_stoch(self.stoch_hidden(stoch)).view_as(x)
        x = self.activate(x.reshape(-1, self.start)).view(x.shape)
        for conv in self.convs:
            x = cast(Conv, conv).up(x)
        x = torch.sigmoid(x[:, : self.height, : self.width])
        x = x.reshape(*feat.shape[:-1], self.height, self.width, -1)
        parts = x.split([spec.shape[2] for spec in self.specs.values()], -1)
        return dict(zip(self.specs, parts, strict=True))

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """key -> (...) squared error against uint8 images scaled to [0, 1]."""
        return {
            key: (image - obs[key].float() / 255.0).square().sum((-3, -2, -1))
            for key, image in self(feat).items()
        }

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """key -> (..., height, width, channels) uint8."""
        return {key: (image * 255.0).round().to(torch.uint8) for key, image in self(feat).items()}
