"""Audio: strided convolutions over the waveform; its spectrum over time is what is reconstructed.

A waveform itself cannot be predicted: nothing fixes the phase of a tone. Its short-time spectrum
says what is heard and when, and is compared on a logarithmic scale, as loudness is.

Source: Allen 1977 for the short-time Fourier transform, Griffin and Lim 1984 for the way back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamer.nn.layers import MLP, Linear, NormedSiLU, init_weight
from dreamer.types import SILENCE, ObsSpec, SizeLike

STRIDE, KERNEL = 4, 9
CHANNEL_FACTOR = 4
SHORTEST = 8  # positions at which the convolutions stop
LAYERS = 3
LEAST_WINDOW, MOST_WINDOW = 16, 256
LOUDNESS = 100.0  # amplitudes are told apart from a hundredth on
ITERATIONS = 16


def as_wave(value: Tensor) -> Tensor:
    """(..., samples) uint8 around 128 or float32 -> float32 in [-1, 1]."""
    if value.dtype == torch.uint8:
        return (value.float() - SILENCE) / SILENCE
    return value.float()


def window_of(samples: int) -> int:
    """Samples of one window: the power of two nearest to a quarter of all, 16 to 256.

    Raises:
        ValueError: The sound is shorter than a window.
    """
    if samples < LEAST_WINDOW:
        raise ValueError(f"sound of {samples} samples; allowed: {LEAST_WINDOW} and more")
    window = 2 ** round(math.log2(samples / 4))
    return max(LEAST_WINDOW, min(MOST_WINDOW, window))


class Spectrum:
    """Short-time spectra of waveforms of one length, in half overlapping Hann windows.

    Args:
        samples: Length of a waveform.

    Attributes:
        window: Samples of a window. frames, bins: Of a spectrum.
    """

    def __init__(self, samples: int) -> None:
        self.samples, self.window = samples, window_of(samples)
        self.hop = self.window // 2
        self.frames = 1 + math.ceil(samples / self.hop)
        self.bins = self.window // 2 + 1

    def loudness(self, wave: Tensor) -> Tensor:
        """(..., samples) -> (..., frames, bins): log(1 + 100 amplitude)."""
        return torch.log1p(LOUDNESS * self._transform(wave).abs())

    @torch.no_grad()
    def wave(self, loudness: Tensor) -> Tensor:
        """(..., frames, bins) -> (..., samples) in [-1, 1] that sounds like it, from phase zero."""
        amplitude = torch.expm1(loudness.clamp_min(0.0)) / LOUDNESS
        phase = torch.zeros_like(amplitude)
        for _ in range(ITERATIONS):
            phase = self._transform(self._inverse(torch.polar(amplitude, phase))).angle()
        return self._inverse(torch.polar(amplitude, phase)).clamp(-1.0, 1.0)

    def _hann(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.window, device=like.device)

    def _transform(self, wave: Tensor) -> Tensor:
        """Complex (..., frames, bins), of which a sine of amplitude 1 has about 1."""
        hann = self._hann(wave)
        flat = functional.pad(wave.reshape(-1, self.samples), self._margins())
        spectra = torch.stft(
            flat, self.window, self.hop, window=hann, center=False, return_complex=True
        )
        spectra = spectra.transpose(1, 2) * (2.0 / hann.sum())
        return spectra.reshape(*wave.shape[:-1], self.frames, self.bins)

    def _inverse(self, spectra: Tensor) -> Tensor:
        """Overlap-add; the windows sum to one, since neighbours overlap by half."""
        hann = self._hann(spectra.real)
        parts = torch.fft.irfft(spectra * (hann.sum() / 2.0), self.window)
        flat = parts.reshape(-1, self.frames, self.window).transpose(1, 2)
        left, right = self._margins()
        length = left + self.samples + right
        whole = functional.fold(flat, (1, length), (1, self.window), stride=(1, self.hop))
        whole = whole.reshape(*spectra.shape[:-2], length)
        return whole[..., left : left + self.samples]

    def _margins(self) -> tuple[int, int]:
        """Zeros before and after, so that every sample lies in two windows."""
        total = (self.frames - 1) * self.hop + self.window
        return self.hop, total - self.hop - self.samples


class Conv(nn.Module):
    """Strided convolution over time, RMS norm over channels and SiLU.

    Args:
        inputs, outputs: Channels. generator: Source of the initial weights.
    """

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, KERNEL))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.activate = NormedSiLU(outputs)
        init_weight(self.weight.data, KERNEL * inputs, 1.0, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, samples) -> (M, C', ceil(samples / 4))."""
        x = functional.conv1d(x, self.weight, self.bias, STRIDE, KERNEL // 2)
        flat = x.transpose(1, 2)
        return self.activate(flat.reshape(-1, flat.shape[-1])).view_as(flat).transpose(1, 2)


class AudioEncoder(nn.Module):
    """Each key through convolutions of its own, down to at most eight positions.

    Args:
        specs: Keys of this modality. size: Widths. generator: Source of the initial weights.

    Raises:
        ValueError: A sound is too short.
    """

    def __init__(
        self, specs: Mapping[str, ObsSpec], size: SizeLike, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.keys = sorted(specs)
        self.stacks = nn.ModuleList()
        channels, self.tokens = size.depth * CHANNEL_FACTOR, 0
        for key in self.keys:
            length = specs[key].shape[0]
            window_of(length)  # refuses what is too short
            widths = [1]
            while length > SHORTEST:
                length = -(-length // STRIDE)
                widths.append(channels)
            convs = (Conv(a, b, generator) for a, b in pairwise(widths))
            self.stacks.append(nn.Sequential(*convs))
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
