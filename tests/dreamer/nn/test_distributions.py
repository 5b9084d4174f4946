"""Output distributions: golden numbers, sampling frequencies, log-probabilities and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as reference

from dreamer.nn.distributions import (
    Bernoulli,
    BoundedNormal,
    OneHotActions,
    SymexpTwoHot,
    mix_uniform,
    sample_one_hot,
    straight_through,
)
from dreamer.nn.math import NUM_BINS, symexp_bins, two_hot

LN_255 = 5.541264


def two_hot_logits(target):
    """Logits whose softmax is exactly the two-hot code of the target."""
    low, high, share = two_hot(target)
    probs = torch.zeros(*target.shape, NUM_BINS)
    probs.scatter_add_(-1, low[..., None], 1 - share[..., None])
    probs.scatter_add_(-1, high[..., None], share[..., None])
    return probs.log()


@pytest.mark.parametrize("dim", [-1, -2])
def test_unimix_floor_and_total(dim):
    probs = mix_uniform(torch.randn(5, 4, 4) * 50, 0.01, dim)
    torch.testing.assert_close(probs.sum(dim), torch.ones(5, 4))
    assert probs.min().item() == pytest.approx(0.01 / 4, rel=1e-5)
    assert probs.max().item() == pytest.approx(0.99 + 0.01 / 4, rel=1e-5)


def test_no_unimix_is_softmax():
    logit = torch.randn(3, 4)
    assert torch.equal(mix_uniform(logit, 0.0, -1), logit.softmax(-1))


def test_straight_through_is_the_sample_with_the_gradient_of_the_mixed_probabilities():
    logit = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(6, 4, dtype=torch.float64)
    probs = mix_uniform(logit, 0.01, -1)
    sample = sample_one_hot(probs, torch.rand(6), -1)
    out = straight_through(sample, probs)
    assert torch.equal(out, sample)
    (got,) = torch.autograd.grad((out * direction).sum(), logit)
    (softmax,) = torch.autograd.grad((logit.softmax(-1) * direction).sum(), logit)
    torch.testing.assert_close(got, 0.99 * softmax)


@pytest.mark.parametrize("dim", [-1, -2])
def test_samples_follow_the_probabilities_exactly_on_a_grid_of_noise(dim):
    M = 2000
    probs = torch.tensor([0.05, 0.5, 0.0, 0.15, 0.3], dtype=torch.float64)
    noise = (torch.arange(M, dtype=torch.float64) + 0.5) / M
    shaped = probs.expand(M, 5) if dim == -1 else probs[:, None].expand(M, 5, 1)
    sample = sample_one_hot(shaped, noise if dim == -1 else noise[:, None], dim)
    assert torch.equal(sample.sum(dim), torch.ones_like(sample.sum(dim)))
    counts = sample.flatten(1).sum(0)
    assert (counts - M * probs).abs().max() <= 1.0


def test_sampling_frequencies_pass_a_chi_square_test():
    M = 20_000
    probs = mix_uniform(torch.randn(6), 0.01, -1)
    counts = sample_one_hot(probs.expand(M, 6), torch.rand(M), -1).sum(0)
    chi_square = ((counts - M * probs) ** 2 / (M * probs)).sum()
    assert chi_square < 20.5  # 0.999 quantile at 5 degrees of freedom


def test_samples_are_one_hot_at_the_ends_of_the_noise():
    probs = mix_uniform(torch.randn(1000, 32) * 5, 0.01, -1)
    for noise in (0.0, 1.0 - 2.0**-24):
        sample = sample_one_hot(probs, torch.full((1000,), noise), -1)
        assert torch.equal(sample.sum(-1), torch.ones(1000))
        assert bool(((sample == 0) | (sample == 1)).all())


def test_zero_logits_mean_exactly_zero_and_cost_ln_255():
    for dtype in (torch.float32, torch.bfloat16):
        dist = SymexpTwoHot(torch.zeros(100, NUM_BINS, dtype=dtype))
        assert torch.equal(dist.mean(), torch.zeros(100))
        loss = dist.loss(torch.randn(100) * 50)
        assert loss.tolist() == pytest.approx([LN_255] * 100, abs=1e-5)


def test_symmetric_logits_mean_exactly_zero():
    half = torch.randn(50, 127)
    logit = torch.cat([half, torch.randn(50, 1), half.flip(-1)], -1)
    assert torch.equal(SymexpTwoHot(logit).mean(), torch.zeros(50))


def test_mean_of_two_hot_logits_is_the_target():
    target = torch.tensor([0.0, 0.1, 1.0, 1000.0])
    target = torch.cat([target, -target])
    mean = SymexpTwoHot(two_hot_logits(target)).mean()
    torch.testing.assert_close(mean, target, rtol=1e-5, atol=1e-7)


def test_mean_is_taken_in_raw_space():
    logit = torch.full((NUM_BINS,), -math.inf)
    logit[[131, 171]] = 0.0
    bins = symexp_bins(logit.device)
    want = 0.5 * (bins[131] + bins[171])
    torch.testing.assert_close(SymexpTwoHot(logit).mean(), want)


def test_loss_is_the_cross_entropy_of_the_two_hot_code():
    logit, target = torch.randn(40, NUM_BINS), torch.randn(40) * 100
    low, high, share = two_hot(target)
    log_probs = logit.log_softmax(-1)
    rows = torch.arange(40)
    want = -(1 - share) * log_probs[rows, low] - share * log_probs[rows, high]
    torch.testing.assert_close(SymexpTwoHot(logit).loss(target), want)


def test_losses_of_several_targets_add_up():
    logit = torch.randn(3, 4, NUM_BINS)
    a, b = torch.randn(2, 3, 4).unbind()
    both = SymexpTwoHot(logit).loss(a, b)
    assert both.shape == (3, 4)
    torch.testing.assert_close(both, SymexpTwoHot(logit).loss(a) + SymexpTwoHot(logit).loss(b))


def test_two_hot_loss_gradient_is_softmax_minus_target_and_never_reaches_the_target():
    logit = torch.randn(7, NUM_BINS, requires_grad=True)
    target = torch.randn(7, requires_grad=True)
    SymexpTwoHot(logit).loss(target).sum().backward()
    want = logit.detach().softmax(-1) - two_hot_logits(target.detach()).exp()
    torch.testing.assert_close(logit.grad, want, rtol=1e-4, atol=1e-6)
    assert target.grad is None


def test_bernoulli_loss_and_mean():
    logit, target = torch.randn(50), torch.rand(50)
    p = logit.sigmoid()
    want = -(target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(Bernoulli(logit).loss(target), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(Bernoulli(logit).mean(), p)


SIZES = (2, 5, 3)


def choices(unimix=0.01, rows=400):
    return OneHotActions(torch.randn(rows, 10), SIZES, unimix), torch.rand(rows, 3)


def test_multi_discrete_samples_one_class_of_every_choice():
    dist, noise = choices()
    for action in (dist.sample(noise), dist.mode()):
        assert action.shape == (400, 10)
        for part in action.split(SIZES, -1):
            assert torch.equal(part.sum(-1), torch.ones(400))


def test_multi_discrete_log_prob_and_entropy_are_sums_over_choices():
    logit = torch.randn(30, 10)
    dist = OneHotActions(logit, SIZES, 0.01)
    action = dist.sample(torch.rand(30, 3))
    parts = [mix_uniform(part, 0.01, -1) for part in logit.split(SIZES, -1)]
    whole = [reference.Categorical(probs=p) for p in parts]
    index = [a.argmax(-1) for a in action.split(SIZES, -1)]
    want = sum(d.log_prob(i) for d, i in zip(whole, index, strict=True))
    torch.testing.assert_close(dist.log_prob(action), want)
    torch.testing.assert_close(dist.entropy(), sum(d.entropy() for d in whole))


def test_each_choice_uses_its_own_noise():
    dist, noise = choices()
    other = noise.clone()
    other[:, 1] = 1.0 - other[:, 1]
    one, two = (dist.sample(n).split(SIZES, -1) for n in (noise, other))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[2], two[2])
    assert not torch.equal(one[1], two[1])


def test_rarest_action_keeps_a_share_of_one_percent():
    dist = OneHotActions(torch.tensor([100.0, 0.0, 0.0, 0.0]), (4,), 0.01)
    rare = dist.log_prob(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert rare.item() == pytest.approx(math.log(0.01 / 4), rel=1e-5)


def test_max_entropy_is_that_of_equal_logits():
    dist = OneHotActions(torch.zeros(10), SIZES, 0.01)
    assert dist.entropy().item() == pytest.approx(dist.max_entropy(), rel=1e-6)


def test_bounded_normal_at_zero():
    dist = BoundedNormal(torch.zeros(2, 3), torch.zeros(2, 3))
    assert dist.scale.flatten().tolist() == pytest.approx([0.892717] * 6, abs=1e-5)
    assert dist.entropy().tolist() == pytest.approx([3 * 1.30545] * 2, abs=1e-4)
    assert not dist.mode().any()


def test_bounded_normal_against_the_reference():
    mean, std = torch.randn(2, 9, 4).unbind()
    dist = BoundedNormal(mean, std)
    scale = 0.9 * torch.sigmoid(std + 2) + 0.1
    want = reference.Independent(reference.Normal(mean.tanh(), scale), 1)
    action = torch.randn(9, 4) * 3  # raw samples may lie far outside [-1, 1]
    torch.testing.assert_close(dist.log_prob(action), want.log_prob(action))
    torch.testing.assert_close(dist.entropy(), want.entropy())
    assert dist.scale.min() >= 0.1
    assert dist.scale.max() <= 1.0


def test_bounded_normal_samples_have_the_moments_and_no_gradient():
    mean = torch.full((20_000, 1), 0.5, requires_grad=True)
    dist = BoundedNormal(mean, torch.full((20_000, 1), -2.0))
    sample = dist.sample(torch.randn(20_000, 1))
    assert not sample.requires_grad
    # Five standard errors.
    assert sample.mean().item() == pytest.approx(math.tanh(0.5), abs=0.02)
    assert sample.std().item() == pytest.approx(0.55, abs=0.015)
