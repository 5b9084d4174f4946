"""Rows of several environments: alignment, autoreset, seeds, faults and exact resuming."""

import json

import numpy as np
import pytest

from dreamer.envs.episode import EpisodeStats, episode_seed
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.types import CheckpointError, EnvError


def vector(env_id, seed=0, num_envs=2, action_repeat=1):
    config = EnvConfig(
        id=env_id,
        num_envs=num_envs,
        action_repeat=action_repeat,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )
    return VectorEnv(config, seed)


def counter(options="", **kwargs):
    return vector(f"counter_env:Counter-v0?{options}", **kwargs)


def actions_for(env, steps, seed=0):
    shape = (steps, env.num_envs, env.spec.action.dim)
    return np.random.default_rng(seed).uniform(-1.5, 1.5, shape).astype(np.float32)


def same(left, right):
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


GOLDEN = [537858663, 56299819, 244004328]  # recorded: changing them changes every run
FIRST_ACTION = np.tile(np.float32([1, 0, 0]), (2, 1))


def test_autoreset_takes_a_row_of_its_own():
    env = counter("length=2")
    table = [env.reset()] + [env.step(FIRST_ACTION) for _ in range(6)]
    counts = [row["count"][0, 0] for row in table]
    assert counts == [0, 1, 2, 0, 1, 2, 0]
    assert [row["reward"][0] for row in table] == [0, 1, 2, 0, 1, 2, 0]
    assert [row["is_first"][0] for row in table] == [1, 0, 0, 1, 0, 0, 1]
    assert [row["is_last"][0] for row in table] == [0, 0, 1, 0, 0, 1, 0]
    assert [row["is_terminal"][0] for row in table] == [0, 0, 1, 0, 0, 1, 0]
    assert table[0]["reward"].dtype == np.float32
    assert {table[0][key].dtype for key in ("is_first", "is_last", "is_terminal")} == {
        np.dtype(bool)
    }


def test_the_action_on_a_last_row_is_ignored():
    env = counter("length=2")
    env.reset()
    for _ in range(3):
        env.step(FIRST_ACTION)
    assert len(env._slots[0].env.unwrapped.taken) == 2


@pytest.mark.parametrize(("end", "terminal"), [("terminated", 1), ("truncated", 0), ("both", 1)])
def test_truncation_is_last_but_not_terminal(end, terminal):
    env = counter(f"length=1&end={end}")
    env.reset()
    rows = env.step(FIRST_ACTION)
    assert rows["is_last"].all()
    assert (rows["is_terminal"] == terminal).all()


def test_episodes_of_one_step_alternate_first_and_last():
    env = counter("length=1")
    table = [env.reset()] + [env.step(FIRST_ACTION) for _ in range(5)]
    assert [bool(row["is_first"][1]) for row in table] == [True, False] * 3
    assert [bool(row["is_last"][1]) for row in table] == [False, True] * 3
    assert [s.episode for s in env.pop_finished() if s.env == 1] == [0, 1, 2]


def test_rewards_are_summed_over_repeats_and_stop_at_the_end():
    env = counter("length=5", action_repeat=3)
    env.reset()
    first, second = env.step(FIRST_ACTION), env.step(FIRST_ACTION)
    assert [first["reward"][0], second["reward"][0]] == [1 + 2 + 3, 4 + 5]
    assert [first["count"][0, 0], second["count"][0, 0]] == [3, 5]
    assert env.pop_finished()[0] == EpisodeStats(env=0, episode=0, ret=15.0, length=2)


def test_finished_episodes_are_reported_once():
    env = counter("length=2")
    env.reset()
    env.step(FIRST_ACTION)
    assert env.pop_finished() == []
    env.step(FIRST_ACTION)
    assert env.pop_finished() == [
        EpisodeStats(env=i, episode=0, ret=3.0, length=2) for i in range(2)
    ]
    assert env.pop_finished() == []


