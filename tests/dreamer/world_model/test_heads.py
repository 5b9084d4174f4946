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


def test_a_head_that_does_not_start_from_zeros_weighs_mirrored_bins_alike():
    head = ScalarHead(40, 16, 1, generator(), outscale=1.0)
    logit = head(torch.randn(1000, 40)).logit
    torch.testing.assert_close(logit, logit.flip(-1), rtol=0, atol=1e-5)
    assert logit.std() > 0.1


def test_a_head_that_does_not_start_from_zeros_teaches_what_lies_before_it_at_once():
    for outscale, learns in ((0.0, False), (1.0, True)):
        feat = torch.randn(8, 5, requires_grad=True)
        ScalarHead(5, 16, 1, generator(), outscale)(feat).loss(torch.ones(8)).mean().backward()
        assert bool(feat.grad.any()) == learns


def test_scalar_head_learns_from_its_first_gradient():
    head = ScalarHead(5, 16, 1, generator())
    head(torch.randn(8, 5)).loss(torch.ones(8)).mean().backward()
    assert bool(head.out.weight.grad.any())


def test_continue_head_starts_uncertain():
    mean = ContinueHead(40, 16, 1, generator())(torch.randn(7, 3, 40)).mean()
    assert mean.shape == (7, 3)
    assert 0.0 < mean.min() < mean.max() < 1.0
