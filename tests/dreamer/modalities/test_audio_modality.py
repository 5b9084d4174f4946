"""Sound: spectra of known tones, the way back, and pitch that is learned from waveforms."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from builders import SMALL, assert_same, make_trainer, random_batch, snapshot, vector_spec
from torch.nn import functional

from dreamer.modalities.audio import (
    KERNEL,
    STRIDE,
    AudioConfig,
    AudioDecoder,
    AudioEncoder,
    as_wave,
)
from dreamer.modalities.spectrum import LOUDNESS, Spectrum, window_of
from dreamer.nn.layers import Linear, NormedSiLU, init_weight
from dreamer.nn.optim import LaProp
from dreamer.types import ConfigError, ObsSpec
from dreamer.world_model.sizes import SIZES

RATE = 8000
TINY = SIZES["tiny"]


WAVEFORM = AudioConfig(features="waveform", rate="auto", bins=32)
MEL = AudioConfig(features="mel", rate="auto", bins=32)
needs_torchaudio = pytest.mark.skipif(not find_spec("torchaudio"), reason="torchaudio is an extra")
HEARD = [WAVEFORM, pytest.param(MEL, marks=needs_torchaudio)]


def specs(samples=256, dtype="float32", rate=RATE):
    return {"audio": ObsSpec(shape=(samples,), dtype=dtype, kind="audio", rate=rate)}


def tone(pitch, samples=256, amplitude=0.5, phase=0.0):
    time = torch.arange(samples) / RATE
    return amplitude * torch.sin(2 * math.pi * pitch * time + phase)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("samples", "window"), [(16, 16), (100, 32), (256, 64), (512, 128), (2048, 256), (9000, 256)]
)
def test_windows_are_a_quarter_of_the_sound(samples, window):
    assert window_of(samples) == window


def test_a_sound_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="sound of 15 samples; allowed: 16 and more"):
        AudioEncoder(specs(15), TINY, generator(), WAVEFORM)


@pytest.mark.parametrize("pitch", [500.0, 1000.0, 3000.0])
@pytest.mark.parametrize("phase", [0.0, 1.0])
def test_a_tone_is_as_loud_as_it_is_at_its_pitch_whatever_its_phase(pitch, phase):
    spectrum = Spectrum(256)
    loudness = spectrum.loudness(tone(pitch, phase=phase))
    inner = loudness[2:-2]  # windows without the zeros before and after
    at = round(pitch / (RATE / spectrum.window))
    assert (inner.argmax(-1) == at).all()
    torch.testing.assert_close(
        inner[:, at], torch.full_like(inner[:, at], math.log1p(LOUDNESS * 0.5)), atol=0.03, rtol=0
    )


def test_spectra_agree_with_numpy():
    wave = torch.randn(3, 100, generator=generator())
    spectrum = Spectrum(100)
    hann = np.hanning(spectrum.window + 1)[:-1]
    padded = np.pad(wave.numpy(), ((0, 0), (16, 64)))
    for frame in range(spectrum.frames):
        part = padded[:, 16 * frame : 16 * frame + 32] * hann
        amplitude = np.abs(np.fft.rfft(part)) * 2 / hann.sum()
        np.testing.assert_allclose(
            spectrum.loudness(wave)[:, frame], np.log1p(LOUDNESS * amplitude), rtol=2e-4, atol=2e-4
        )


def test_every_sample_counts_the_same_in_both_directions():
    spectrum = Spectrum(200)
    wave = torch.randn(2, 200, generator=generator()) / 4
    torch.testing.assert_close(spectrum._inverse(spectrum._transform(wave)), wave)


@pytest.mark.parametrize("pitch", [600.0, 2000.0])
def test_the_way_back_sounds_the_same(pitch):
    spectrum = Spectrum(256)
    loudness = spectrum.loudness(tone(pitch, phase=0.7))
    again = spectrum.loudness(spectrum.wave(loudness))
    assert (again - loudness).square().mean() < 0.15 * loudness.var()
    assert (spectrum.wave(torch.zeros_like(loudness)) == 0).all()


def test_uint8_is_silent_at_128():
    wave = as_wave(torch.tensor([0, 128, 255], dtype=torch.uint8))
    torch.testing.assert_close(wave, torch.tensor([-1.0, 0.0, 127 / 128]))


@pytest.mark.parametrize("config", HEARD)
@pytest.mark.parametrize("samples", [16, 256, 512, 2048])
def test_shapes_for_any_lead(samples, config):
    encoder = AudioEncoder(specs(samples), TINY, generator(), config)
    assert 1 <= encoder.tokens <= 8
    assert encoder.out_dim % encoder.tokens == 0
    decoder = AudioDecoder(specs(samples), TINY, 40, generator())
    obs = {"audio": torch.randn(3, 2, samples, generator=generator()).clamp(-1, 1)}
    assert encoder(obs).shape == (3, 2, encoder.out_dim)
    feat = torch.randn(3, 2, 40, generator=generator())
    assert decoder.loss(feat, obs)["audio"].shape == (3, 2)
    assert decoder.decode(feat)["audio"].shape == (3, 2, samples)


def test_several_sounds_each_have_their_part():
    both = specs(64) | {"sound": ObsSpec(shape=(32,), dtype="uint8", kind="audio")}
    encoder = AudioEncoder(both, TINY, generator(), WAVEFORM)
    obs = {
        "audio": torch.randn(5, 64, generator=generator()),
        "sound": torch.full((5, 32), 128, dtype=torch.uint8),
    }
    before = encoder(obs)
    louder = encoder(obs | {"sound": torch.full((5, 32), 200, dtype=torch.uint8)})
    changed = (before != louder).any(0)
    assert changed.any()
    assert not changed.all()
    decoder = AudioDecoder(both, TINY, 40, generator())
    decoded = decoder.decode(torch.zeros(1, 40))
    assert decoded["sound"].dtype == torch.uint8
    assert (decoded["sound"] == 128).all()  # nothing was learned: silence


def test_the_loss_is_the_squared_error_of_loudness():
    decoder = AudioDecoder(specs(), TINY, 40, generator())
    feat = torch.randn(4, 40, generator=generator())
    obs = {"audio": torch.stack([tone(500.0 * i) for i in range(1, 5)])}
    error = decoder(feat)["audio"] - Spectrum(256).loudness(obs["audio"])
    torch.testing.assert_close(decoder.loss(feat, obs)["audio"], error.square().flatten(1).sum(1))


def heard(rows, noise, random):
    """Tones of either band at random phase and loudness, and which band."""
    high = torch.randint(2, (rows,), generator=random)
    place = torch.rand(rows, 3, generator=random)
    pitch = torch.where(high.bool(), 1600 + 800 * place[:, 0], 400 + 400 * place[:, 0])
    time = torch.arange(256) / RATE
    wave = torch.sin(2 * math.pi * (pitch[:, None] * time + place[:, 1:2]))
    wave = (0.4 + 0.3 * place[:, 2:]) * wave
    return wave + noise * torch.randn(rows, 256, generator=random), high


@pytest.mark.parametrize("config", HEARD)
def test_pitch_is_learned(config):
    """The bit of CueBits that is heard."""
    random = generator(1)
    encoder = AudioEncoder(specs(), TINY, generator(), config)
    head = Linear(encoder.out_dim, 2, generator())
    optimizer = LaProp({"all": [*encoder.parameters(), *head.parameters()]})
    for _ in range(100):
        wave, high = heard(64, 0.05, random)
        optimizer.zero_grad()
        functional.cross_entropy(head(encoder({"audio": wave})), high).backward()
        optimizer.step({"all": 3e-3})
    wave, high = heard(1000, 0.05, random)
    accuracy = (head(encoder({"audio": wave})).argmax(-1) == high).float().mean()
    assert accuracy > 0.97


def test_the_decoder_learns_what_a_feature_sounds_like():
    random = generator(2)
    decoder = AudioDecoder(specs(), TINY, 2, generator())
    optimizer = LaProp({"all": list(decoder.parameters())})
    for _ in range(300):
        wave, high = heard(64, 0.0, random)
        optimizer.zero_grad()
        decoder.loss(functional.one_hot(high, 2).float(), {"audio": wave})[
            "audio"
        ].mean().backward()
        optimizer.step({"all": 3e-3})
    low, high = decoder(torch.eye(2))["audio"][:, 4]
    assert 3 <= int(low.argmax()) <= 7  # 125 Hz a bin: 400 to 800 Hz
    assert 12 <= int(high.argmax()) <= 20  # 1,600 to 2,400 Hz


# How sounds are heard ----------------------------------------------------------------------------


def test_the_waveform_is_heard_as_ever():
    """The same bits as convolutions written out, their weights drawn in order."""
    random, channels = generator(3), TINY.depth * 4
    encoder = AudioEncoder(specs(100), TINY, generator(3), WAVEFORM)
    wave = torch.randn(6, 100, generator=generator(4)).clamp(-1, 1)
    x = wave[:, None]
    for inputs in (1, channels):  # 100, 25, 7 positions
        weight = torch.empty(channels, inputs, KERNEL)
        init_weight(weight, KERNEL * inputs, 1.0, random)
        x = functional.conv1d(x, weight, torch.zeros(channels), STRIDE, KERNEL // 2)
        flat = x.transpose(1, 2).reshape(-1, channels)
        x = NormedSiLU(channels)(flat).view(6, -1, channels).transpose(1, 2)
    assert encoder.tokens == 7
    assert torch.equal(encoder({"audio": wave}), x.transpose(1, 2).flatten(1))
    names = [f"stacks.0.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")]
    assert set(names) < set(encoder.state_dict())


@needs_torchaudio
def test_mel_bands_of_bytes_are_those_of_the_numbers_they_stand_for():
    codes = torch.randint(0, 256, (4, 512), dtype=torch.uint8, generator=generator())
    code, wave = (
        AudioEncoder(specs(512, dtype), TINY, generator(), MEL) for dtype in ("uint8", "float32")
    )
    assert torch.equal(code({"audio": codes}), wave({"audio": (codes.float() - 128) / 128}))


@needs_torchaudio
def test_a_sound_of_unknown_rate_has_no_mel_bands():
    with pytest.raises(ConfigError) as caught:
        AudioEncoder(specs(rate=0), TINY, generator(), MEL)
    assert str(caught.value) == (
        "observation audio: found 'a sound of unknown rate'; allowed: metadata['audio_rate'] of "
        "its environment, or world_model.audio.features waveform"
    )
    low = AudioConfig(features="mel", rate=1000, bins=32)
    with pytest.raises(ConfigError, match="found '8 samples at 1000 Hz'; allowed: 16 and more"):
        AudioEncoder(specs(64), TINY, generator(), low)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"features": "mfcc"}, "features: found 'mfcc'; allowed: waveform or mel"),
        ({"rate": 16000}, "rate: found 16000; allowed: auto, or features: mel"),
        ({"rate": 100}, "rate: found 100; allowed: 1000 to 192000"),
        ({"bins": 3}, "bins: found 3; allowed: 4 to 256"),
    ],
)
def test_settings_that_say_nothing_are_refused(changes, line):
    with pytest.raises(ConfigError, match=line):
        AudioConfig(**{"features": "waveform", "rate": "auto", "bins": 32} | changes)


@needs_torchaudio
def test_an_agent_learns_from_mel_bands_and_resumes_to_the_bit(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    spec = vector_spec(3, discrete=(2,), **specs(64, "uint8"))

    def learn(trainer, updates):
        for index in updates:
            result = trainer.update_step(random_batch(spec, 2, 4, seed=index), index, 1.0)
        return trainer.read(result.metrics)

    trainer, resumed = (make_trainer(spec, world={"audio": MEL}, hierarchy=True) for _ in range(2))
    learn(trainer, range(2))
    resumed.load_state_dict(snapshot(trainer.state_dict()))
    assert learn(resumed, (2, 3)) == learn(trainer, (2, 3))
    assert_same(snapshot(resumed.state_dict()), snapshot(trainer.state_dict()))
