"""The hand-written backward passes against finite differences and against plain autograd."""

from __future__ import annotations

import pytest
import torch
from builders import generator
from torch.nn import functional

from dreamer.nn.distributions import SymexpTwoHot
from dreamer.nn.fused import NORM_EPS, Norm, NormedLinearSiLU, NormSiLU, SparseCrossEntropy
from dreamer.nn.layers import NormedLinear, NormedSiLU


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_norm_silu_gradcheck():
    assert torch.autograd.gradcheck(NormSiLU.apply, (normal(5, 7), normal(7)))
    assert torch.autograd.gradcheck(Norm.apply, (normal(5, 7), normal(7)))


def test_normed_linear_gradcheck():
    inputs = normal(5, 4), normal(7, 4), normal(7), normal(7)
    assert torch.autograd.gradcheck(NormedLinearSiLU.apply, inputs)


def test_normed_linear_without_gradient_of_its_input():
    x = torch.randn(5, 4, dtype=torch.float64)
    params = normal(7, 4), normal(7), normal(7)
    assert torch.autograd.gradcheck(lambda *p: NormedLinearSiLU.apply(x, *p), params)


def test_cross_entropy_gradcheck():
    logit = normal(6, 9)
    index = torch.randint(0, 9, (6, 4))
    index[0] = 3  # the same bin several times
    weight = torch.rand(6, 4, dtype=torch.float64)
    weight[1] = 0.0
    assert torch.autograd.gradcheck(lambda x: SparseCrossEntropy.apply(x, index, weight), logit)


@pytest.mark.parametrize("magnitude", [1e-6, 1e-2, 1.0, 1e4])
def test_norm_silu_layer_equals_plain_autograd(magnitude):
    layer = NormedSiLU(8).double()
    torch.nn.init.normal_(layer.scale)
    x = (magnitude * torch.randn(6, 8, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(6, 8, dtype=torch.float64)
    plain = functional.silu(functional.rms_norm(x, (8,), layer.scale, NORM_EPS))
    want = torch.autograd.grad((plain * weights).sum(), (x, layer.scale))
    got = torch.autograd.grad((layer(x) * weights).sum(), (x, layer.scale))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_normed_linear_layer_equals_plain_autograd_in_float32():
    layer = NormedLinear(16, 32, generator())
    x = torch.randn(64, 16, requires_grad=True)
    weight, bias, scale = layer.parameters()
    hidden = functional.linear(x, weight, bias)
    plain = functional.silu(functional.rms_norm(hidden, (32,), scale, NORM_EPS))
    want = torch.autograd.grad(plain.square().sum(), (x, weight, bias, scale))
    got = torch.autograd.grad(layer(x).square().sum(), (x, weight, bias, scale))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_two_hot_loss_equals_plain_autograd():
    logit = torch.randn(30, 255, requires_grad=True)
    dist, targets = SymexpTwoHot(logit), torch.randn(2, 30) * 30
    upstream = torch.randn(30)
    (got,) = torch.autograd.grad((dist.loss(*targets) * upstream).sum(), logit)
    eye = torch.zeros(30, 255)
    for target in targets:
        probe = torch.zeros(30, 255, requires_grad=True)
        # At zero logits the gradient of the loss is uniform minus the code.
        (slope,) = torch.autograd.grad(SymexpTwoHot(probe).loss(target).sum(), probe)
        eye += 1 / 255 - slope
    plain = -(logit.log_softmax(-1) * eye).sum(-1)
    (want,) = torch.autograd.grad((plain * upstream).sum(), logit)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
