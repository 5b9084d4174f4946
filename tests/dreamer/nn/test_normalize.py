"""The scale of returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreamer.nn.normalize import PercentileScale


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
