"""ActorCritic: targets, losses and PPO updates, and two worlds small enough to be solved."""

from __future__ import annotations

import pytest
import torch
from builders import CPU, generator, policy_config, random_batch, snapshot, vector_spec
from torch.nn import functional

from dreamer.behavior.learner import ActorCritic
from dreamer.behavior.level import Level, Rollout
from dreamer.behavior.ppo import trajectory_weight
from dreamer.nn.math import lambda_return
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec

F, H, N = 12, 5, 40
TWO = ActionSpec(kind="discrete", sizes=(2,))
BOX = ActionSpec(kind="continuous", sizes=(3,))
NOISE = Noise(0, CPU)


def learner(spec=TWO, feat_dim=F, **changes):
    config = policy_config(**changes)
    level = Level(
        name="",
        metrics="policy",
        entropy_scale=config.entropy_scale,
        target_kl=config.target_kl,
        weights={"extrinsic": 1.0},
    )
    return ActorCritic(feat_dim, 16, spec, config, level, 0)


def random_rollout(behavior, seed=0):
    """Random features and rewards, acted upon by the actor of `behavior`."""
    source = generator(seed)
    feat = torch.randn(H + 1, N, F, generator=source)
    draw = torch.rand if behavior.actor.spec.kind == "discrete" else torch.randn
    noise = draw(H, N, behavior.actor.spec.noise_dim, generator=source)
    acted = behavior.actor.act(feat[:-1], None, torch.zeros(N, dtype=torch.bool), noise)
    reward = torch.randn(H + 1, N, generator=source)
    cont = torch.rand(H + 1, N, generator=source)
    return Rollout(
        feat=feat,
        action=acted.action,
        log_prob=acted.log_prob,
        entropy=acted.entropy,
        reward=reward.unsqueeze(1),
        cont=cont,
        weight=trajectory_weight(cont),
    )


def detached(rollout):
    carried = {name: getattr(rollout, name).detach() for name in ("log_prob", "entropy")}
    return rollout._replace(**carried)


def scramble(head):
    """Give a zero-initialised head something to say."""
    torch.nn.init.normal_(head.out.weight, std=0.3, generator=generator(1))


def test_targets_by_hand():
    behavior = learner()
    scramble(behavior.critic.head)
    scramble(behavior.critic.slow)
    rollout = detached(random_rollout(behavior))
    targets = behavior.evaluate(rollout)
    with torch.no_grad():
        value = behavior.critic(rollout.feat).mean()[..., 0]
        slow = behavior.critic.slow(rollout.feat[:-1]).mean()[..., 0]
    ret = lambda_return(rollout.reward[:, 0], value, rollout.cont, 0.95)
    scale = max(1.0, 0.01 * (ret.quantile(0.95) - ret.quantile(0.05)).item())
    torch.testing.assert_close(targets.ret, ret[:, None])
    torch.testing.assert_close(targets.value, value[:-1, None])
    torch.testing.assert_close(targets.slow, slow[:, None])
    torch.testing.assert_close(targets.adv, (ret - value[:-1]) / scale)
    weight = rollout.cont[0] * rollout.cont[1] * rollout.cont[2]
    torch.testing.assert_close(targets.weight[2], weight)


def test_large_returns_are_scaled_down_by_their_spread_only():
    behavior = learner()
    rollout = detached(random_rollout(behavior))
    rollout = rollout._replace(reward=1e4 * rollout.reward + 5e3)
    for _ in range(1500):
        behavior.streams.scales["extrinsic"].update(1e4 * torch.linspace(-1, 1, 21))
    targets = behavior.evaluate(rollout)
    # No offset is taken off: the advantage of a zero critic is the return over the spread.
    scale = behavior.streams.scale("extrinsic")
    torch.testing.assert_close(targets.adv, targets.ret[:, 0] / scale)
    assert targets.adv.abs().max() < 10


def test_returns_bootstrap_from_the_online_critic_alone():
    behavior = learner()
    rollout = detached(random_rollout(behavior))
    plain = behavior.evaluate(rollout)
    scramble(behavior.critic.slow)
    slow = behavior.evaluate(rollout)
    assert torch.equal(slow.ret, plain.ret)
    assert not torch.equal(slow.slow, plain.slow)
    scramble(behavior.critic.head)
    assert not torch.equal(behavior.evaluate(rollout).ret, plain.ret)


def test_reinforce_losses_by_hand():
    behavior = learner(actor="reinforce", entropy_scale=0.1)
    scramble(behavior.critic.head)
    rollout = random_rollout(behavior)
    losses, targets = behavior.reinforce(rollout)
    gain = rollout.log_prob * targets.adv + 0.1 * rollout.entropy
    torch.testing.assert_close(losses["actor"], -targets.weight * gain)
    value = behavior.critic(rollout.feat[:-1]).task
    fit = value.loss(targets.ret[:, 0]) + value.loss(targets.slow[:, 0])
    torch.testing.assert_close(losses["critic"], targets.weight * fit)


