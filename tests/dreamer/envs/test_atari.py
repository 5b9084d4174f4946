"""Atari: the sound of every frame, silence where there is none, pictures that do not flicker."""

import gymnasium as gym
import numpy as np
import pytest

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.vector import VectorEnv
from dreamer.types import EnvError, ObsSpec

ale_py = pytest.importorskip("ale_py")


def config(tail="", active="all"):
    return EnvConfig(
        id=f"ALE/Pong-v5{tail}",
        num_envs=2,
        action_repeat=1,
        active_modalities=active,
        optional_modalities=(),
        modalities={},
    )


def frames(actions, seed=0):
    """What the game says frame by frame, without the adapter."""
    gym.register_envs(ale_py)
    env = gym.make("ALE/Pong-v5", frameskip=1, sound_obs=True, disable_env_checker=True)
    said = [env.reset(seed=seed)[0]]
    said += [env.step(action)[0] for action in actions for _ in range(4)]
    return said, env.unwrapped.ale.getRAM()


def test_what_rows_hold():
    env = VectorEnv(config(), seed=0)
    assert env.spec.obs == {
        "image": ObsSpec(shape=(64, 64, 3), dtype="uint8", kind="image"),
        "ram": ObsSpec(shape=(128,), dtype="uint8", kind="vector"),
        "sound": ObsSpec(shape=(2048,), dtype="uint8", kind="audio", rate=31400),
    }
    rows = env.reset()
    assert (rows["sound"] == 128).all()
    assert rows["image"].std() > 5
    assert list(VectorEnv(config(active="first"), 0).spec.obs) == ["image"]
    assert list(VectorEnv(config(active=("audio",)), 0).spec.obs) == ["sound"]


def test_sound_of_all_frames_picture_of_the_last_two_memory_at_the_end():
    actions = np.random.default_rng(0).integers(6, size=60)
    env = make_env(config("?size=210"))
    env.reset(seed=0)
    said, memory = frames(actions)
    loud = 0
    for i, action in enumerate(actions):
        obs, *_ = env.step(action)
        own = said[4 * i + 1 : 4 * i + 5]
        np.testing.assert_array_equal(obs["sound"], np.concatenate([o["sound"] for o in own]))
        loud += bool((obs["sound"] != 128).any())
        both = np.maximum(own[2]["image"], own[3]["image"])
        np.testing.assert_array_equal(obs["image"][:, 0], both[:, 0])  # columns are resized
    np.testing.assert_array_equal(obs["ram"], memory)
    assert loud > 0


def test_rewards_of_the_frames_are_summed_and_the_game_ends():
    env = make_env(config())
    env.reset(seed=0)
    total, steps, done = 0.0, 0, False
    while not done:
        _, reward, terminated, truncated, info = env.step(0)
        total, steps, done = total + reward, steps + 1, terminated or truncated
    assert total == -21.0
    assert terminated
    assert info["episode_frame_number"] > 3 * steps


@pytest.mark.parametrize("tail", ["?size=8", "?size=big", "?frameskip=2"])
def test_bad_options(tail):
    with pytest.raises(EnvError, match=r"^ALE/Pong-v5: options .*; allowed: size=PIXELS, 16 to"):
        make_env(config(tail))


def test_an_unknown_game_is_one_line(capfd):
    with pytest.raises(EnvError, match=r"^ALE/Chess-v5: [^\n]*$"):
        make_env(
            EnvConfig(
                id="ALE/Chess-v5",
                num_envs=1,
                action_repeat=1,
                active_modalities="all",
                optional_modalities=(),
                modalities={},
            )
        )
    assert capfd.readouterr().err == ""
