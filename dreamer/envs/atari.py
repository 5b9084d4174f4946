"""Atari games: picture, sound and memory of the console together.

Of every agent step the picture shows the last two frames, the brighter of each pixel, because
consoles draw some things in every other frame only; the sound is that of all frames, of which the
Arcade Learning Environment itself would return the last quarter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from dreamer.envs.optional import one_line, require
from dreamer.types import SILENCE, EnvError

AnyEnv = gym.Env[Any, Any]
FRAMES = 4  # of an agent step
SAMPLES = 512  # of a frame
DEFAULT_SIZE = 64
OPTIONS = "size=PIXELS, 16 to 210"


def make_atari(name: str, options: Mapping[str, Any], *, render: bool) -> AnyEnv:
    """Make a game of the Arcade Learning Environment, such as `ALE/Pong-v5`.

    Observations: `image` (size, size, 3) uint8, 64 pixels unless `size` says otherwise; `sound`
    (2048,) uint8 around 128, four frames at 31.4 kHz; `ram` (128,) uint8. Every action lasts four
    frames; one in four frames repeats the action before instead, as is usual for `v5`.

    Raises:
        EnvError: The package is missing, or the id or an option is unknown.
    """
    ale = require("ale_py", "atari", name)
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # no banner on stderr
    size = options.get("size", DEFAULT_SIZE)
    if options.keys() - {"size"} or type(size) is not int or not 16 <= size <= 210:
        raise EnvError(f"{name}: options {dict(options)}; allowed: {OPTIONS}")
    mode: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    try:
        env = gym.make(name, disable_env_checker=True, frameskip=1, sound_obs=True, **mode)
    except (gym.error.Error, TypeError) as error:
        raise EnvError(f"{name}: {one_line(error)}") from error
    return AtariRows(env, size=size)


class AtariRows(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Four frames a step as one picture, their sound and the console's memory.

    Args:
        env: A game with `frameskip=1` and `sound_obs=True`. size: Side of the picture in pixels.
    """

    def __init__(self, env: AnyEnv, *, size: int) -> None:
        RecordConstructorArgs.__init__(self, size=size)
        gym.Wrapper.__init__(self, env)
        self._ale: Any = env.unwrapped.ale  # type: ignore[attr-defined]
        self._size = size
        memory = self._ale.getRAM().shape
        self.metadata = env.metadata | {"audio_rate": self._ale.getInt("freq")}
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "sound": spaces.Box(0, 255, (FRAMES * SAMPLES,), np.uint8),
                "ram": spaces.Box(0, 255, memory, np.uint8),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start a game, in silence: the console's own first block of sound is not one."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observe([obs["image"]], []), info

    def step(self, action: object) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action for four frames, or until the game is over."""
        frames, sounds, total = [], [], 0.0
        for _ in range(FRAMES):
            obs, reward, terminated, truncated, info = self.env.step(action)
            frames.append(obs["image"])
            sounds.append(obs["sound"])
            total += float(reward)
            if terminated or truncated:
                break
        return self._observe(frames[-2:], sounds), total, terminated, truncated, info

    def _observe(self, frames: list[np.ndarray], sounds: list[np.ndarray]) -> dict[str, Any]:
        """Picture of the last frames, sound of all of them; what is missing of it is silence."""
        from PIL import Image  # here, because most agents never see a game

        picture = Image.fromarray(np.max(frames, axis=0))
        small = picture.resize((self._size, self._size), Image.Resampling.BOX)
        sound = np.full(FRAMES * SAMPLES, SILENCE, np.uint8)
        heard = np.concatenate([sound[:0], *sounds])
        sound[: len(heard)] = heard
        return {"image": np.asarray(small), "sound": sound, "ram": self._ale.getRAM()}
