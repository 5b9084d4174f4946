"""MiniGrid and BabyAI: symbolic grids, or rooms drawn in RGB.

The symbolic 7x7x3 array that MiniGrid calls an image holds object, colour and state numbers, never
pixels: it is a grid. Missions come as text where they say what to do: always
in BabyAI, and on request in MiniGrid, whose tasks have one mission each for the most part.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import RecordConstructorArgs

from dreamer.envs.optional import one_line, require
from dreamer.types import EnvError

AnyEnv = gym.Env[Any, Any]
OPTIONS = (
    "rgb=TILE_PIXELS for the whole room or rgb_view=TILE_PIXELS for the agent's view, 1 to 64, "
    "mission=true or false"
)
OURS = ("rgb", "rgb_view", "mission")
# Parameters of constructors that an id must not set: they are given below, or hold objects.
INNER = ("self", "args", "kwargs", "mission_space", "grid_size", "render_mode")


def make_minigrid(name: str, options: Mapping[str, Any], *, render: bool) -> AnyEnv:
    """Make a MiniGrid or BabyAI environment.

    Without options its observations are `grid`, the agent's view (7x7 tiles of 11 objects, 6
    colours and 3 states), and `direction` (4 classes). With `rgb=8` or `rgb_view=8` an RGB `image`
    of 8 pixels a tile takes the place of `grid`; a 5x5 room gives 40x40, the 7x7 view 56x56.
    `mission` is the text of BabyAI's instructions, and of MiniGrid's with `mission=true`. Every
    other option is one of the level's own constructor: `BabyAI-OpenDoorLoc-v0?debug=true`, with
    which a wrong door ends the episode.

    Raises:
        EnvError: The package is missing, or the id, an option or its value is not known.
    """
    require("minigrid", "minigrid", name)
    wrappers = require("minigrid.wrappers", "minigrid", name)
    pixels = {key: options[key] for key in ("rgb", "rgb_view") if key in options}
    mission = options.get("mission", name.startswith("BabyAI-"))
    level = {key: value for key, value in options.items() if key not in OURS}
    known = _level(name)
    fine = len(pixels) <= 1 and all(_is_tile(value) for value in pixels.values())
    if not fine or type(mission) is not bool or not level.keys() <= set(known):
        allowed = "".join(f", {option}" for option in known)
        raise EnvError(f"{name}: options {dict(options)}; allowed: {OPTIONS}{allowed}")
    mode: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    try:
        env = gym.make(name, disable_env_checker=True, **mode, **level)
        if level:  # some options are read when a level is laid out
            with contextlib.redirect_stdout(io.StringIO()):
                env.reset(seed=0)
    except gym.error.Error as error:
        raise EnvError(f"{name}: {one_line(error)}") from error
    # What a level does not like in its own options, it says in one of these ways.
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise EnvError(f"{name}: options {level}: {one_line(error)}") from error
    if "rgb" in options:
        env = wrappers.RGBImgObsWrapper(env, tile_size=options["rgb"])
    elif "rgb_view" in options:
        env = wrappers.RGBImgPartialObsWrapper(env, tile_size=options["rgb_view"])
    return MiniGridRows(env, pixels=bool(pixels), mission=mission)


def _level(name: str) -> list[str]:
    """Options that the constructor of a level has, with those of the classes it is made of."""
    try:
        entry: Any = gym.spec(name).entry_point
    except gym.error.Error as error:
        raise EnvError(f"{name}: {one_line(error)}") from error
    made = entry if callable(entry) else load_env_creator(entry)
    kinds = [kind for kind in getattr(made, "__mro__", ()) if "__init__" in vars(kind)]
    found = {option for kind in kinds for option in inspect.signature(kind.__init__).parameters}
    return sorted(found - set(INNER))


def _is_tile(value: object) -> bool:
    return type(value) is int and 1 <= value <= 64


class MiniGridRows(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Calls numbers a grid and no image, unless there are pixels, and drops the mission, unless it
    is wanted.
    """

    def __init__(self, env: AnyEnv, *, pixels: bool, mission: bool) -> None:
        RecordConstructorArgs.__init__(self, pixels=pixels, mission=mission)
        gym.Wrapper.__init__(self, env)
        constants = require("minigrid.core.constants", "minigrid", str(env.spec and env.spec.id))
        sizes = [len(constants.OBJECT_TO_IDX), len(constants.COLOR_TO_IDX)]
        sizes.append(len(constants.STATE_TO_IDX))
        self._view, self._mission = "image" if pixels else "grid", mission
        image = env.observation_space["image"]  # type: ignore[index]
        grid = spaces.MultiDiscrete(np.broadcast_to(np.array(sizes), image.shape))
        parts: dict[str, gym.Space[Any]] = {"direction": spaces.Discrete(4)}
        parts[self._view] = image if pixels else grid
        if mission:
            parts["mission"] = env.observation_space["mission"]  # type: ignore[index]
        self.observation_space = spaces.Dict(parts)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; BabyAI's remarks on rejected rooms are kept off stdout."""
        with contextlib.redirect_stdout(io.StringIO()):
            obs, info = self.env.reset(seed=seed, options=options)
        return self._convert(obs), info

    def step(self, action: object) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and convert the observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._convert(obs), reward, terminated, truncated, info

    def _convert(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        converted = {"direction": obs["direction"], self._view: obs["image"]}
        return converted | ({"mission": obs["mission"]} if self._mission else {})
