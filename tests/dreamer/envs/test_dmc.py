"""dm_control: exact reseeding, float32 keys, time limits that truncate, images."""

import numpy as np
import pytest

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.vector import VectorEnv
from dreamer.types import ActionSpec, EnvError, ObsSpec

pytest.importorskip("dm_control")


def config(env_id, repeat=2, num_envs=2):
    return EnvConfig(id=env_id, num_envs=num_envs, action_repeat=repeat, active_modalities="all")


def test_walker_has_a_scalar_height():
    env = VectorEnv(config("dmc_walker_walk", num_envs=1), seed=0)
    shapes = {"height": (1,), "orientations": (14,), "velocity": (9,)}
    assert env.spec.obs == {
        key: ObsSpec(shape=shape, dtype="float32", kind="vector") for key, shape in shapes.items()
    }
    assert env.spec.action == ActionSpec(kind="continuous", sizes=(6,))
    assert env.reset()["height"].shape == (1, 1)


def test_balance_ends_by_truncation_after_500_agent_steps():
    env = VectorEnv(config("dmc_cartpole_balance", num_envs=1), seed=0)
    rows = [env.reset()] + [env.step(np.zeros((1, 1), np.float32)) for _ in range(500)]
    last = [bool(row["is_last"][0]) for row in rows]
    assert last == [False] * 500 + [True]
    assert not rows[-1]["is_terminal"].any()
    (stats,) = env.pop_finished()
    assert stats.length == 500
    assert 0 < stats.ret <= 1000
    assert stats.ret == pytest.approx(sum(float(row["reward"][0]) for row in rows), rel=1e-5)


def test_reset_with_a_seed_depends_on_nothing_else():
    env, other = (make_env(config("dmc_reacher_easy")) for _ in range(2))
    for seed in (7, 8):
        other.reset(seed=seed)
    first, _ = env.reset(seed=3)
    again, _ = other.reset(seed=3)
    different, _ = env.reset(seed=4)
    assert all((first[key] == again[key]).all() for key in first)
    assert any((first[key] != different[key]).any() for key in first)


def test_names_with_underscores():
    env = make_env(config("dmc_ball_in_cup_catch"))
    assert set(env.observation_space.spaces) == {"position", "velocity"}


def test_resume_replays_the_physics_to_the_bit():
    env = VectorEnv(config("dmc_cartpole_swingup"), seed=1)
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 2, 1)).astype(np.float32)
    for action in actions[:40]:
        env.step(action)
    other = VectorEnv(config("dmc_cartpole_swingup"), seed=1)
    other.load_state_dict(env.state_dict())
    for action in actions[40:]:
        mine, theirs = env.step(action), other.step(action)
        assert all((mine[key] == theirs[key]).all() for key in mine)


@pytest.mark.parametrize("env_id", ["dmc_walker_fly", "dmc_walker", "dmc_cup_catch"])
def test_unknown_task_lists_the_known(env_id):
    with pytest.raises(EnvError, match=f"{env_id}: no such dm_control task; .*dmc_walker_walk"):
        make_env(config(env_id))


def test_bad_options():
    with pytest.raises(EnvError, match="allowed: image=PIXELS"):
        make_env(config("dmc_walker_walk?image=4"))
    with pytest.raises(EnvError, match="allowed: image=PIXELS"):
        make_env(config("dmc_walker_walk?camera=1"))
