"""Layers: initial weights, norms, blocks."""

from __future__ import annotations

import pytest
import torch
from builders import generator
from torch.nn import functional

from dreamer.nn.layers import MLP, BlockLinear, Linear, NormedLinear, RMSNorm


def test_linear_starts_at_one_over_the_root_of_its_inputs():
    layer = Linear(400, 300, generator())
    std = 400**-0.5
    assert layer.weight.std().item() == pytest.approx(std, rel=0.01)
    # Truncated at two of the standard deviations before the gain of 1.1368.
    assert layer.weight.abs().max().item() <= 2 * 1.1368 * std
    assert layer.weight.abs().max().item() >= 1.9 * 1.1368 * std
    assert not layer.bias.any()


def test_outscale_multiplies_the_initial_weight():
    one, small = (Linear(50, 40, generator(), outscale=s).weight for s in (1.0, 0.01))
    torch.testing.assert_close(small, 0.01 * one)
    assert not Linear(50, 40, generator(), outscale=0.0).weight.any()


def test_block_linear_counts_the_inputs_of_all_blocks():
    layer = BlockLinear(512, 1536, 8, generator())
    assert layer.weight.std().item() == pytest.approx(512**-0.5, rel=0.01)
    assert not layer.bias.any()


def test_block_linear_is_a_block_diagonal_matrix():
    layer = BlockLinear(24, 40, 8, generator())
    torch.nn.init.normal_(layer.bias)
    dense = torch.block_diag(*layer.weight.detach())
    x = torch.randn(7, 24)
    torch.testing.assert_close(layer(x), x @ dense + layer.bias)


def test_rms_norm_formula_and_epsilon():
    norm = RMSNorm(6)
    torch.nn.init.normal_(norm.scale)
    for x in (torch.randn(5, 6), torch.full((5, 6), 1e-3), torch.zeros(5, 6)):
        want = x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * norm.scale
        torch.testing.assert_close(norm(x), want)


def test_rms_norm_has_no_shift():
    assert [name for name, _ in RMSNorm(6).named_parameters()] == ["scale"]


def test_equal_generators_give_equal_weights():
    one, other = (MLP(5, 8, 2, generator(3)) for _ in range(2))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def plain_mlp(mlp, x):
    """Linear, norm, SiLU, spelled out."""
    params = list(mlp.parameters())
    for weight, bias, scale in zip(params[::3], params[1::3], params[2::3], strict=True):
        x = functional.linear(x, weight, bias)
        x = functional.silu(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-4) * scale)
    return x


@pytest.mark.parametrize("lead", [(5,), (3, 4), (2, 3, 4)])
def test_mlp_equals_its_plain_twin_in_values_and_gradients(lead):
    mlp = MLP(6, 9, 3, generator()).double()
    for param in mlp.parameters():
        param.data += 0.3 * torch.randn_like(param)
    x = torch.randn(*lead, 6, dtype=torch.float64, requires_grad=True)
    inputs = [x, *mlp.parameters()]
    out, want = mlp(x), plain_mlp(mlp, x)
    torch.testing.assert_close(out, want)
    weights = torch.randn_like(out)
    got = torch.autograd.grad((out * weights).sum(), inputs)
    expected = torch.autograd.grad((want * weights).sum(), inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_layer_gives_the_same_with_and_without_a_graph():
    layer = NormedLinear(6, 9, generator())
    x = torch.randn(50, 6)
    with torch.no_grad():
        without = layer(x)
    torch.testing.assert_close(layer(x), without, rtol=1e-6, atol=1e-6)
