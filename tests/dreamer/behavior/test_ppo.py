"""The objectives: PPO's table of gradients, weights and diagnostics."""

from __future__ import annotations

import math

import pytest
import torch

from dreamer.behavior.ppo import (
    clipped_surrogate,
    ppo_metrics,
    trajectory_weight,
    weighted_mean,
)
from dreamer.nn.distributions import SymexpTwoHot, TwoHotCode


def loss_and_slope(ratio, adv, clip=0.2):
    """Loss to be minimised and its derivative by the log-probability."""
    log_prob = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    old, adv = torch.zeros(1, dtype=torch.float64), torch.tensor([adv], dtype=torch.float64)
    surrogate, got = clipped_surrogate(log_prob, old, adv, clip)
    assert got.item() == pytest.approx(ratio)
    (slope,) = torch.autograd.grad(-surrogate.sum(), log_prob)
    return -surrogate.item(), slope.item()


@pytest.mark.parametrize(
    ("adv", "ratio", "slope"),
    [
        (1.0, 0.7, -0.7),
        (1.0, 1.0, -1.0),
        (1.0, 1.1, -1.1),
        (1.0, 1.21, 0.0),
        (-1.0, 0.79, 0.0),
        (-1.0, 0.9, 0.9),
        (-1.0, 1.0, 1.0),
        (-1.0, 1.3, 1.3),
        (0.0, 1.3, 0.0),
        (2.5, 1.1, -2.75),
    ],
)
def test_gradient_table(adv, ratio, slope):
    assert loss_and_slope(ratio, adv)[1] == pytest.approx(slope)


@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
@pytest.mark.parametrize("adv", [-2.0, 1.0])
def test_objective_is_the_smaller_of_both(ratio, adv):
    want = min(ratio * adv, min(max(ratio, 0.8), 1.2) * adv)
    assert loss_and_slope(ratio, adv)[0] == pytest.approx(-want)


def test_at_the_acting_policy_the_gradient_is_that_of_reinforce():
    logit = torch.randn(50, 4, requires_grad=True)
    action, adv = torch.randint(0, 4, (50, 1)), torch.randn(50)
    log_prob = logit.log_softmax(-1).gather(-1, action).squeeze(-1)
    surrogate, ratio = clipped_surrogate(log_prob, log_prob.detach(), adv, 0.2)
    assert torch.equal(ratio, torch.ones(50))
    (got,) = torch.autograd.grad(surrogate.mean(), logit, retain_graph=True)
    (want,) = torch.autograd.grad((log_prob * adv).mean(), logit)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_hopeless_ratios_stay_finite():
    log_prob = torch.tensor([-1e4, 1e4], requires_grad=True)
    surrogate, ratio = clipped_surrogate(log_prob, torch.zeros(2), torch.tensor([1.0, -1.0]), 0.2)
    surrogate.sum().backward()
    assert bool(torch.isfinite(ratio).all())
    assert bool(torch.isfinite(log_prob.grad).all())


def test_weight_includes_the_first_state_and_not_the_last():
    cont = torch.tensor([0.9, 0.5, 1.0, 0.3])[:, None]
    assert trajectory_weight(cont).flatten().tolist() == pytest.approx([0.9, 0.45, 0.45])


def test_rows_of_weight_zero_contribute_nothing():
    x = torch.randn(6, requires_grad=True)
    weight = torch.tensor([1.0, 0.5, 0.0, 0.25, 0.0, 0.0])
    mean = weighted_mean(x, weight)
    want = (x[0] + 0.5 * x[1] + 0.25 * x[3]) / 1.75
    assert mean.item() == pytest.approx(want.item(), rel=1e-6)
    (slope,) = torch.autograd.grad(mean, x)
    assert not slope[[2, 4, 5]].any()
    assert weighted_mean(x, torch.zeros(6)).item() == 0.0


def test_diagnostics_of_the_acting_policy_are_zero():
    metrics = ppo_metrics(torch.ones(10), 0.2, torch.full((10,), 0.7))
    assert metrics["approx_kl"] == 0
    assert metrics["clip_fraction"] == 0
    assert metrics["entropy"].item() == pytest.approx(0.7)


def test_diagnostics_of_known_ratios():
    metrics = ppo_metrics(torch.tensor([0.5, 1.0, 1.1, 2.0]), 0.2, torch.zeros(4))
    assert metrics["clip_fraction"].item() == 0.5
    want = sum(r - 1 - math.log(r) for r in (0.5, 1.0, 1.1, 2.0)) / 4
    assert metrics["approx_kl"].item() == pytest.approx(want, rel=1e-5)


def test_divergence_estimate_agrees_with_the_true_one():
    old, new = torch.randn(5), torch.randn(5) * 0.3
    new = old + new
    p, q = old.softmax(-1), new.softmax(-1)
    true = (p * (p / q).log()).sum()
    # Weighted by how often the acting policy takes each action.
    estimate = sum(
        share * ppo_metrics(ratio[None], 0.2, torch.zeros(1))["approx_kl"]
        for share, ratio in zip(p, q / p, strict=True)
    )
    torch.testing.assert_close(estimate, true, rtol=1e-4, atol=1e-6)


def test_initial_critic_loss_is_twice_ln_255():
    code = TwoHotCode.of(torch.randn(4), torch.zeros(4))
    loss = SymexpTwoHot(torch.zeros(4, 255)).code_loss(code)
    assert loss.tolist() == pytest.approx([2 * 5.541264] * 4, abs=1e-5)
