"""Short-time spectra on a logarithmic scale, as loudness is heard, and the way back.

A waveform itself cannot be predicted: nothing fixes the phase of a tone. Its short-time spectrum
says what is heard and when.

Source: Allen 1977 for the short-time Fourier transform, Griffin and Lim 1984 for the way back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LEAST_WINDOW, MOST_WINDOW = 16, 256
LOUDNESS = 100.0  # amplitudes are told apart from a hundredth on
ITERATIONS = 16


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
