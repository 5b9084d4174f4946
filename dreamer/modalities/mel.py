"""Log-mel spectra: how loud a sound is, band by band, in bands as wide as ears tell apart.

Source: Stevens, Volkmann and Newman 1937 for the mel; its formula is that of O'Shaughnessy 1987, as
in torchaudio, which makes the filters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dreamer.modalities import libraries

SECONDS = 0.025  # of a window
LEAST = 16  # samples of a window, and of a sound
FLOOR = 80.0  # decibels below a sine of amplitude 1: what counts as silence


def resampled(samples: int, rate: int, target: int) -> int:
    """Samples of a sound once it is at another rate."""
    common = math.gcd(rate, target)
    return -(-samples * (target // common) // (rate // common))


def window_at(rate: int, samples: int) -> int:
    """Samples of one window: a power of two, about 25 ms, at most half of the sound, 16 or more."""
    about = round(math.log2(SECONDS * rate))
    return max(LEAST, 2 ** min(about, int(math.log2(samples / 2))))


def transform_at(rate: int, window: int, bins: int) -> int:
    """Length of the Fourier transform: a power of two, in which the lowest band is not empty."""
    lowest = 700.0 * ((1.0 + rate / 1400.0) ** (1.0 / (bins + 1)) - 1.0)
    return max(window, 2 ** math.ceil(math.log2(rate / lowest)))


class LogMel(nn.Module):
    """Waveforms of one length -> loudness of mel bands over time, without gradient.

    The bands of a sine of amplitude 1 have together 0 dB, and silence is what lies 80 dB below. The
    level is kept, because what is near and what is far sound alike otherwise.

    Args:
        samples: Length of a waveform, at least 16 once it is resampled. rate: Hz of its samples.
        target: Hz that it is resampled to. bins: Bands from 0 to half of that.

    Attributes:
        bins, frames: Of a spectrum; frames are half a window apart, the first around the first
            sample.

    Raises:
        ConfigError: torchaudio is missing.
    """

    def __init__(self, samples: int, *, rate: int, target: int, bins: int) -> None:
        super().__init__()
        transforms = libraries.torchaudio().transforms
        length = resampled(samples, rate, target)
        window = window_at(target, length)
        size = transform_at(target, window, bins)
        self.resample = transforms.Resample(rate, target)
        # Beyond the ends is silence: a reflection would need a sound longer than the transform.
        self.mel = transforms.MelSpectrogram(
            target, size, window, window // 2, n_mels=bins, pad_mode="constant"
        )
        self.decibels = transforms.AmplitudeToDB("power")
        # By Parseval: a sine through a Hann window, spread over the bins of the transform.
        self.scale = 4.0 / math.sqrt(1.5 * window * size)
        self.bins, self.frames = bins, 1 + length // (window // 2)

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """(..., samples) in [-1, 1] -> (..., bins, frames), -1 in silence and 1 at 0 dB."""
        power = self.mel(self.resample(wave) * self.scale)
        return (self.decibels(power) * (2.0 / FLOOR) + 1.0).clamp_min(-1.0)
