"""KL losses: golden numbers, free nats and the sides that gradients go to."""

from __future__ import annotations

import math

import pytest
import torch

from dreamer.nn.distributions import mix_uniform
from dreamer.world_model.model import DYN_SCALE, REP_SCALE
from dreamer.world_model.rssm import kl_losses


def probs(logits, unimix=0.0):
    """One position with one group, (1, 1, C, 1)."""
    logit = torch.tensor(logits, dtype=torch.float64).view(1, 1, -1, 1)
    return mix_uniform(logit, unimix, -2)


def groups_of(*divergences):
    """Posterior and prior (1, 1, 2, S) of groups with the given KL each."""
    post, prior = [], []
    for kl in divergences:
        # A sure posterior against a prior of exp(-kl) has exactly that divergence.
        sure = 1.0 - 1e-12
        post.append([sure, 1.0 - sure])
        prior.append([math.exp(-kl), -math.expm1(-kl)])
    shape = [torch.tensor(x, dtype=torch.float64).t()[None, None] for x in (post, prior)]
    return shape[0].contiguous(), shape[1].contiguous()


@pytest.mark.parametrize(
    ("logit", "unimix", "want"),
    [(20.0, 0.0, 20.0), (20.0, 0.01, 5.24037), (2.0, 0.0, 1.52319), (2.0, 0.01, 1.48098)],
)
def test_golden_numbers_with_and_without_the_uniform_mixture(logit, unimix, want):
    _, _, kl = kl_losses(probs([logit, 0.0], unimix), probs([0.0, logit], unimix), 0.0)
    assert kl.item() == pytest.approx(want, abs=1e-4)


def test_groups_are_summed_before_the_clip():
    for loss in kl_losses(*groups_of(0.7, 0.7), 1.0)[:2]:
        assert loss.item() == pytest.approx(1.4, abs=1e-6)
    for loss in kl_losses(*groups_of(0.3, 0.3), 1.0)[:2]:
        assert loss.item() == 1.0


def test_rows_are_clipped_before_the_mean_and_only_rows_above_have_a_gradient():
    small, large = groups_of(0.2), groups_of(3.0)
    post, prior = (torch.cat([a, b], 1).requires_grad_() for a, b in zip(small, large, strict=True))
    dyn, rep, kl = kl_losses(post, prior, 1.0)
    assert dyn.mean().item() == pytest.approx(2.0, abs=1e-6)
    assert rep.mean().item() == pytest.approx(2.0, abs=1e-6)
    assert kl.mean().item() == pytest.approx(1.6, abs=1e-6)
    (dyn.mean() + rep.mean()).backward()
    for side in (post, prior):
        assert not side.grad[:, 0].any()
        assert bool(side.grad[:, 1].abs().sum() > 0)


def logits(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_dyn_trains_the_prior_and_rep_trains_the_posterior():
    post, prior = logits(2, 3, 4, 5), logits(2, 3, 4, 5)
    mixed = [mix_uniform(x, 0.01, -2) for x in (post, prior)]
    dyn, rep, _ = kl_losses(*mixed, 0.0)
    grads = torch.autograd.grad(dyn.sum(), (post, prior), retain_graph=True, allow_unused=True)
    assert grads[0] is None or not grads[0].any()
    assert grads[1].any()
    grads = torch.autograd.grad(rep.sum(), (post, prior), allow_unused=True)
    assert grads[0].any()
    assert grads[1] is None or not grads[1].any()


def test_both_gradients_together_are_those_of_the_plain_divergence():
    post, prior = logits(2, 3, 4, 5), logits(2, 3, 4, 5)
    p, q = (mix_uniform(x, 0.01, -2) for x in (post, prior))
    dyn, rep, kl = kl_losses(p, q, 0.0)
    plain = (p * (p / q).log()).sum((-2, -1))
    torch.testing.assert_close(kl, plain.detach())
    want = torch.autograd.grad(plain.sum(), (post, prior), retain_graph=True)
    got = torch.autograd.grad((dyn + rep).sum(), (post, prior))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_a_divergence_counts_one_and_a_tenth():
    dyn, rep, kl = kl_losses(*groups_of(2.5), 1.0)
    total = DYN_SCALE * dyn + REP_SCALE * rep
    assert total.item() == pytest.approx(1.1 * 2.5, abs=1e-6)
    assert not kl.requires_grad


def test_equal_distributions_have_no_divergence():
    p = probs([0.3, -2.0, 1.0], 0.01).expand(2, 3, 3, 4)
    dyn, rep, kl = kl_losses(p, p.clone(), 0.0)
    for each in (dyn, rep, kl):
        assert each.shape == (2, 3)
        assert each.abs().max() < 1e-12
