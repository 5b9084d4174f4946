"""Reward and continue heads before any training."""

from __future__ import annotations

import math

import pytest
import torch
from builders import generator

from dreamer.world_model.heads import ContinueHead, ScalarHead


@pytest.mark.parametrize("layers", [1, 3])
def test_scalar_head_starts_at_exactly_zero(layers):
    head = ScalarHead(40, 16, layers, generator())
    dist = head(torch.randn(10_000, 40) * 10)
    assert torch.equal(dist.mean(), torch.zeros(10_000))
    loss = dist.loss(torch.randn(10_000) * 1e3)
    assert loss.min().item() == pytest.approx(math.log(255), abs=1e-5)
    assert loss.max().item() == pytest.approx(math.log(255), abs=1e-5)


def test_scalar_head_learns_from_its_first_gradient():
    head = ScalarHead(5, 16, 1, generator())
    head(torch.randn(8, 5)).loss(torch.ones(8)).mean().backward()
    assert bool(head.out.weight.grad.any())


def test_continue_head_starts_uncertain():
    mean = ContinueHead(40, 16, 1, generator())(torch.randn(7, 3, 40)).mean()
    assert mean.shape == (7, 3)
    assert 0.0 < mean.min() < mean.max() < 1.0
