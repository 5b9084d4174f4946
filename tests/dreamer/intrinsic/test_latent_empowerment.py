"""Empowerment in a world model: blind to what `deter` knows, scaled for imagination, inert."""

from __future__ import annotations

import math

import pytest
import torch
from builders import CPU, SMALL, generator, random_latents

from dreamer.intrinsic.empowerment import (
    SAMPLES,
    STARTS,
    Empowerment,
    EmpowermentConfig,
    SequenceBound,
    play_prior,
)
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec, ConfigError, Imagined, Replayed
from dreamer.world_model.rssm import RSSM, Size

EMBED = 7
T, B = 5, 16
WIDE = Size(deter=32, hidden=32, groups=8, classes=4, depth=2, units=32)
ACTIONS = {
    "choice": ActionSpec(kind="discrete", sizes=(4,)),
    "choices": ActionSpec(kind="discrete", sizes=(3, 2)),
    "numbers": ActionSpec(kind="continuous", sizes=(2,)),
}
FOUR = ACTIONS["choice"]


def config(**changes):
    values = {
        "enabled": True,
        "weight": 1.0,
        "kind": "action",
        "steps": 2,
        "every": 2,
        "lr": 3e-3,
    }
    return EmpowermentConfig(**values | changes)


def world(size, spec, *, shown):
    """Prior with random weights; its logits depend on `deter` by `shown`, or not at all for 0."""
    rssm = RSSM(size, EMBED, spec.dim, generator(3))
    with torch.no_grad():
        rssm.prior_logit.weight.mul_(shown)
        torch.nn.init.normal_(rssm.prior_logit.bias, generator=generator(4))
    return rssm


def replayed(size, spec, lead=(T, B)):
    feat = torch.cat(random_latents(size, lead), -1)
    return Replayed(
        embed=torch.zeros(*lead, EMBED),
        feat=feat,
        action=torch.zeros(*lead, spec.dim),
        is_first=torch.zeros(lead, dtype=torch.bool),
    )


