"""Goals: closed forms of their reward, the autoencoder on states known, the weight's adapter."""

from __future__ import annotations

import math

import pytest
import torch
from builders import generator

from dreamer.behavior.goals import FACTOR, LEAST, MOST, TARGET, GoalAutoencoder, goal_reward
from dreamer.nn.optim import LaProp

D, GROUPS, CLASSES = 16, 8, 8
MOST_NATS = GROUPS * math.log(CLASSES)


def autoencoder(seed=0):
    return GoalAutoencoder(D, 64, GROUPS, CLASSES, seed)


def train(goals, updates):
    """An autoencoder that has seen nothing but `goals` (M, D), and its last metrics."""
    found, source = autoencoder(), generator(2)
    optimizer = LaProp({"goals": list(found.parameters())})
    for _ in range(updates):
        noise = torch.rand(len(goals), 1, GROUPS, generator=source)
        loss, metrics = found.loss(goals.unsqueeze(1), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step({"goals": 3e-3})
    return found, metrics


def test_reward_of_known_pairs():
    goal = torch.randn(5, D, generator=generator())
    across = torch.zeros(2, D)
    across[0, 3], across[1, 7] = 2.0, 5.0
    assert goal_reward(goal, goal).tolist() == pytest.approx([1.0] * 5)
    assert goal_reward(goal, 2 * goal).tolist() == pytest.approx([0.5] * 5)
    assert goal_reward(goal, 0.25 * goal).tolist() == pytest.approx([0.25] * 5)
    assert goal_reward(goal, -goal).tolist() == pytest.approx([-1.0] * 5)
    assert goal_reward(across[0], across[1]).item() == 0.0
    assert goal_reward(torch.zeros(D), torch.zeros(D)).item() == 0.0


def test_reward_is_one_for_the_goal_alone_and_never_more():
    goal, deter = torch.randn(2, 500, D, generator=generator())
    reward = goal_reward(goal, deter)
    assert reward.abs().max() < 1.0
    torch.testing.assert_close(reward, goal_reward(deter, goal))
    one_by_one = [goal_reward(g, h) for g, h in zip(goal[:9], deter[:9], strict=True)]
    torch.testing.assert_close(reward[:9], torch.stack(one_by_one))
    # In any direction: a step away from the goal is paid less.
    away = goal + 0.1 * torch.nn.functional.normalize(deter, dim=-1)
    assert (goal_reward(goal, away) < 1.0).all()


def test_codes_are_class_major_one_hots():
    code = autoencoder().encode(torch.randn(6, D)).sample(torch.rand(6, GROUPS))
    assert code.shape == (6, CLASSES * GROUPS)
    assert torch.equal(code.unflatten(-1, (CLASSES, GROUPS)).sum(1), torch.ones(6, GROUPS))


def test_the_uniform_code_has_no_divergence_and_no_code_more_than_l_ln_c():
    found, deter = autoencoder(), torch.randn(4, 3, D)
    assert found.max_divergence == pytest.approx(16.6355, abs=1e-4)
    torch.nn.init.zeros_(found.logit.weight)
    _, metrics = found.loss(deter, torch.rand(4, 3, GROUPS))
    assert metrics["goal/divergence"].item() == pytest.approx(0.0, abs=1e-5)
    torch.nn.init.normal_(found.logit.weight, std=1e6)
    _, metrics = found.loss(deter, torch.rand(4, 3, GROUPS))
    # The uniform mixture of 1 % keeps some entropy: seven classes with 0.125 % each.
    p, q = 1 - 7 * 0.00125, 0.00125
    largest = MOST_NATS + GROUPS * (p * math.log(p) + 7 * q * math.log(q))
    assert metrics["goal/divergence"].item() == pytest.approx(largest, rel=1e-3)
    assert largest < MOST_NATS


def test_the_loss_is_the_weighted_sum_of_both_metrics():
    found, deter = autoencoder(), torch.randn(4, 3, D)
    found.scale.fill_(0.3)
    noise = torch.rand(4, 3, GROUPS)
    loss, metrics = found.loss(deter, noise)
    want = metrics["goal/reconstruction"] + 0.3 * metrics["goal/divergence"]
    torch.testing.assert_close(loss.detach(), want)  # the weight from before it was adapted
    with torch.no_grad():
        error = found.decode(found.encode(deter).sample(noise)) - deter
    torch.testing.assert_close(metrics["goal/reconstruction"], error.square().sum(-1).mean())


@pytest.mark.parametrize(
    ("share", "power"), [(1.2, 1), (1.11, 1), (1.09, 0), (1.0, 0), (0.91, 0), (0.89, -1), (0.0, -1)]
)
def test_the_weight_moves_by_a_tenth_outside_ten_percent_and_stays_put_inside(share, power):
    found = autoencoder()
    for calls in range(1, 4):
        found.adapt(torch.tensor(share * TARGET * MOST_NATS))
        assert found.scale.item() == pytest.approx(FACTOR ** (power * calls), rel=1e-6)
    assert (FACTOR, TARGET) == (1.1, 0.6)
    if power == 0:
        assert found.scale.item() == 1.0


def test_the_weight_has_bounds():
    found = autoencoder()
    for divergence, bound in ((MOST_NATS, MOST), (0.0, LEAST)):
        for _ in range(200):
            found.adapt(torch.tensor(divergence))
        assert found.scale.item() == pytest.approx(bound, rel=1e-6)


def test_no_gradient_leaves_the_autoencoder():
    found, deter = autoencoder(), torch.randn(4, 3, D, requires_grad=True)
    loss, _ = found.loss(deter, torch.rand(4, 3, GROUPS))
    loss.backward()
    assert deter.grad is None
    # Through the sample, straight through, to the encoder.
    assert all(p.grad is not None and bool(p.grad.any()) for p in found.parameters())


def test_sixty_four_goals_are_told_apart():
    goals = torch.rand(64, D, generator=generator(5)) * 2 - 1
    found, metrics = train(goals, 1000)
    with torch.no_grad():
        code = found.encode(goals).mode()
        error = (found.decode(code) - goals).square().mean()
    assert error < 0.05 * goals.var()
    assert len(code.unique(dim=0)) == 64
    assert metrics["goal/code_perplexity"] > 6  # every class is in use
    assert metrics["goal/divergence"].item() == pytest.approx(TARGET * MOST_NATS, rel=0.2)


def test_a_world_of_one_state_has_one_code():
    only = (torch.rand(D, generator=generator(5)) * 2 - 1).expand(64, D)
    found, metrics = train(only, 400)
    with torch.no_grad():
        code = found.encode(only).mode()
        error = (found.decode(code) - only).square().mean()
    assert len(code.unique(dim=0)) == 1
    assert error < 1e-3 * only.var()
    assert metrics["goal/code_perplexity"].item() == pytest.approx(1.0, abs=1e-5)


def test_equal_seeds_give_equal_weights():
    one, other, another = (autoencoder(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["out.weight"], another["out.weight"])
