"""Reward streams: scales with floors, weights, and nothing for what is switched off."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from builders import generator, policy_config

from dreamer.behavior.learner import ActorCritic
from dreamer.behavior.level import Level, Rollout
from dreamer.behavior.streams import FLOORS, RewardStreams, active
from dreamer.nn.math import NUM_BINS, lambda_return
from dreamer.types import ActionSpec

H, N = 6, 20
ALL = {"extrinsic": 1.0, "icm": 0.1, "empowerment": 0.05, "goal": 0.5}


def random_rewards(names=ALL, seed=0):
    source = generator(seed)
    return {name: torch.rand(H, N, generator=source) for name in names}


def mixed(streams, ret, value):
    return streams.mix(streams.advantages(ret, value))


def level_of(weights, **changes):
    values = {"name": "", "metrics": "policy", "entropy_scale": 0.0, "target_kl": 1e6}
    return Level(**values | {"weights": weights} | changes)


def test_only_what_has_weight_is_active_and_the_task_comes_first():
    assert list(active({"goal": 0.5, "icm": 0.0, "extrinsic": 1.0})) == ["extrinsic", "goal"]


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ({"extrinsic": 1.0}, {"scales.extrinsic"}),
        ({"goal": 1.0}, {"scales.goal", "centers.goal"}),
        ({"extrinsic": 1.0, "icm": 0.1}, {"scales.extrinsic", "scales.icm", "unit", "centers.icm"}),
        (
            {"extrinsic": 1.0, "empowerment": 0.1},
            {"scales.extrinsic", "scales.empowerment", "centers.empowerment"},
        ),
    ],
)
def test_streams_that_are_off_allocate_nothing(weights, parts):
    streams = RewardStreams(weights)
    assert {name.rpartition(".")[0] for name in streams.state_dict()} == parts
    assert not list(streams.parameters())


def test_a_stream_costs_one_number_and_the_task_a_two_hot_head():
    def trained(weights):
        spec = ActionSpec(kind="discrete", sizes=(2,))
        level = ActorCritic(7, 16, spec, policy_config(), level_of(weights), 0)
        return sum(p.numel() for p in level.parameters() if p.requires_grad)

    counts = [trained(dict(list(ALL.items())[:number])) for number in (1, 2, 3, 4)]
    assert [b - a for a, b in pairwise(counts)] == [16 + 1] * 3
    assert trained({"extrinsic": 1.0}) - trained({"goal": 1.0}) == (16 + 1) * (NUM_BINS - 1)


def test_extrinsic_rewards_keep_their_size():
    reward = 1e3 * random_rewards()["extrinsic"]
    ready = RewardStreams({"extrinsic": 1.0}).prepare({"extrinsic": reward})
    assert torch.equal(ready, reward[:, None])


def test_the_first_batch_of_intrinsic_rewards_is_scaled_by_itself():
    rewards = random_rewards()
    ready = RewardStreams(ALL).prepare(rewards)
    assert ready.shape == (H, 4, N)
    unit = rewards["icm"] / rewards["icm"].square().mean().sqrt()
    want = [rewards["extrinsic"], unit - unit.mean()]
    want += [rewards[name] - rewards[name].mean() for name in ("empowerment", "goal")]
    torch.testing.assert_close(ready, torch.stack(want, 1))


def test_rewards_that_nobody_wants_are_not_touched():
    streams = RewardStreams({"extrinsic": 1.0})
    rewards = random_rewards()
    assert torch.equal(streams.prepare(rewards)[:, 0], rewards["extrinsic"])
    assert streams.metrics(rewards, streams.prepare(rewards)).keys() == {
        f"reward/extrinsic/{kind}" for kind in ("raw", "normalised", "weighted")
    }


def test_curiosity_of_any_size_is_brought_to_one():
    for size in (1e-6, 1.0, 1e6):
        streams, rewards = RewardStreams({"icm": 1.0}), random_rewards(["icm"])
        ready = streams.prepare({"icm": size * rewards["icm"]})
        assert ready.std().item() == pytest.approx(0.5, abs=0.1)
    silence = RewardStreams({"icm": 1.0}).prepare({"icm": torch.zeros(H, N)})
    assert not silence.any()


def test_floors():
    """A tenth for intrinsic streams; a task's rewards are never amplified."""
    assert FLOORS == {"extrinsic": 1.0, "icm": 0.1, "empowerment": 0.1, "goal": 0.1}
    streams = RewardStreams(ALL)
    small = torch.full((H, 4, N), 1e-3) * torch.randn(H, 4, N, generator=generator())
    mixed(streams, small, torch.zeros_like(small))
    for name, floor in FLOORS.items():
        assert streams.scale(name).item() == pytest.approx(floor)


