"""Imagined rollouts: which state, action and log-probability belong together."""

from __future__ import annotations

import pytest
import torch
from builders import generator, policy_config, random_latents, small_model, vector_spec

from dreamer.behavior.actor_critic import Actor
from dreamer.intrinsic.rewards import make_behavior
from dreamer.types import Acted, ConfigError
from dreamer.world_model.imagination import CHUNK, ImaginationConfig, imagine, in_chunks

H, N = 15, 6


def rollout_of(monkeypatch, **action):
    spec = vector_spec(3, **action)
    model = small_model(spec, monkeypatch)
    torch.nn.init.normal_(model.reward.out.weight)
    actor = Actor(model.feat_dim, 10, spec.action, generator(5))
    deter, stoch = random_latents(model.rssm.size, (N,))
    latent = torch.rand(H, N, model.rssm.size.groups)
    draw = torch.rand if spec.action.kind == "discrete" else torch.randn
    acting = draw(H, N, spec.action.noise_dim)
    return model, actor, (deter, stoch), latent, acting


ACTIONS = [{"discrete": (3,)}, {"discrete": (3, 2)}, {"continuous": 4}]


@pytest.mark.parametrize("action", ACTIONS)
def test_fifteen_steps_have_sixteen_states(monkeypatch, action):
    model, actor, start, latent, acting = rollout_of(monkeypatch, **action)
    out = imagine(model, actor, None, *start, latent, acting)
    assert out.feat.shape == (H + 1, N, model.feat_dim)
    assert out.reward.shape == out.cont.shape == (H + 1, N)
    assert out.log_prob.shape == out.entropy.shape == (H, N)
    assert out.action.shape == (H, N, model.spec.action.dim)
    assert torch.equal(out.feat[0], torch.cat(start, -1))


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_is_taken_at_its_own_state_and_leads_to_the_next(monkeypatch, action):
    model, actor, start, latent, acting = rollout_of(monkeypatch, **action)
    out = imagine(model, actor, None, *start, latent, acting)
    width = model.rssm.size.deter
    with torch.no_grad():
        for t in range(H):
            dist = actor(out.feat[t])
            torch.testing.assert_close(out.action[t], dist.sample(acting[t]))
            torch.testing.assert_close(out.log_prob[t], dist.log_prob(out.action[t]))
            torch.testing.assert_close(out.entropy[t], dist.entropy())
            deter, stoch = out.feat[t, :, :width], out.feat[t, :, width:]
            after = model.rssm.imagine_step(deter, stoch, out.action[t], latent[t])
            torch.testing.assert_close(torch.cat(after, -1), out.feat[t + 1])
        torch.testing.assert_close(out.reward, model.reward(out.feat).mean())
        torch.testing.assert_close(out.cont, model.cont(out.feat).mean())


def test_only_the_policy_gets_gradients(monkeypatch):
    model, actor, start, latent, acting = rollout_of(monkeypatch, discrete=(3,))
    start = [each.requires_grad_() for each in start]
    out = imagine(model, actor, None, *start, latent, acting)
    assert not any(x.requires_grad for x in (out.feat, out.action, out.reward, out.cont))
    (out.log_prob.sum() + out.entropy.sum()).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(each.grad is None for each in start)
    assert any(bool(p.grad.any()) for p in actor.parameters())


def test_gradient_is_that_of_each_step_on_its_own(monkeypatch):
    model, actor, start, latent, acting = rollout_of(monkeypatch, discrete=(3,))
    out = imagine(model, actor, None, *start, latent, acting)
    weights = torch.randn(H, N)
    got = torch.autograd.grad((out.log_prob * weights).sum(), actor.parameters())
    alone = sum((actor(out.feat[t]).log_prob(out.action[t]) * weights[t]).sum() for t in range(H))
    for a, b in zip(got, torch.autograd.grad(alone, actor.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_without_gradients_the_rollout_is_the_same(monkeypatch):
    model, actor, start, latent, acting = rollout_of(monkeypatch, discrete=(3,))
    one = imagine(model, actor, None, *start, latent, acting)
    with torch.no_grad():
        other = imagine(model, actor, None, *start, latent, acting)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert not other.log_prob.requires_grad


def test_a_world_without_reward_and_value_has_no_advantage(monkeypatch):
    spec = vector_spec(3, discrete=(3,))
    model = small_model(spec, monkeypatch)
    behavior, _ = make_behavior(model, policy_config(), None, 0)
    start = random_latents(model.rssm.size, (N,))
    noise = torch.rand(H, N, model.rssm.size.groups), torch.rand(H, N, 1)
    with torch.no_grad():
        rollout = imagine(model, behavior.policy, None, *start, *noise)
    (lesson,), _ = behavior.evaluate(rollout, {"extrinsic": rollout.reward[1:]})
    targets = lesson.targets
    assert targets.adv.shape == (H, N)
    assert not targets.adv.any()
    assert not targets.ret.any()


class Walker:
    """A policy with a carry: counts its steps and acts by them."""

    def initial(self, batch):
        return torch.zeros(batch)

    def act(self, feat, carry, is_first, noise):
        assert not is_first.any()
        action = torch.nn.functional.one_hot((carry % 3).long(), 3).float()
        return Acted(action, carry, carry, carry + 1)


def test_the_carry_of_the_policy_is_handed_on(monkeypatch):
    model, _, start, latent, acting = rollout_of(monkeypatch, discrete=(3,))
    policy = Walker()
    out = imagine(model, policy, policy.initial(N), *start, latent, acting)
    assert out.log_prob[:, 0].tolist() == list(range(H))
    assert out.action[4].argmax(-1).tolist() == [1] * N


@pytest.mark.parametrize("rows", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_chunks_change_nothing(rows):
    feat = torch.randn(2, rows, 3)
    torch.testing.assert_close(in_chunks(lambda x: x.sum(-1), feat), feat.sum(-1))


@pytest.mark.parametrize(("key", "value"), [("horizon", 0), ("starts", 0), ("starts", 1)])
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        ImaginationConfig(**{"horizon": 3, "starts": "all"} | {key: value})
    assert caught.value.key == key