def test_actor_and_critic_losses_train_their_own_networks_only():
    behavior = learner(actor="reinforce")
    losses, _ = behavior.reinforce(random_rollout(behavior))
    losses["actor"].mean().backward(retain_graph=True)
    assert all(p.grad is None for p in behavior.critic.parameters())
    assert any(bool(p.grad.any()) for p in behavior.actor.parameters())
    behavior.zero_grad()
    losses["critic"].mean().backward()
    assert all(p.grad is None for p in behavior.actor.parameters())
    assert all(p.grad is None for p in behavior.critic.slow.parameters())
    assert any(bool(p.grad.any()) for p in behavior.critic.head.parameters())


class Recorder:
    """Stands in for the optimiser: keeps the actor's gradients and moves nothing."""

    def __init__(self, behavior):
        self.behavior, self.grads, self.gates = behavior, [], []

    def zero_grad(self):
        self.behavior.zero_grad()

    def step(self, rates, gate=None):
        if "actor" in rates:
            self.grads.append([p.grad.clone() for p in self.behavior.actor.parameters()])
            self.gates.append(gate)


RATES = {"actor": 1e-3, "critic": 1e-3}


@pytest.mark.parametrize("spec", [TWO, BOX])
def test_first_ppo_gradient_is_that_of_reinforce(spec):
    behavior = learner(spec, epochs=1, minibatches=1)
    rollout = random_rollout(behavior)
    targets = behavior.evaluate(detached(rollout))
    recorder = Recorder(behavior)
    metrics = behavior.ppo_update(detached(rollout), targets, recorder, RATES, NOISE, 0)
    assert metrics["policy/approx_kl"].item() == pytest.approx(0.0, abs=1e-6)
    assert metrics["policy/clip_fraction"] == 0
    gain = rollout.log_prob * targets.adv + 3e-4 * rollout.entropy
    loss = -(targets.weight * gain).sum() / targets.weight.sum()
    want = torch.autograd.grad(loss, behavior.actor.parameters())
    for a, b in zip(recorder.grads[0], want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_minibatches_cover_the_rollout_once_an_epoch():
    behavior = learner(epochs=3, minibatches=4, entropy_scale=0.0)
    rollout = detached(random_rollout(behavior))
    # Equal weights: the parts add up.
    rollout = rollout._replace(cont=torch.ones(H + 1, N), weight=torch.ones(H, N))
    targets = behavior.evaluate(rollout)
    recorder = Recorder(behavior)
    behavior.ppo_update(rollout, targets, recorder, RATES, NOISE, 0)
    assert len(recorder.grads) == 12
    whole = Recorder(behavior)
    behavior.config = policy_config(epochs=1, minibatches=1)
    behavior.ppo_update(rollout, targets, whole, RATES, NOISE, 0)
    for epoch in range(3):
        parts = recorder.grads[4 * epoch : 4 * epoch + 4]
        for index, want in enumerate(whole.grads[0]):
            mean = torch.stack([grads[index] for grads in parts]).mean(0)
            torch.testing.assert_close(mean, want, rtol=1e-4, atol=1e-6)
    # Another order every epoch.
    assert not torch.equal(recorder.grads[0][0], recorder.grads[4][0])


def optimizer_of(behavior):
    groups = {"actor": behavior.actor, "critic": behavior.critic.head}
    return LaProp({name: list(part.parameters()) for name, part in groups.items()})


def test_beyond_the_divergence_limit_only_the_critic_goes_on():
    def train(epochs):
        behavior = learner(epochs=epochs, minibatches=1, target_kl=1e-6)
        rollout = detached(random_rollout(behavior))
        targets = behavior.evaluate(rollout)
        rates = {"actor": 0.3, "critic": 1e-3}
        metrics = behavior.ppo_update(rollout, targets, optimizer_of(behavior), rates, NOISE, 0)
        return snapshot(dict(behavior.state_dict())), metrics

    (once, first), (often, last) = train(1), train(6)
    assert (first["policy/active"].item(), last["policy/active"].item()) == (1.0, 0.0)
    actor = [name for name in once if name.startswith("actor.")]
    assert all(torch.equal(once[name], often[name]) for name in actor)
    head = [name for name in once if name.startswith("critic.head.")]
    assert any(not torch.equal(once[name], often[name]) for name in head)


def test_replay_value_by_hand():
    behavior, spec = learner(), vector_spec(2, discrete=(2,))
    scramble(behavior.critic.head)
    scramble(behavior.critic.slow)
    batch = random_batch(spec, 1, 4, reward=torch.tensor([[9.0, 1.0, 2.0, 3.0]]))
    batch.is_last[0, 1] = True
    feat, boot = torch.randn(4, 1, F), torch.tensor([100.0, 10.0, 20.0, 30.0])[:, None]
    loss = behavior.replay_value(feat, batch, boot, 0.5)
    # mix 0.95: the last step bootstraps 30, the one before the truncation 10.
    r2 = 3 + 0.5 * 30
    r1 = 2 + 0.5 * (0.05 * 20 + 0.95 * r2)
    ret = torch.tensor([[1 + 0.5 * 10], [r1], [r2]])
    value, slow = behavior.critic(feat[:-1]).task, behavior.critic.slow(feat[:-1]).task.mean()
    want = value.loss(ret) + value.loss(slow)
    want[1] = 0.0  # the episode ended here: its successor belongs to another one
    torch.testing.assert_close(loss, want)


def test_replay_value_uses_the_last_steps_of_the_sequences():
    behavior, spec = learner(), vector_spec(2, discrete=(2,))
    scramble(behavior.critic.head)
    batch = random_batch(spec, 3, 7)
    batch.is_last[1, 5] = batch.is_terminal[1, 5] = True
    tail = random_batch(spec, 3, 4)
    tail.reward[:] = batch.reward[:, 3:]
    tail.is_last[:], tail.is_terminal[:] = batch.is_last[:, 3:], batch.is_terminal[:, 3:]
    feat, boot = torch.randn(4, 3, F), torch.randn(4, 3)
    one, other = (behavior.replay_value(feat, each, boot, 0.997) for each in (batch, tail))
    assert one.shape == (3, 3)
    assert torch.equal(one, other)


def test_replay_value_trains_the_critic_and_the_features():
    behavior, spec = learner(), vector_spec(2, discrete=(2,))
    scramble(behavior.critic.head)
    feat = torch.randn(4, 2, F, requires_grad=True)
    boot = torch.randn(4, 2, requires_grad=True)
    loss = behavior.replay_value(feat, random_batch(spec, 2, 4), boot.detach(), 0.997)
    loss.mean().backward()
    assert bool(feat.grad[:-1].any())
    assert not feat.grad[-1].any()
    assert all(p.grad is None for p in behavior.critic.slow.parameters())
    assert all(p.grad is None for p in behavior.actor.parameters())


class Corridor:
    """Two contexts, shown for three steps: the action of the first step is rewarded on arriving at
    the third state, if it names the context. What is done later does not matter."""

    steps, width = 3, 6

    def __init__(self, prizes=(1.0, 0.0)):
        self.prizes = prizes

    def imagine(self, actor, rows, index):
        context = torch.arange(rows) % 2
        place = functional.one_hot(torch.arange(4), 4).float()
        shown = functional.one_hot(context, 2).float()
        feat = torch.cat(
            [place[:, None].expand(4, rows, 4), shown[None].expand(4, rows, 2)], -1
        ).contiguous()
        noise = NOISE.uniform("corridor", index, (3, rows, 1))
        acted = actor.act(feat[:-1], None, torch.zeros(rows, dtype=torch.bool), noise)
        right = acted.action[0].argmax(-1) == context
        reward, cont = torch.zeros(4, rows), torch.ones(4, rows)
        reward[2] = torch.where(right, *self.prizes)
        cont[3] = 0.0
        return Rollout(
            feat,
            acted.action,
            acted.log_prob,
            acted.entropy,
            reward.unsqueeze(1),
            cont,
            trajectory_weight(cont),
        )


def learn(world, actor, updates, rate=3e-3):
    """Train in the corridor; the probabilities (2, 2) of actions by context, and the values."""
    behavior = learner(feat_dim=world.width, actor=actor, epochs=2, minibatches=2)
    optimizer, rates = optimizer_of(behavior), {"actor": rate, "critic": rate}
    for index in range(updates):
        if actor == "ppo":
            with torch.no_grad():
                rollout = world.imagine(behavior.actor, 64, index)
            targets = behavior.evaluate(rollout)
            behavior.ppo_update(rollout, targets, optimizer, rates, NOISE, index)
        else:
            losses, _ = behavior.reinforce(world.imagine(behavior.actor, 64, index))
            optimizer.zero_grad()
            sum(loss.mean() for loss in losses.values()).backward()
            optimizer.step(rates)
        behavior.critic.update_slow(0.02)
    feat = world.imagine(behavior.actor, 2, 0).feat
    value = behavior.critic(feat).mean()[..., 0]
    return behavior.actor(feat[0]).probs[0].detach(), value.detach()


@pytest.mark.parametrize(("actor", "updates"), [("ppo", 60), ("reinforce", 200)])
def test_the_better_action_of_each_context_is_found(actor, updates):
    chosen, value = learn(Corridor(), actor, updates)
    assert chosen.diagonal().min() > 0.95
    assert chosen.max().item() <= 0.995 + 1e-6  # the uniform mixture keeps its share
    # The critic expects the prize before it, and nothing after it.
    assert value[1].min() > value[2].abs().max() + 0.2


@pytest.mark.parametrize("actor", ["ppo", "reinforce"])
def test_equal_prizes_leave_the_policy_alone(actor):
    before, _ = learn(Corridor((1.0, 1.0)), actor, 0)
    after, _ = learn(Corridor((1.0, 1.0)), actor, 30, rate=3e-4)
    assert (after - before).abs().max() < 0.02