def test_intrinsic_scales_need_no_time_to_warm_up():
    streams = RewardStreams(ALL)
    ret = 50.0 * torch.rand(H, 4, N, generator=generator())
    mixed(streams, ret, torch.zeros_like(ret))
    for index, name in enumerate(ALL):
        spread = ret[:, index].quantile(0.95) - ret[:, index].quantile(0.05)
        # The paper's scale begins at 0 and takes in a hundredth.
        want = max(1.0, 0.01 * spread.item()) if name == "extrinsic" else spread.item()
        assert streams.scale(name).item() == pytest.approx(want, rel=1e-4)


def test_the_advantage_is_the_weighted_sum_over_the_scales():
    streams, source = RewardStreams(ALL), generator()
    ret = torch.randn(H, 4, N, generator=source) * torch.tensor([300.0, 3.0, 0.01, 1.0])[:, None]
    value = torch.randn(H, 4, N, generator=source)
    adv = mixed(streams, ret, value)
    want = sum(
        weight * (ret[:, i] - value[:, i]) / streams.scale(name)
        for i, (name, weight) in enumerate(ALL.items())
    )
    torch.testing.assert_close(adv, want)


def test_weights_scale_the_advantage_of_their_own_stream():
    ret, value = torch.randn(2, H, 2, N, generator=generator()).unbind(0)
    halves = mixed(RewardStreams({"extrinsic": 1.0, "goal": 0.5}), ret, value)
    whole = mixed(RewardStreams({"extrinsic": 1.0, "goal": 1.0}), ret, value)
    only = mixed(RewardStreams({"extrinsic": 1.0}), ret[:, :1], value[:, :1])
    torch.testing.assert_close(halves - only, 0.5 * (whole - only))


def test_looking_without_learning():
    """What judges a held-out rollout leaves all statistics alone, and uses those learned."""
    streams, rewards = RewardStreams(ALL), random_rewards()
    ret = torch.randn(H, 4, N, generator=generator())
    for _ in range(3):
        mixed(streams, streams.prepare(rewards) + ret, ret)
    before = {name: value.clone() for name, value in streams.state_dict().items()}
    streams.eval()
    one = streams.prepare(random_rewards(seed=7))
    mixed(streams, 9 * ret, ret)
    assert all(torch.equal(before[name], value) for name, value in streams.state_dict().items())
    streams.train()
    assert not torch.equal(streams.prepare(random_rewards(seed=7)), one)


def test_metrics_are_raw_normalised_and_weighted_means():
    streams, rewards = RewardStreams(ALL), random_rewards()
    ready = streams.prepare(rewards)
    mixed(streams, 30 * ready, torch.zeros_like(ready))
    metrics = streams.metrics(rewards, ready, "pay")
    assert len(metrics) == 12
    for index, (name, weight) in enumerate(ALL.items()):
        mean = ready[:, index].mean() / streams.scale(name)
        torch.testing.assert_close(metrics[f"pay/{name}/raw"], rewards[name].mean())
        torch.testing.assert_close(metrics[f"pay/{name}/normalised"], mean)
        torch.testing.assert_close(metrics[f"pay/{name}/weighted"], weight * mean)


def test_statistics_are_saved():
    streams, rewards = RewardStreams(ALL), random_rewards()
    ret = torch.randn(H, 4, N, generator=generator())
    mixed(streams, streams.prepare(rewards), ret)
    other = RewardStreams(ALL)
    other.load_state_dict(streams.state_dict())
    assert torch.equal(other.prepare(rewards), streams.prepare(rewards))
    assert torch.equal(mixed(other, ret, 2 * ret), mixed(streams, ret, 2 * ret))


def test_every_stream_has_returns_and_values_of_its_own():
    spec = ActionSpec(kind="discrete", sizes=(2,))
    level = ActorCritic(7, 16, spec, policy_config(), level_of({"extrinsic": 1.0, "goal": 0.5}), 0)
    torch.nn.init.normal_(level.critic.head.out.weight, std=0.3, generator=generator(1))
    source = generator(2)
    feat = torch.randn(H + 1, N, 7, generator=source)
    reward = torch.randn(H + 1, 2, N, generator=source)
    cont = torch.rand(H + 1, N, generator=source)
    nothing = torch.zeros(H, N)
    rollout = Rollout(feat, torch.zeros(H, N, 2), nothing, nothing, reward, cont, nothing)
    targets = level.evaluate(rollout)
    assert targets.adv.shape == (H, N)
    with torch.no_grad():
        value = level.critic(feat).mean()
    for index in range(2):
        want = lambda_return(reward[:, index], value[..., index], cont, 0.95)
        torch.testing.assert_close(targets.ret[:, index], want)
        torch.testing.assert_close(targets.value[:, index], value[:-1, :, index])
    assert not torch.allclose(value[..., 0], value[..., 1])
