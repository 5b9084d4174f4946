"""Mel bands: a tone is in the band of its pitch, at any rate, as loud as it is."""

import math
from importlib.util import find_spec

import pytest
import torch

from dreamer.modalities.mel import LogMel, resampled, transform_at, window_at

pytestmark = pytest.mark.skipif(not find_spec("torchaudio"), reason="torchaudio is an extra")
RATES = [(8000, 256, 8000), (31400, 2048, 31400), (31400, 2048, 16000), (16000, 16000, 16000)]


def tone(pitch, rate, samples, amplitude=0.5, phase=0.3):
    return amplitude * torch.sin(2 * math.pi * pitch / rate * torch.arange(samples) + phase)


def hz(mel):
    return 700 * (10 ** (mel / 2595) - 1)


def edges(rate, bins):
    """Pitches between which the bands lie: band i is from the i-th to the one after next."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    return [hz(top * i / (bins + 1)) for i in range(bins + 2)]


@pytest.mark.parametrize(("rate", "samples", "target"), RATES)
@pytest.mark.parametrize("bins", [16, 32])
def test_a_tone_is_in_the_band_of_its_pitch(rate, samples, target, bins):
    mel = LogMel(samples, rate=rate, target=target, bins=bins)
    borders = edges(target, bins)
    for pitch in (440.0, 1000.0, 2500.0, 3500.0):
        loudness = mel(tone(pitch, rate, samples))
        assert loudness.shape == (bins, mel.frames)
        band = int(loudness[:, mel.frames // 2].argmax())
        assert borders[band] < pitch < borders[band + 2], pitch


@pytest.mark.parametrize("pitch", [600.0, 1800.0, 5000.0])
def test_resampling_keeps_the_pitch(pitch):
    """Told to a hundredth by the place between bands where the middle of the loudness is."""
    mel = LogMel(2048, rate=31400, target=16000, bins=128)
    power = 10 ** (4 * mel(tone(pitch, 31400, 2048))[:, mel.frames // 2])
    centres = torch.tensor(edges(16000, 128)[1:-1])
    assert abs(float((power * centres).sum() / power.sum()) / pitch - 1) < 0.01


@pytest.mark.parametrize(("rate", "samples", "target"), RATES)
def test_the_bands_of_a_tone_have_its_power(rate, samples, target):
    """In decibels, 40 of which are 1: amplitude 1 is 0 dB, a tenth of it 20 dB less."""
    mel = LogMel(samples, rate=rate, target=target, bins=32)
    for amplitude, decibels in ((1.0, 0.0), (0.1, -20.0)):
        middle = mel(tone(1500.0, rate, samples, amplitude))[:, mel.frames // 2]
        power = 10 ** ((middle - 1) * 4)
        assert abs(10 * math.log10(float(power.sum())) - decibels) < 0.6


def test_a_gain_raises_every_band_alike():
    mel = LogMel(256, rate=8000, target=8000, bins=32)
    noise = 0.05 * torch.randn(5, 256, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mel(10 * noise) - mel(noise), torch.full((5, 32, 5), 0.5))


def test_silence_is_the_floor():
    mel = LogMel(512, rate=8000, target=8000, bins=32)
    assert (mel(torch.zeros(3, 512)) == -1).all()
    assert mel(1e-6 * torch.ones(3, 512)).min() == -1


def test_no_band_is_empty_and_nothing_is_learned():
    for bins in (4, 64, 256):
        mel = LogMel(256, rate=8000, target=8000, bins=bins)
        assert (mel.mel.mel_scale.fb.sum(0) > 0).all()
        assert not list(mel.parameters())
    wave = torch.zeros(2, 256, requires_grad=True)
    assert not mel(wave).requires_grad


@pytest.mark.parametrize(
    ("rate", "samples", "window"),
    [
        (8000, 256, 128),
        (16000, 16000, 512),
        (31400, 2048, 1024),
        (16000, 1044, 512),
        (8000, 16, 16),
    ],
)
def test_windows_are_25_ms_or_half_the_sound(rate, samples, window):
    assert window_at(rate, samples) == window
    assert transform_at(rate, window, 32) >= window


@pytest.mark.parametrize(("samples", "rate", "target"), [(2048, 31400, 16000), (513, 8000, 3000)])
def test_the_length_is_that_of_the_library(samples, rate, target):
    mel = LogMel(samples, rate=rate, target=target, bins=16)
    assert mel.resample(torch.zeros(samples)).shape == (resampled(samples, rate, target),)
