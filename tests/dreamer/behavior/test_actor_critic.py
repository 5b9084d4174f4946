"""Actor and critic before and during training."""

from __future__ import annotations

import math

import pytest
import torch
from builders import generator, policy_config

from dreamer.behavior.actor_critic import Actor, Critic
from dreamer.nn.distributions import ReturnsCode
from dreamer.types import ActionSpec, ConfigError

F, STREAMS = 20, 2
DISCRETE = ActionSpec(kind="discrete", sizes=(4, 2))
CONTINUOUS = ActionSpec(kind="continuous", sizes=(3,))


def actor(spec):
    return Actor(F, 16, spec, generator())


def test_fresh_discrete_policy_is_nearly_uniform():
    entropy = actor(DISCRETE)(torch.randn(50, F)).entropy()
    assert entropy.min().item() == pytest.approx(math.log(8), abs=1e-3)


def test_fresh_continuous_policy_is_wide_around_zero():
    dist = actor(CONTINUOUS)(torch.randn(50, F))
    assert dist.loc.abs().max() < 0.1
    torch.testing.assert_close(dist.scale, torch.full((50, 3), 0.8927), rtol=0, atol=5e-3)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
def test_acting_reports_the_log_probability_of_its_action(spec):
    policy, feat = actor(spec), torch.randn(7, F)
    noise = torch.rand(7, spec.noise_dim)
    first = torch.zeros(7, dtype=torch.bool)
    acted = policy.act(feat, policy.initial(7), first, noise)
    assert acted.action.shape == (7, spec.dim)
    assert not acted.action.requires_grad
    assert torch.equal(acted.log_prob, policy(feat).log_prob(acted.action))
    again = policy.act(feat, acted.carry, first, noise)
    assert torch.equal(again.action, acted.action)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
def test_mode_is_the_most_probable_action(spec):
    policy, feat = actor(spec), torch.randn(7, F)
    mode, _ = policy.mode(feat, None, torch.zeros(7, dtype=torch.bool))
    noise = torch.rand(200, 7, spec.noise_dim)
    dist = policy(feat)
    best = dist.log_prob(mode)
    assert all(bool((dist.log_prob(dist.sample(n)) <= best + 1e-6).all()) for n in noise)


def test_mean_and_deviation_have_layers_of_their_own():
    policy = actor(CONTINUOUS)
    feat = torch.randn(5, F)
    policy(feat).loc.sum().backward()
    assert policy.std.weight.grad is None
    assert bool(policy.out.weight.grad.any())


def test_slow_critic_starts_as_a_copy_and_follows_at_two_percent():
    critic = Critic(F, 16, 1, STREAMS - 1, generator())
    fast = dict(critic.head.named_parameters())
    slow = dict(critic.slow.named_parameters())
    assert all(torch.equal(fast[name], slow[name]) for name in fast)
    before = {name: p.clone() for name, p in slow.items()}
    with torch.no_grad():
        for p in fast.values():
            p.add_(torch.randn_like(p))
    critic.update_slow(0.02)
    for name, p in slow.items():
        want = 0.02 * fast[name] + 0.98 * before[name]
        torch.testing.assert_close(p, want, rtol=1e-5, atol=1e-7)


def test_slow_critic_is_saved_and_not_trained():
    critic = Critic(F, 16, 1, STREAMS - 1, generator())
    assert any(name.startswith("slow.") for name in critic.state_dict())
    assert not any(p.requires_grad for p in critic.slow.parameters())
    code = ReturnsCode.of(1, torch.ones(3, STREAMS))
    critic(torch.randn(3, F)).loss(code).sum().backward()
    assert all(p.grad is None for p in critic.slow.parameters())


def test_slow_critic_shares_no_memory():
    critic = Critic(F, 16, 1, STREAMS - 1, generator())
    own = {p.data_ptr() for p in critic.head.parameters()}
    assert not own & {p.data_ptr() for p in critic.slow.parameters()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("actor", "sac"),
        ("clip_ratio", 0.0),
        ("epochs", 0),
        ("minibatches", 0),
        ("target_kl", 0.0),
        ("entropy_scale", -1.0),
        ("actor_lr", math.nan),
        ("critic_lr", -1e-3),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        policy_config(**{key: value})
    assert caught.value.key == key
