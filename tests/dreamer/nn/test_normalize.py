"""Scales of returns, and of rewards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dreamer.nn.normalize import PercentileScale, RunningCenter, RunningScale


def test_golden_numbers_of_uniform_returns():
    scale, returns = PercentileScale(), torch.linspace(0.0, 100.0, 1001)
    scale.update(returns)
    assert (scale.low.item(), scale.high.item()) == pytest.approx((0.05, 0.95), abs=1e-5)
    assert scale.scale().item() == 1.0
    for _ in range(999):
        scale.update(returns)
    assert scale.scale().item() == pytest.approx(90.0, rel=1e-3)


def test_small_returns_are_never_amplified():
    scale = PercentileScale()
    for _ in range(500):
        scale.update(0.01 * torch.randn(200))
    assert scale.scale().item() == 1.0


def test_offsets_do_not_change_the_scale():
    scale = PercentileScale()
    for _ in range(2000):
        scale.update(torch.linspace(1000.0, 1100.0, 101))
    assert scale.scale().item() == pytest.approx(90.0, rel=1e-2)


@pytest.mark.parametrize("shape", [(1,), (2,), (7, 3), (15, 256)])
def test_percentiles_interpolate_like_numpy(shape):
    scale, returns = PercentileScale(rate=1.0), torch.randn(shape)
    scale.update(returns)
    want = np.percentile(returns.numpy(), [5, 95])
    assert [scale.low.item(), scale.high.item()] == pytest.approx(want.tolist(), abs=1e-6)


def test_one_outlier_hardly_matters():
    scale = PercentileScale(rate=1.0)
    returns = torch.linspace(0.0, 10.0, 1000)
    returns[0] = -1e6
    scale.update(returns)
    assert scale.scale().item() == pytest.approx(9.0, rel=0.01)


def test_state_is_saved_and_nothing_is_learned():
    scale = PercentileScale()
    scale.update(torch.randn(50) * 1e3)
    other = PercentileScale()
    other.load_state_dict(scale.state_dict())
    assert torch.equal(other.scale(), scale.scale())
    assert sorted(scale.state_dict()) == ["high", "low", "mass"]
    assert not list(scale.parameters())


def test_debiased_percentiles_are_those_of_what_was_seen():
    scale = PercentileScale(floor=0.1, debias=True)
    assert scale.scale().item() == pytest.approx(0.1)
    for _ in range(3):
        scale.update(torch.linspace(0.0, 100.0, 1001))
        assert scale.scale().item() == pytest.approx(90.0, rel=1e-4)
    # Three batches of one kind and one of another: weights 0.99^3 ... 1, times 0.01.
    scale.update(torch.linspace(0.0, 10.0, 1001))
    old, new = 1 - 0.99**3, 0.01
    want = (90.0 * old * 0.99 + 9.0 * new) / (old * 0.99 + new)
    assert scale.scale().item() == pytest.approx(want, rel=1e-4)


def test_running_scale_is_the_debiased_root_mean_square():
    running, batches = RunningScale(), [torch.randn(50) * size for size in (1.0, 2.0, 10.0)]
    square = mass = 0.0
    for batch in batches:
        got = running(batch)
        square = 0.99 * square + 0.01 * batch.square().mean().item()
        mass = 0.99 * mass + 0.01
        want = (batch / math.sqrt(square / mass)).clamp(-5.0, 5.0)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert got.abs().max() <= 5.0
    # The very first batch is brought to a root mean square of exactly one.
    first = RunningScale()(batches[2])
    assert first.square().mean().sqrt().item() == pytest.approx(1.0, rel=1e-4)


def test_running_scale_clips_and_survives_silence():
    running = RunningScale(limit=2.0)
    spike = torch.zeros(1000)
    spike[3] = -7.0
    assert running(spike).min().item() == -2.0
    assert not RunningScale()(torch.zeros(9)).any()


def test_running_center_subtracts_the_debiased_mean():
    running, mean, mass = RunningCenter(), 0.0, 0.0
    for offset in (4.0, -3.0, 100.0):
        batch = torch.randn(50) + offset
        got = running(batch)
        mean = 0.99 * mean + 0.01 * batch.mean().item()
        mass = 0.99 * mass + 0.01
        torch.testing.assert_close(got, batch - mean / mass, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [RunningScale, RunningCenter])
def test_out_of_training_statistics_stay(kind):
    running, x = kind(), torch.randn(20) + 3.0
    fresh = running.eval()(x)
    assert bool(torch.isfinite(fresh).all())
    running.train()(x)
    state = {name: value.clone() for name, value in running.state_dict().items()}
    want = running.eval()(x)
    running(100.0 * x)
    assert torch.equal(running(x), want)
    assert all(torch.equal(state[name], value) for name, value in running.state_dict().items())
