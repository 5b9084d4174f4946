"""Acting: the carry is the learner's scan, one row at a time."""

from __future__ import annotations

import counter_env
import numpy as np
import pytest
import torch
from builders import CPU, SMALL, make_trainer

from dreamer.agent import Agent, random_action
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.exchange import make_batch
from dreamer.nn.noise import Noise
from dreamer.replay import ReplayConfig, SequenceReplayBuffer
from dreamer.replay.rows import row_fields
from dreamer.types import ActionSpec, EnvError, LatentState
from dreamer.world_model.sizes import SIZES, latent_fields

assert counter_env.SPACES  # importing it registers the environment
STEPS = 14  # rows of an episode of four steps: 0-4, 5-9, 10-13
LEVELS = pytest.mark.parametrize("hierarchy", [False, True])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


def envs_of(action="discrete", keys="wide,choice,image", num_envs=2):
    config = EnvConfig(
        id=f"counter_env:Counter-v0?length=4&keys={keys}&action={action}",
        num_envs=num_envs,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )
    return VectorEnv(config, seed=3)


def trainer_of(envs, **policy):
    trainer = make_trainer(envs.spec, **policy)
    # Beliefs that lean somewhere, so that a wrong input would change the sample.
    torch.nn.init.normal_(trainer.model.rssm.post_logit.weight, generator=None)
    return trainer


def agent_of(trainer, num_envs=2, **changes):
    values = {"noise": Noise(0, CPU), "stream": "act"} | changes
    return Agent(trainer.model, trainer.behavior.policy, num_envs, **values)


def play(envs, agent, buffer, states):
    rows = envs.reset()
    for step in range(STEPS):
        action = agent.act(rows, step)
        buffer.add({**rows, "action": action}, agent.latents())
        states.append(agent.state)
        rows = envs.step(action)


@LEVELS
@pytest.mark.parametrize("action", ["discrete", "multi", "box"])
def test_acting_equals_the_learners_scan_over_the_recorded_rows(action, hierarchy):
    envs = envs_of(action)
    trainer = trainer_of(envs, hierarchy=hierarchy)
    config = ReplayConfig(capacity=2 * STEPS, batch_size=2, seq_len=STEPS - 1)
    fields, latents = row_fields(envs.spec), latent_fields(SMALL)
    # One window fits into each ring: all rows but the first.
    buffer, states = SequenceReplayBuffer(config, fields, latents, 2, None), []
    agent = agent_of(trainer)
    play(envs, agent, buffer, states)
    envs.close()

    rngs = (np.random.default_rng(seed) for seed in range(100))
    sample = next(s for s in map(buffer.sample, rngs) if set(s.rows[:, 0] >> 40) == {0, 1})
    env = sample.rows[:, 0] >> 40
    assert sample.is_first.sum() == 4
    assert sample.is_last.sum() == 4
    batch = make_batch(trainer, sample)
    model, noise = trainer.model, Noise(0, CPU)
    draws = [noise.uniform("act/latent", step, (2, SMALL.groups)) for step in range(STEPS)]
    noises = torch.stack(draws)[1:, env]
    obs = {key: value.transpose(0, 1) for key, value in batch.obs.items()}
    rest = batch.prev_action.transpose(0, 1), batch.is_first.transpose(0, 1)
    stored = batch.state  # half precision
    exact = LatentState(states[0].deter[env], states[0].stoch[env])
    for state, tolerance in ((stored, 2e-3), (exact, 1e-5)):
        with torch.no_grad():
            scan = model.rssm.observe(model.encode(obs), *rest, state, noises)
        got = model.rssm.latent(scan.deter, scan.stoch)
        for t in range(STEPS - 1):
            want = states[t + 1]
            torch.testing.assert_close(
                got.deter[t], want.deter[env], rtol=tolerance, atol=tolerance
            )
            assert torch.equal(got.stoch[t], want.stoch[env])


def test_rows_that_lack_a_key_are_refused_by_its_name():
    envs = envs_of()
    rows = envs.reset()
    envs.close()
    agent = agent_of(trainer_of(envs))
    del rows["image"]
    with pytest.raises(EnvError, match=r"rows: found no image; allowed: all of \['choice', 'im"):
        agent.act(rows, 0)


def test_recorded_actions_lead_to_the_rows_that_follow():
    envs = envs_of("discrete")
    trainer, taken, rows = trainer_of(envs), [], envs.reset()
    agent, seen = agent_of(trainer), []
    for step in range(STEPS):
        taken.append(agent.act(rows, step))
        seen.append(rows)
        rows = envs.step(taken[-1])
    for step in range(1, STEPS):
        first, before = seen[step]["is_first"], taken[step - 1]
        # The counter pays its step plus a sixteenth of the action's number.
        paid = seen[step]["reward"] - seen[step]["wide"][:, 2] * -1
        want = before.argmax(-1) / 16
        np.testing.assert_allclose(paid[~first], want[~first], atol=1e-6)
    envs.close()