def learned(losses_of, module, updates, rate=3e-3):
    """Mean bound in nats over the last tenth of the updates."""
    optimizer, seen = LaProp({"empowerment": list(module.parameters())}), []
    for index in range(updates):
        losses, metrics = losses_of(index)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step({"empowerment": rate})
        seen.append(metrics["intrinsic/empowerment"])
    return torch.stack(seen[-(updates // 10) :]).mean().item()


def test_actions_that_only_deter_knows_are_worth_nothing():
    rssm, noise = world(WIDE, FOUR, shown=0.0), Noise(0, CPU)
    module, replay = Empowerment(WIDE, FOUR, 32, config(), 0), replayed(WIDE, FOUR)
    got = learned(lambda i: module.losses(rssm, replay, noise, i), module, 300)
    assert abs(got) < 0.05 * module.ceiling()


def test_a_decoder_that_reads_deter_would_find_the_actions_there():
    """The trap is real: in the same world it reports most of n ln A."""
    rssm, noise = world(WIDE, FOUR, shown=0.0), Noise(0, CPU)
    feat = replayed(WIDE, FOUR).feat.flatten(0, 1)
    bound = SequenceBound(feat.shape[-1], WIDE.deter, FOUR, 2, 32, 0)
    start, deter = feat.repeat_interleave(SAMPLES, 0), feat[:, : WIDE.deter]

    def into_deter(sequence):
        state, latent = start, noise.uniform("latents", 0, (2, len(start), WIDE.groups))
        for step in range(2):
            parts = state[:, : WIDE.deter], state[:, WIDE.deter :]
            state = torch.cat(rssm.imagine_step(*parts, sequence[:, step], latent[step]), -1)
        return state[:, : WIDE.deter]

    def losses(index):
        acting = noise.action(FOUR, "acting", index, (len(feat), SAMPLES, 2))
        return bound.losses(feat, deter, acting, into_deter)

    assert learned(losses, bound, 300) > 0.5 * 2 * math.log(4)


def test_actions_that_stoch_shows_are_worth_something():
    rssm, noise = world(WIDE, FOUR, shown=10.0), Noise(0, CPU)
    module, replay = Empowerment(WIDE, FOUR, 32, config(steps=1), 0), replayed(WIDE, FOUR)
    replay.feat[..., : WIDE.deter] = 0.0  # what the decoder cannot see is the same everywhere
    got = learned(lambda i: module.losses(rssm, replay, noise, i), module, 300)
    assert got > 0.2 * module.ceiling()
    feat = replay.feat[:1]
    assert (module.reward(rollout(feat.expand(2, -1, -1))) > 0.1).all()


def rollout(feat):
    """Imagined states and nothing else that empowerment reads."""
    steps = feat.shape[:2]
    nothing = torch.zeros(steps)
    action = torch.zeros(steps[0] - 1, steps[1], FOUR.dim)
    return Imagined(feat, action, nothing[1:], nothing[1:], nothing, nothing)


def test_play_prior_is_one_imagined_step_after_the_other():
    rssm, rows = world(SMALL, FOUR, shown=1.0), 6
    deter, stoch = random_latents(SMALL, (rows,))
    actions = torch.eye(4)[torch.randint(0, 4, (rows, 3))]
    latent = torch.rand(3, rows, SMALL.groups)
    got = play_prior(rssm, torch.cat([deter, stoch], -1), latent, actions)
    for step in range(3):
        deter, stoch = rssm.imagine_step(deter, stoch, actions[:, step], latent[step])
    assert torch.equal(got, stoch)


@pytest.mark.parametrize("spec", ACTIONS.values(), ids=ACTIONS)
def test_nothing_reaches_the_world_model(spec):
    rssm, noise = world(SMALL, spec, shown=1.0), Noise(0, CPU)
    module, replay = Empowerment(SMALL, spec, 8, config(), 0), replayed(SMALL, spec)
    replay.feat.requires_grad_()
    losses, metrics = module.losses(rssm, replay, noise, 0)
    assert losses.keys() == {"empowerment_q", "empowerment_w", "empowerment_v"}
    sum(losses.values()).backward()
    assert replay.feat.grad is None
    assert all(param.grad is None for param in rssm.parameters())
    assert all(param.grad is not None for param in module.parameters())
    assert not any(value.requires_grad or value.dim() for value in metrics.values())


@pytest.mark.parametrize("loss", ["q", "w", "v"])
def test_each_loss_trains_its_own_network(loss):
    module = Empowerment(SMALL, FOUR, 8, config(), 0)
    args = world(SMALL, FOUR, shown=1.0), replayed(SMALL, FOUR), Noise(0, CPU), 0
    module.losses(*args)[0][f"empowerment_{loss}"].backward()
    trained = {name.split(".")[1] for name, p in module.named_parameters() if p.grad is not None}
    assert trained == {{"q": "decoder", "w": "source", "v": "value"}[loss]}


def test_updates_differ_and_repeat_themselves():
    module = Empowerment(SMALL, FOUR, 8, config(), 0)
    rssm, replay = world(SMALL, FOUR, shown=1.0), replayed(SMALL, FOUR)

    def decoder_loss(index):
        return module.losses(rssm, replay, Noise(0, CPU), index)[0]["empowerment_q"]

    assert torch.equal(decoder_loss(1), decoder_loss(1))
    assert not torch.equal(decoder_loss(1), decoder_loss(2))


@pytest.mark.parametrize(("lead", "rows"), [((2, 3), 6), ((9, 16), STARTS)])
def test_few_replayed_states_are_all_used(monkeypatch, lead, rows):
    module, seen = Empowerment(SMALL, FOUR, 8, config(), 0), []
    monkeypatch.setattr(module.bound, "losses", lambda *args: seen.append(args))
    replay = replayed(SMALL, FOUR, lead)
    module.losses(world(SMALL, FOUR, shown=1.0), replay, Noise(0, CPU), 0)
    start, before, noise, _ = seen[0]
    assert torch.equal(start[:, SMALL.deter :], before)
    assert len(start) == rows == len(start.unique(dim=0))
    assert noise.shape == (rows, SAMPLES, 2, 1)


def test_the_reward_is_a_share_of_the_ceiling():
    module = Empowerment(SMALL, FOUR, 8, config(), 0)
    feat = torch.cat(random_latents(SMALL, (9, 40)), -1)
    assert not module.reward(rollout(feat)).any()  # nothing is known before training
    torch.nn.init.normal_(module.bound.value.out.weight, 0.0, 5.0, generator=generator(1))
    reward = module.reward(rollout(feat))
    assert reward.shape == (8, 40)
    assert not reward.requires_grad
    assert reward.min() == 0.0
    assert reward.max() == 1.0
    between = (reward > 0.0) & (reward < 1.0)
    assert between.any()
    nats = module.value(feat[1:]).detach()
    torch.testing.assert_close(reward[between], (nats / module.ceiling())[between])


def test_ceilings():
    def ceiling(spec, steps):
        return Empowerment(WIDE, spec, 8, config(steps=steps), 0).ceiling()

    assert ceiling(FOUR, 3) == pytest.approx(3 * math.log(4))
    assert ceiling(ACTIONS["choices"], 2) == pytest.approx(2 * math.log(6))
    assert ceiling(ACTIONS["numbers"], 1) == pytest.approx(2 * (math.log(10) + 0.5))
    assert ceiling(ACTIONS["numbers"], 9) == pytest.approx(8 * math.log(4))  # what stoch can hold


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "goal"),
        ("weight", -0.1),
        ("weight", 101.0),
        ("steps", 0),
        ("every", 0),
        ("lr", 2.0),
    ],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        config(**{key: value})
    assert caught.value.key == key
