"""A counter as an environment, for tests: every dtype, every way to end, and the ways to misbehave.

Importing this module registers `Counter-v0`, so that `counter_env:Counter-v0?length=3` works.
Observation and reward after t steps are functions of (episode seed, t) known in advance.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SPACES = {
    "count": spaces.Box(-np.inf, np.inf, (1,), np.float32),
    "wide": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "scalar": spaces.Box(-np.inf, np.inf, (), np.float64),
    "bytes": spaces.Box(0, 255, (4,), np.uint8),
    "table": spaces.Box(0, 255, (2, 3), np.uint8),
    "ints": spaces.Box(-1000, 1000, (2,), np.int64),
    "image": spaces.Box(0, 255, (8, 6, 3), np.uint8),
    "planes": spaces.Box(0, 255, (4, 8, 6), np.uint8),
    "choice": spaces.Discrete(5, start=2),
    "choices": spaces.MultiDiscrete([2, 3], start=[0, 1]),
    "bits": spaces.MultiBinary(3),
    "text": spaces.Text(8, min_length=0, charset="abcü"),
    "sound": spaces.Box(0, 255, (6,), np.uint8),
    "symbols": spaces.MultiDiscrete(np.full((2, 3, 2), [4, 2]), start=np.full((2, 3, 2), [1, 0])),
    "deep": spaces.Dict(
        {
            "audio": spaces.Box(-1.0, 1.0, (4,), np.float32),
            "inner": spaces.Box(-np.inf, np.inf, (2,), np.float32),
        }
    ),
}
REFUSED = {
    "pair": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]),
    "floats": spaces.Box(0, 1, (8, 8, 3), np.float32),
    "cells": spaces.Box(0, 255, (7, 7, 20), np.uint8),
}
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "shifted": spaces.Discrete(3, start=-1),
    "multi": spaces.MultiDiscrete([2, 3, 4]),
    "grid": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "binary": spaces.MultiBinary(2),
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)),
    "square": spaces.Box(-1.0, 3.0, (2, 2), np.float64),
    "infinite": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half": spaces.Box(0.0, np.inf, (1,), np.float32),
    "integers": spaces.Box(0, 3, (2,), np.int32),
    "pair": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]),
}


class Counter(gym.Env):
    """Counts its steps.

    Args:
        length: Steps per episode.
        end: `terminated`, `truncated` or `both`.
        keys: Observation keys joined by commas; a single `+key` is returned bare, not in a Dict.
        action: Key of `ACTIONS`.
        fault: `none`, `nan` (observation at step 2), `nan_reward`, `shape`, `range`, `missing`,
            `random` (observations that no seed fixes) or `early` (ends at a random step).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30, "audio_rate": 8000}  # noqa: RUF012

    def __init__(
        self,
        length=3,
        end="terminated",
        keys="count",
        action="discrete",
        fault="none",
        render_mode=None,
    ):
        self.length, self.end, self.fault, self.render_mode = length, end, fault, render_mode
        self.bare = keys.startswith("+")
        self.keys = keys.lstrip("+").split(",") if keys != "every" else sorted(SPACES)
        every = SPACES | REFUSED
        self.observation_space = (
            every[self.keys[0]] if self.bare else spaces.Dict({k: every[k] for k in self.keys})
        )
        self.action_space = ACTIONS[action]
        self.taken = []
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.offset = int(self.np_random.integers(100))
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken.append(action)
        self.t += 1
        done = self.t >= self.length
        if self.fault == "early":
            done = bool(np.random.default_rng().random() < 0.5)
        reward = np.nan if self.fault == "nan_reward" else self.t + np.sum(action) / 16
        ends = {"terminated": (done, False), "truncated": (False, done), "both": (done, done)}
        return self._observe(), reward, *ends[self.end], {}

    def render(self):
        return np.full((8, 6, 3), self.t, np.uint8)

    def _observe(self):
        obs = {key: value for key, value in self.values().items() if key in self.keys}
        if self.fault == "missing":
            del obs[self.keys[0]]
        return next(iter(obs.values())) if self.bare else obs

    def values(self):
        t, offset = self.t, self.offset
        count = np.array([t], np.float32)
        if self.fault == "nan" and t == 2:
            count = np.array([np.nan], np.float32)
        if self.fault == "shape" and t == 2:
            count = np.zeros(2, np.float32)
        if self.fault == "random":
            count = np.random.default_rng().random(1, np.float32)
        return {
            "count": count,
            "wide": np.array([offset, t / 3, -t], np.float64),
            "scalar": np.float64(t / 7),
            "bytes": np.full(4, t, np.uint8),
            "table": np.full((2, 3), t, np.uint8),
            "ints": np.array([t, -t], np.int64),
            "image": np.full((8, 6, 3), t, np.uint8),
            "planes": np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None, None], (4, 8, 6)),
            "choice": np.int64(9 if self.fault == "range" else 2 + t % 5),
            "choices": np.array([t % 2, 1 + t % 3]),
            "bits": np.array([t % 2, 1, 0], np.int8),
            "deep": {
                "audio": np.full(4, t / 8, np.float32),
                "inner": np.array([t, offset], np.float32),
            },
            "text": "abü"[:t],
            "symbols": np.full((2, 3, 2), [1 + t % 4, t % 2]),
            "sound": np.full(6, 0 if t == 0 else 130, np.uint8),
            "pair": (0, 1),
            "floats": np.zeros((8, 8, 3), np.float32),
            "cells": np.zeros((7, 7, 20), np.uint8),
        }


gym.register("Counter-v0", Counter)
