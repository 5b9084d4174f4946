"""The hand-written scan against plain autograd in float64, and against itself without a graph."""

from __future__ import annotations

import pytest
import torch

from dreamer.types import LatentState
from dreamer.world_model.rssm import RSSM
from dreamer.world_model.sizes import Size

SIZE = Size(deter=16, hidden=8, groups=3, classes=4, depth=2, units=8)
T, B, E, A = 7, 5, 6, 3


@pytest.fixture
def rssm():
    built = RSSM(SIZE, E, A, torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    for param in built.parameters():  # biases off 0 and scales off 1, so that no term hides
        param.data += 0.3 * torch.randn(param.shape, generator=generator, dtype=torch.float64)
    return built


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    index = torch.randint(SIZE.classes, (B, SIZE.groups), generator=generator)
    stoch = torch.nn.functional.one_hot(index, SIZE.classes).double()
    return {
        "embed": normal(T, B, E).requires_grad_(),
        "prev_action": 2.0 * normal(T, B, A),
        "is_first": torch.rand(T, B, generator=generator) < 0.2,
        "state": LatentState(normal(B, SIZE.deter), stoch),
        "noise": torch.rand(T, B, SIZE.groups, generator=generator, dtype=torch.float64),
    }


def gradients(rssm, scan, inputs):
    """Gradients of a fixed random function of everything that the scan returns."""
    generator = torch.Generator().manual_seed(3)
    out = scan(**inputs)
    loss = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in out)
    wanted = {"embed": inputs["embed"], **dict(rssm.named_parameters())}
    return out, dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


def test_scan_and_its_gradients_equal_plain_autograd(rssm, inputs):
    fast, fast_grads = gradients(rssm, rssm.observe, inputs)
    plain, plain_grads = gradients(rssm, rssm.observe_plain, inputs)
    for name in plain._fields:
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=0, atol=1e-12)
    for name, grad in plain_grads.items():
        assert (fast_grads[name] - grad).norm() <= 1e-9 * grad.norm(), name
        assert grad.norm() > 0, name


@pytest.mark.parametrize("used", ["deter", "stoch", "post"])
def test_each_output_alone_carries_its_gradient(rssm, inputs, used):
    # Autograd hands the backward pass zeros for the outputs that nobody used.
    grads = []
    for scan in (rssm.observe, rssm.observe_plain):
        out = getattr(scan(**inputs), used)
        weight = torch.linspace(-1.0, 1.0, out.numel(), dtype=torch.float64).view_as(out)
        grads.append(torch.autograd.grad((out * weight).sum(), rssm.core.recurrent)[0])
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


def test_without_a_graph_the_same_bits(rssm, inputs):
    with_graph = rssm.observe(**inputs)
    with torch.no_grad():
        without = rssm.observe(**inputs)
    for a, b in zip(with_graph, without, strict=True):
        assert torch.equal(a, b)


def test_one_step_of_imagination_equals_the_plain_core(rssm, inputs):
    stoch = inputs["state"].stoch.transpose(-1, -2).flatten(-2)
    deter, action, noise = inputs["state"].deter, inputs["prev_action"][0], inputs["noise"][0]
    out = torch.full((B, rssm.feat_dim), torch.nan, dtype=torch.float64)
    rssm.imaginer(B)(deter, stoch, action, noise, out)
    fast, sample = rssm.imagine_step(deter, stoch, action, noise)
    with torch.no_grad():
        plain = rssm.core(deter, stoch, rssm.core.action_branch(action))
        cdf = rssm.prior(plain).cumsum(-2)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    chosen = (cdf < noise.unsqueeze(-2)).sum(-2)
    assert torch.equal(sample.unflatten(-1, (SIZE.classes, SIZE.groups)).argmax(-2), chosen)
    assert torch.equal(out, torch.cat([fast, sample], -1))