def test_episode_seeds_are_pure_golden_and_distinct():
    seeds = [episode_seed(s, e, n) for s in range(10) for e in range(20) for n in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert [episode_seed(0, 0, 0), episode_seed(0, 1, 0), episode_seed(0, 0, 1)] == GOLDEN


def test_every_reset_uses_its_episode_seed():
    env = counter("length=1", seed=5)
    env.reset()
    for _ in range(4):
        env.step(FIRST_ACTION)
    for i in range(2):
        assert env._slots[i].env.unwrapped.seeds == [episode_seed(5, i, n) for n in range(3)]


def test_episodes_do_not_depend_on_how_many_run_beside_them():
    few, many = vector("CartPole-v1", num_envs=2), vector("CartPole-v1", num_envs=5)
    actions = actions_for(many, 60)
    same(few.reset(), {k: v[:2] for k, v in many.reset().items()})
    for action in actions:
        same(few.step(action[:2]), {k: v[:2] for k, v in many.step(action).items()})


def test_second_reset_starts_the_next_episode():
    env = counter("keys=deep")
    first = env.reset()
    again = env.reset()
    assert [slot.episode for slot in env._slots] == [1, 1]
    assert (first["deep/inner"] != again["deep/inner"]).any()


def test_rows_belong_to_the_caller():
    env, twin = counter("keys=every"), counter("keys=every")
    rows = env.reset()
    for array in rows.values():
        array.fill(1)
    twin.reset()
    assert env.state_dict()["meta"] == twin.state_dict()["meta"]
    same(env.step(FIRST_ACTION), twin.step(FIRST_ACTION))


def test_recorded_actions_are_copies():
    env = counter("length=9")
    env.reset()
    action = FIRST_ACTION.copy()
    env.step(action)
    action.fill(0)
    np.testing.assert_array_equal(env.state_dict()["arrays"]["actions/0"], FIRST_ACTION[:1])


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Acrobot-v1"]
)
def test_matches_plain_gymnasium(env_id):
    """The same seeds and hand-rescaled actions through gymnasium.make give the same rows."""
    import gymnasium as gym

    env = vector(env_id, num_envs=1)
    plain = gym.make(env_id)
    rows = env.reset()
    obs, _ = plain.reset(seed=episode_seed(0, 0, 0))
    np.testing.assert_array_equal(rows["vector"][0], obs.astype(np.float32))
    for action in actions_for(env, 40):
        rows = env.step(action)
        if rows["is_first"][0]:
            break
        if isinstance(plain.action_space, gym.spaces.Discrete):
            native = int(action[0].argmax())
        else:
            native = action[0].clip(-1, 1) * plain.action_space.high
        obs, reward, terminated, truncated, _ = plain.step(native)
        np.testing.assert_allclose(rows["vector"][0], obs, rtol=1e-5, atol=1e-6)
        assert rows["reward"][0] == pytest.approx(float(reward), rel=1e-5)
        assert rows["is_last"][0] == (terminated or truncated)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", r"'count' holds NaN .* at step 2 of episode 0 in environment 0"),
        ("nan_reward", r"'reward' holds NaN .* at step 1 of episode 0"),
        ("shape", r"'count' does not fit: .*\(2,\).*\(1,\).* at step 2 of episode 0"),
    ],
)
def test_broken_environments_are_named(fault, message):
    env = counter(f"length=9&fault={fault}")
    env.reset()
    if "step 2" in message:
        env.step(FIRST_ACTION)
    with pytest.raises(EnvError, match=f"Counter-v0.*{message}") as error:
        env.step(FIRST_ACTION)
    assert "\n" not in str(error.value)


def test_observations_outside_their_space_are_named():
    with pytest.raises(EnvError, match=r"'count' does not fit: 'count', at step 0 of episode 0"):
        counter("fault=missing").reset()
    with pytest.raises(EnvError, match=r"'choice' does not fit: \[9\], outside 2 to 6"):
        counter("keys=choice&fault=range").reset()


def test_float64_that_overflows_float32_is_refused():
    env = counter("keys=wide")
    for slot in env._slots:
        slot.env.unwrapped.values = lambda: {"wide": np.array([1e300, 0, 0])}
    with pytest.raises(EnvError, match="'wide' holds NaN or infinity"):
        env.reset()


def test_actions_are_checked():
    env = counter()
    with pytest.raises(ValueError, match="after reset"):
        env.step(FIRST_ACTION)
    env.reset()
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        env.step(FIRST_ACTION[:1])
    with pytest.raises(EnvError, match="an action is NaN"):
        env.step(np.full((2, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "Pendulum-v1", "counter_env:Counter-v0?keys=every"]
)
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 37])
def test_resume_is_exact(env_id, stop):
    """Counter episodes of 3 steps: 3 is a last row, 4 the reset row after it."""
    env = vector(env_id, seed=3)
    actions = actions_for(env, 80)
    rows = env.reset()
    for action in actions[:stop]:
        rows = env.step(action)
    state = env.state_dict()
    state["meta"] = json.loads(json.dumps(state["meta"]))
    other = vector(env_id, seed=3)
    same(other.load_state_dict(state), rows)
    for action in actions[stop:]:
        same(other.step(action), env.step(action))
    assert other.pop_finished() == env.pop_finished()
    assert other.state_dict()["meta"] == env.state_dict()["meta"]


def test_resuming_twice_in_one_process():
    env = counter("length=4")
    env.reset()
    env.step(FIRST_ACTION)
    state = env.state_dict()
    after = env.step(FIRST_ACTION)
    env.load_state_dict(state)
    same(env.step(FIRST_ACTION), after)


@pytest.mark.parametrize("fault", ["random", "early"])
def test_nondeterministic_environment_cannot_be_resumed(fault):
    env = counter(f"length=40&fault={fault}", num_envs=8)
    env.reset()
    for _ in range(5):
        env.step(np.tile(FIRST_ACTION[:1], (8, 1)))
    with pytest.raises(EnvError, match="is not deterministic: episode") as error:
        env.load_state_dict(env.state_dict())
    assert "\n" not in str(error.value)


def test_altered_actions_are_noticed_through_the_return():
    env = counter("length=9")
    env.reset()
    env.step(FIRST_ACTION)
    state = env.state_dict()
    state["arrays"]["actions/1"] = np.float32([[0, 0, 1]])
    with pytest.raises(EnvError, match="environment 1 is not deterministic"):
        env.load_state_dict(state)


def test_state_of_other_environments_is_refused():
    env = counter()
    env.reset()
    cartpole = vector("CartPole-v1")
    cartpole.reset()
    with pytest.raises(CheckpointError, match=r"found .*CartPole-v1.*; allowed: .*Counter"):
        env.load_state_dict(cartpole.state_dict())
    with pytest.raises(CheckpointError, match="num_envs"):
        counter(num_envs=3).load_state_dict(env.state_dict())
    with pytest.raises(ValueError, match="no reset"):
        counter().state_dict()
