"""dm_control: exact reseeding, float32 keys, time limits that truncate, images."""

import os
import subprocess
import sys

import numpy as np
import pytest
from drawing import can_draw

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.vector import VectorEnv
from dreamer.types import ActionSpec, EnvError, ObsSpec

pytest.importorskip("dm_control")


def config(env_id, repeat=2, num_envs=2):
    return EnvConfig(
        id=env_id,
        num_envs=num_envs,
        action_repeat=repeat,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )


@pytest.fixture(autouse=True)
def free_choice_of_backend(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)


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


@pytest.mark.parametrize("env_id", ["dmc_cartpole_swingup", "dmc_lqr_lqr_2_1"])
def test_resume_replays_the_physics_to_the_bit(env_id):
    env = VectorEnv(config(env_id), seed=1)
    env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 2, 1)).astype(np.float32)
    for action in actions[:40]:
        env.step(action)
    other = VectorEnv(config(env_id), seed=1)
    other.load_state_dict(env.state_dict())
    for action in actions[40:]:
        mine, theirs = env.step(action), other.step(action)
        assert all((mine[key] == theirs[key]).all() for key in mine)


@pytest.mark.parametrize("env_id", ["dmc_walker_fly", "dmc_walker", "dmc_cup_catch"])
def test_unknown_task_lists_the_known(env_id):
    with pytest.raises(EnvError, match=f"{env_id}: no such dm_control task; .*dmc_walker_walk"):
        make_env(config(env_id))


def test_task_that_draws_by_itself_says_what_it_needs():
    env = make_env(config("dmc_quadruped_escape"))
    with pytest.raises(EnvError, match=r"dmc_quadruped_escape: cannot start .*MUJOCO_GL=egl"):
        env.reset(seed=0)


def test_bad_options():
    with pytest.raises(EnvError, match="allowed: image=PIXELS"):
        make_env(config("dmc_walker_walk?image=4"))
    with pytest.raises(EnvError, match="allowed: image=PIXELS"):
        make_env(config("dmc_walker_walk?camera=1"))


draws = pytest.mark.skipif(not can_draw(), reason="MuJoCo cannot draw without EGL here")


@draws
def test_a_picture_stands_beside_what_is_felt():
    seen = VectorEnv(config("dmc_walker_walk?image=32", num_envs=1), seed=0)
    felt = VectorEnv(config("dmc_walker_walk", num_envs=1), seed=0)
    image = ObsSpec(shape=(32, 32, 3), dtype="uint8", kind="image")
    assert seen.spec.obs == felt.spec.obs | {"image": image}
    action = np.ones((1, 6), np.float32)
    for mine, theirs in ((seen.reset(), felt.reset()), (seen.step(action), felt.step(action))):
        assert mine["image"].std() > 5
        assert all((mine[key] == theirs[key]).all() for key in theirs)
    seen.close()


@draws
def test_images_of_two_models_do_not_mix():
    """Interleaved drawing gives what each environment draws alone."""
    ids = ["dmc_cartpole_balance?image=32", "dmc_reacher_easy?image=48"]

    def frames(envs, steps=3):
        found = [[env.reset(seed=1)[0]["image"]] for env in envs]
        for _ in range(steps):
            for env, images in zip(envs, found, strict=True):
                action = np.ones(env.action_space.shape, np.float32)
                images.append(env.step(action)[0]["image"])
        return [np.stack(images) for images in found]

    together = [make_env(config(env_id)) for env_id in ids]
    mixed = frames(together)
    for env in together:
        env.close()
    for env_id, images in zip(ids, mixed, strict=True):
        alone = make_env(config(env_id))
        np.testing.assert_array_equal(frames([alone])[0], images)
        alone.close()
        assert images.std() > 5
        assert (images[0] != images[-1]).any()


@draws
def test_frames_can_be_drawn_after_an_environment_that_never_draws():
    VectorEnv(config("dmc_cartpole_balance"), seed=0).reset()
    env = make_env(config("dmc_cartpole_balance"), render=True)
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (256, 256, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 5
    env.close()


@draws
@pytest.mark.slow
def test_shadows_true_draws_what_dm_control_draws():
    """Against `physics.render`, in a process of its own: that needs OpenGL from the start."""
    code = """
import numpy as np
from dreamer.envs.make import EnvConfig, make_env
config = EnvConfig(
    id="dmc_walker_walk?image=64&shadows=true",
    num_envs=1, action_repeat=1, active_modalities="all", optional_modalities=(), modalities={},
)
env = make_env(config)
image = env.reset(seed=0)[0]["image"]
physics = env.unwrapped._env.physics
np.testing.assert_array_equal(image, physics.render(64, 64, camera_id=0))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"MUJOCO_GL": "egl"})


@draws
def test_an_environment_left_open_makes_no_noise_at_exit():
    code = """
from dreamer.envs.make import EnvConfig, make_env
config = EnvConfig(
    id="dmc_cartpole_balance?image=16", num_envs=1, action_repeat=1, active_modalities="all",
    optional_modalities=(), modalities={},
)
env = make_env(config)
env.reset(seed=0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_users_choice_not_to_draw_is_respected(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    env = make_env(config("dmc_cartpole_balance?image=16"))
    with pytest.raises(
        EnvError, match=r"dmc_cartpole_balance: cannot draw: found MUJOCO_GL=disable; allowed: egl"
    ):
        env.reset(seed=0)