@LEVELS
def test_actions_of_last_rows_are_zero_and_others_are_one_hot(hierarchy):
    envs = envs_of("multi")
    agent, rows = agent_of(trainer_of(envs, hierarchy=hierarchy)), envs.reset()
    for step in range(STEPS):
        action = agent.act(rows, step)
        assert action.dtype == np.float32
        last = rows["is_last"]
        assert not action[last].any()
        assert (action[~last].sum(-1) == 3).all()
        rows = envs.step(action)
    envs.close()


@LEVELS
def test_a_new_episode_forgets_the_one_before(hierarchy):
    envs = envs_of("discrete", keys="count")
    trainer = trainer_of(envs, hierarchy=hierarchy)
    fresh, old = agent_of(trainer), agent_of(trainer)
    rows = envs.reset()
    for step in range(3):
        later = {**rows, "is_first": np.zeros(2, bool), "count": rows["count"] + 9}
        old.act(later, step)
    assert np.array_equal(old.act(rows, 7), fresh.act(rows, 7))
    assert all(torch.equal(a, b) for a, b in zip(old.state, fresh.state, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(old.carry, fresh.carry, strict=True))
    envs.close()


@LEVELS
def test_environments_side_by_side_do_not_touch(hierarchy):
    envs = envs_of("box", keys="wide")
    trainer, rows = trainer_of(envs, hierarchy=hierarchy), envs.reset()
    one, other = agent_of(trainer), agent_of(trainer)
    changed = {key: value.copy() for key, value in rows.items()}
    changed["wide"][1] += 50
    a, b = one.act(rows, 0), other.act(changed, 0)
    assert np.array_equal(a[0], b[0])
    assert not np.array_equal(a[1], b[1])
    envs.close()


@LEVELS
@pytest.mark.parametrize("steps", [4, 6, 7])  # goals last three steps and begin with episodes
def test_the_carry_restores_to_the_bit(hierarchy, steps):
    envs = envs_of("discrete")
    trainer, rows = trainer_of(envs, hierarchy=hierarchy), envs.reset()
    agent = agent_of(trainer)
    for step in range(steps):
        rows = envs.step(agent.act(rows, step))
    other = agent_of(trainer)
    other.load_state_dict({key: value.clone() for key, value in agent.state_dict().items()})
    for step in range(steps, steps + 4):
        action = agent.act(rows, step)
        assert np.array_equal(other.act(rows, step), action)
        for key, latent in agent.latents().items():
            assert np.array_equal(other.latents()[key], latent)
        rows = envs.step(action)
    envs.close()


def test_streams_draw_independently_and_steps_repeat():
    envs = envs_of("box")
    trainer, rows = trainer_of(envs), envs.reset()
    a, b, c = (agent_of(trainer, stream=stream).act(rows, 0) for stream in ("x", "x", "y"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    envs.close()


def test_mode_is_what_the_policy_prefers():
    envs = envs_of("box")
    trainer, rows = trainer_of(envs), envs.reset()
    agent = agent_of(trainer, choice="mode")
    action = agent.act(rows, 0)
    with torch.no_grad():
        want = trainer.behavior.top.actor(trainer.model.feat(agent.state)).mode()
    assert np.array_equal(action, want.numpy())
    envs.close()


def test_acting_uses_the_newest_weights():
    envs = envs_of("box")
    trainer, rows = trainer_of(envs), envs.reset()
    agent = agent_of(trainer)
    before = agent.act(rows, 0)
    with torch.no_grad():
        trainer.behavior.top.actor.out.bias += 1.0
    assert (agent.act(rows, 0) > before).all()
    envs.close()


def test_random_choices_are_uniform():
    spec = ActionSpec(kind="discrete", sizes=(2, 5))
    action = random_action(spec, 8000, Noise(0, CPU), 0)
    assert action.dtype == np.float32
    assert (action.sum(-1) == 2).all()
    for part, classes in ((action[:, :2], 2), (action[:, 2:], 5)):
        expected = 8000 / classes
        chi_square = ((part.sum(0) - expected) ** 2 / expected).sum()
        assert chi_square < {2: 10.8, 5: 18.5}[classes]  # 0.999 quantiles
    assert not np.array_equal(action, random_action(spec, 8000, Noise(0, CPU), 1))


def test_random_numbers_fill_the_box():
    action = random_action(ActionSpec(kind="continuous", sizes=(3,)), 5000, Noise(0, CPU), 0)
    assert action.shape == (5000, 3)
    assert -1 <= action.min() < -0.99
    assert 0.99 < action.max() <= 1
    assert np.abs(action.mean(0)).max() < 0.05


def test_what_is_withheld_changes_nothing(monkeypatch):
    envs = envs_of()
    trainer = trainer_of(envs)
    rows = envs.reset()
    other = rows | {"image": 255 - rows["image"]}
    blind = [agent_of(trainer, withheld=("image",)).act(seen, 0) for seen in (rows, other)]
    np.testing.assert_array_equal(*blind)
    agents = [agent_of(trainer), agent_of(trainer)]
    for agent, seen in zip(agents, (rows, other), strict=True):
        agent.act(seen, 0)
    assert not torch.equal(agents[0].state.deter, agents[1].state.deter) or not torch.equal(
        agents[0].state.stoch, agents[1].state.stoch
    )
