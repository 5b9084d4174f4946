"""Evaluation plays a fixed set of episodes and touches nothing."""

from __future__ import annotations

from dataclasses import replace

import counter_env
import numpy as np
import pytest
import torch
from builders import SMALL, assert_same, make_trainer, snapshot

from dreamer.envs.episode import EpisodeStats
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.evaluation import mean_return, play_episodes
from dreamer.types import EnvError, EnvSpec
from dreamer.world_model.sizes import SIZES

assert counter_env.SPACES  # importing it registers the environment


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


def config_of(num_envs=3, length=4):
    return EnvConfig(
        id=f"counter_env:Counter-v0?length={length}&keys=wide",
        num_envs=num_envs,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )


@pytest.fixture(name="trainer", params=[False, True], ids=["flat", "hierarchy"])
def _trainer(request):
    envs = VectorEnv(config_of(), 0)
    envs.close()
    return make_trainer(envs.spec, hierarchy=request.param)


def play(trainer, config=None, **changes):
    values = {"episodes": 7, "seed": 5, "choice": "sample"} | changes
    return play_episodes(trainer.model, trainer.behavior.policy, config or config_of(), **values)


def test_another_rate_of_a_sound_is_told(trainer):
    """Equal arrays, which the agent would hear an octave lower."""
    config = replace(config_of(), id="counter_env:Counter-v0?keys=sound")
    envs = VectorEnv(config, 0)
    envs.close()
    slower = replace(envs.spec.obs["sound"], rate=4000)
    trainer.model.spec = EnvSpec({"sound": slower}, envs.spec.action)
    message = (
        r"keys=sound: found observations sound 6 uint8 at 8000 Hz and 3 discrete actions; "
        r"allowed: observations sound 6 uint8 at 4000 Hz and 3 discrete actions, which"
    )
    with pytest.raises(EnvError, match=message):
        play(trainer, config)


@pytest.mark.parametrize("choice", ["sample", "mode"])
def test_nothing_of_the_training_is_touched(trainer, choice):
    before = snapshot(trainer.state_dict())
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    noise = trainer.noise.uniform("act/latent", 0, (4,))
    play(trainer, choice=choice)
    assert_same(trainer.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(trainer.noise.uniform("act/latent", 0, (4,)), noise)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_the_same_seed_plays_the_same_episodes(trainer):
    assert play(trainer) == play(trainer)
    assert play(trainer) != play(trainer, seed=6)


def test_the_first_episodes_of_each_environment_count(trainer):
    played = [(episode.env, episode.episode) for episode in play(trainer)]
    assert played == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_fewer_episodes_than_environments(trainer):
    assert [e.env for e in play(trainer, episodes=2)] == [0, 1]


def test_returns_are_those_of_the_environment(trainer):
    rewards = {}

    def watch(rows, action, agent):
        assert action.shape == (3, 3)
        assert agent.num_envs == 3
        for env in range(3):
            count = rewards.setdefault(env, [0.0])
            if rows["is_first"][env]:
                count.append(0.0)
            count[-1] += float(rows["reward"][env])

    # The rows that end the very last episodes are not answered, so that nobody watches them.
    first = [e for e in play(trainer, episodes=6, watch=watch) if e.episode == 0]
    for episode in first:
        assert episode.length == 4
        assert episode.ret == pytest.approx(rewards[episode.env][1])
        # 1 + 2 + 3 + 4, and at most two sixteenths a step for the action's number.
        assert 10.0 <= episode.ret <= 10.5


def test_mean_return():
    stats = [EpisodeStats(env=0, episode=i, ret=r, length=1) for i, r in enumerate((1.0, 4.0))]
    assert mean_return(stats) == 2.5
