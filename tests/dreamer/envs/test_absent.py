"""A sensor that fails: its key is missing, its flag says so, and the rest goes on."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from dreamer.envs.make import EnvConfig
from dreamer.envs.spaces import View, spec_of
from dreamer.envs.vector import VectorEnv
from dreamer.types import EnvError

FAILING = {"words", "sound", "speed"}


class Patchy(gym.Env):
    """Step t lacks every sensor that can fail, if t is odd; even ones leave `sound` at None."""

    metadata = {"render_modes": [], "audio_rate": 8000}  # noqa: RUF012
    observation_space = spaces.Dict(
        {
            "place": spaces.Box(-9.0, 9.0, (2,), np.float32),
            "sound": spaces.Box(0, 255, (16,), np.uint8),
            "speed": spaces.Box(-9.0, 9.0, (3,), np.float32),
            "words": spaces.Text(4),
        }
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.t = 0
        return self.see(), {}

    def step(self, action):
        self.t += 1
        return self.see(), 0.0, False, self.t == 4, {"scores": {"odd": self.t % 2}}

    def see(self):
        everything = {
            "place": np.full(2, self.t, np.float32),
            "speed": np.full(3, self.t, np.float32),
            "words": f"t{self.t}",
        }
        if self.t % 2:
            return {"place": everything["place"]}
        return everything | {"sound": None}


gym.register(f"{Patchy.__name__}-v0", Patchy)


def vector(optional, num_envs=1):
    config = EnvConfig(
        id="Patchy-v0",
        num_envs=num_envs,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=optional,
        modalities={},
    )
    return VectorEnv(config, seed=0)


def step(env):
    return env.step(np.eye(2, dtype=np.float32)[:1].repeat(env.num_envs, 0))


def test_rows_have_blanks_and_flags_for_what_is_missing():
    env = vector(("words", "sound", "speed"))
    first, second = env.reset(), step(env)
    assert list(env.spec.obs) == sorted(env.spec.obs)
    flags = {
        key: key[len("present/") :] for key in env.spec.obs if env.spec.obs[key].kind == "flag"
    }
    assert set(flags.values()) == FAILING
    assert [int(first[key][0, 0]) for key in sorted(flags)] == [0, 1, 1]
    assert [int(second[key][0, 0]) for key in sorted(flags)] == [0, 0, 0]
    assert bytes(first["words"][0]).rstrip(b"\0") == b"t0"
    assert not second["words"].any()
    assert not second["speed"].any()
    assert (first["sound"] == 128).all()
    np.testing.assert_array_equal(second["place"], [[1.0, 1.0]])


def test_environments_that_fail_at_different_times_share_a_batch():
    env = vector(("words", "sound", "speed"), num_envs=2)
    env.reset()
    for _ in range(6):
        rows = step(env)
    assert rows["present/words"].shape == (2, 1)


def test_what_is_not_declared_must_be_there():
    with pytest.raises(EnvError, match=r"^Patchy-v0: 'sound' does not fit: .*at step 0 of episode"):
        vector(("words", "speed")).reset()
    env = vector(("words", "sound"))
    env.reset()
    with pytest.raises(EnvError, match=r"^Patchy-v0: 'speed' does not fit: 'speed', at step 1 of"):
        step(env)


def test_only_what_is_seen_can_be_declared():
    message = r"Patchy-v0: env.optional_modalities names 'smell'; allowed: \['audio', 'place', "
    with pytest.raises(EnvError, match=message):
        spec_of(gym.make("Patchy-v0"), View(optional=("smell",)))


def test_a_modality_stands_for_its_keys():
    found = spec_of(gym.make("Patchy-v0"), View(optional=("vector",)))
    assert [key for key, spec in found.obs.items() if spec.kind == "flag"] == [
        "present/place",
        "present/speed",
    ]


def test_scores_are_means_over_the_steps_that_say_them():
    env = vector(("words", "sound", "speed"))
    env.reset()
    for _ in range(4):
        step(env)
    assert env.pop_finished()[0].scores == {"odd": 0.5}
