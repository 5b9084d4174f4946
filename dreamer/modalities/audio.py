"""Audio: convolutions over the waveform or over its mel bands; its spectrum is what is predicted.

What is predicted is the same for both, because it is to be turned back into the units of the
observation, and because losses of agents that hear differently can be compared then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.modalities.mel import LEAST, LogMel, resampled
from dreamer.modalities.spectrum import Spectrum, window_of
from dreamer.nn.layers import MLP, Linear, NormedSiLU, init_weight
from dreamer.types import SILENCE, ConfigError, ObsSpec, SizeLike, check_range

STRIDE, KERNEL = 4, 9  # over samples
MEL_STRIDE, MEL_KERNEL = 2, 3  # over frames
CHANNEL_FACTOR = 4
SHORTEST = 8  # positions at which the convolutions stop
LAYERS = 3


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """How sounds are heard.

    Attributes:
        features: What the encoder is given: the `waveform`, or the loudness of `mel` bands.
        rate: Samples per second that a sound is resampled to before its mel bands are measured, or
            `auto` for its own.
        bins: Number of mel bands.
    """

    features: Literal["waveform", "mel"]
    rate: int | Literal["auto"]
    bins: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.features not in ("waveform", "mel"):
            raise ConfigError("features", self.features, "waveform or mel")
        if self.rate != "auto":
            check_range("rate", self.rate, 1000, 192000)
            if self.features == "waveform":
                raise ConfigError("rate", self.rate, "auto, or features: mel")
        check_range("bins", self.bins, 4, 256)


def as_wave(value: Tensor) -> Tensor:
    """(..., samples) uint8 around 128 or float32 -> float32 in [-1, 1]."""
    if value.dtype == torch.uint8:
        return (value.float() - SILENCE) / SILENCE
    return value.float()


class Conv(nn.Module):
    """Strided convolution over time, RMS norm over channels and SiLU.

    Args:
        inputs, outputs: Channels. generator: Source of the initial weights.
        kernel: Odd. stride: Of positions.
    """

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, *, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.activate = NormedSiLU(outputs)
        init_weight(self.weight.data, kernel * inputs, 1.0, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, positions) -> (M, C', ceil(positions / stride))."""
        x = functional.conv1d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2)
        flat = x.transpose(1, 2)
        return self.activate(flat.reshape(-1, flat.shape[-1])).view_as(flat).transpose(1, 2)


class AudioEncoder(nn.Module):
    """Each key through convolutions of its own, down to at most eight positions.

    Args:
        specs: Keys of this modality. size: Widths. generator: Source of the initial weights.
        config: What is tuned.

    Raises:
        ValueError: A sound is too short.
        ConfigError: For mel bands its rate is unknown or too low, or torchaudio is missing.
    """

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        generator: torch.Generator,
        config: AudioConfig,
    ) -> None:
        super().__init__()
        self.keys = sorted(specs)
        self.stacks = nn.ModuleList()
        channels, self.tokens = size.depth * CHANNEL_FACTOR, 0
        for key in self.keys:
            if config.features == "mel":
                stack, length = _over_frames(log_mel(key, specs[key], config), channels, generator)
            else:
                stack, length = _over_samples(specs[key].shape[0], channels, generator)
            self.stacks.append(stack)
            self.tokens += length
        self.out_dim = channels * self.tokens

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """key -> (..., samples) to (..., out_dim), position by position."""
        parts = []
        for key, stack in zip(self.keys, self.stacks, strict=True):
            wave = as_wave(obs[key])
            lead = wave.shape[:-1]
            heard = stack(wave.reshape(-1, 1, wave.shape[-1]))
            parts.append(heard.transpose(1, 2).reshape(*lead, -1))
        return torch.cat(parts, -1)


def log_mel(key: str, spec: ObsSpec, config: AudioConfig) -> LogMel:
    """Mel bands of one key; errors as in `AudioEncoder`."""
    where = f"observation {key}"
    if not spec.rate:
        allowed = (
            "metadata['audio_rate'] of its environment, or world_model.audio.features waveform"
        )
        raise ConfigError(where, "a sound of unknown rate", allowed)
    target = spec.rate if config.rate == "auto" else config.rate
    samples = resampled(spec.shape[0], spec.rate, target)
    if samples < LEAST:
        found = f"{samples} samples at {target} Hz"
        raise ConfigError(where, found, f"{LEAST} and more, see world_model.audio.rate")
    return LogMel(spec.shape[0], rate=spec.rate, target=target, bins=config.bins)


def _over_samples(
    length: int, channels: int, generator: torch.Generator
) -> tuple[nn.Sequential, int]:
    """(M, 1, samples) -> (M, channels, positions), and how many positions."""
    window_of(length)  # refuses what is too short
    widths = [1]
    while length > SHORTEST:
        length = -(-length // STRIDE)
        widths.append(channels)
    convs = (Conv(a, b, generator, kernel=KERNEL, stride=STRIDE) for a, b in pairwise(widths))
    return nn.Sequential(*convs), length


def _over_frames(
    mel: LogMel, channels: int, generator: torch.Generator
) -> tuple[nn.Sequential, int]:
    """(M, 1, samples) -> (M, channels, positions), and how many positions."""
    length, strides = mel.frames, [1, 1]
    while length > SHORTEST:
        length = -(-length // MEL_STRIDE)
        strides.append(MEL_STRIDE)
    widths = [mel.bins, *[channels] * len(strides)]
    convs = (
        Conv(a, b, generator, kernel=MEL_KERNEL, stride=stride)
        for (a, b), stride in zip(pairwise(widths), strides, strict=True)
    )
    return nn.Sequential(mel, nn.Flatten(1, 2), *convs), length


class AudioDecoder(nn.Module):
    """Feature -> the spectrum of every audio key; squared error summed over frames and bins."""

    def __init__(
        self,
        specs: Mapping[str, ObsSpec],
        size: SizeLike,
        feat_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.specs = dict(sorted(specs.items()))
        self.spectra = {key: Spectrum(spec.shape[0]) for key, spec in self.specs.items()}
        self.widths = [each.frames * each.bins for each in self.spectra.values()]
        self.mlp = MLP(feat_dim, size.units, LAYERS, generator)
        self.out = Linear(size.units, sum(self.widths), generator)

    def forward(self, feat: Tensor) -> dict[str, Tensor]:
        """(..., F) -> key -> (..., frames, bins) loudness, see `Spectrum`."""
        parts = self.out(self.mlp(feat)).split(self.widths, -1)
        return {
            key: part.unflatten(-1, (each.frames, each.bins))
            for (key, each), part in zip(self.spectra.items(), parts, strict=True)
        }

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """key -> (...) squared error against the loudness of what was heard."""
        losses = {}
        for key, predicted in self(feat).items():
            target = self.spectra[key].loudness(as_wave(obs[key])).detach()
            losses[key] = (predicted - target).square().sum((-2, -1))
        return losses

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """key -> (..., samples) in the units of the observation."""
        decoded = {}
        for key, loudness in self(feat).items():
            wave = self.spectra[key].wave(loudness)
            if self.specs[key].dtype == "uint8":
                wave = (wave * (SILENCE - 1) + SILENCE).round().to(torch.uint8)
            decoded[key] = wave
        return decoded
