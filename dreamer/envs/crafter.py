"""Crafter: survive in a world drawn anew for every episode, from its picture and the inventory.

Source: Hafner 2021, "Benchmarking the Spectrum of Agent Capabilities" (arXiv 2109.06780).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.optional import require
from dreamer.types import EnvError

NAME = "Crafter-v1"
FRAME_SIZE = 256  # pixels of the frames that people look at
LIMITS = {"size": (16, 256), "area": (16, 256), "steps": (1, 10**6)}
DEFAULTS = {"size": 64, "area": 64, "steps": 10_000}
OPTIONS = "size=PIXELS and area=TILES, 16 to 256, steps=LIMIT, 1 to 1000000"

Observation = dict[str, np.ndarray]


def make_crafter(name: str, options: Mapping[str, Any], *, render: bool) -> gym.Env[Any, Any]:
    """Make `Crafter-v1`: pictures of `size` pixels, a world of `area` x `area` tiles, cut at
    `steps`.

    Raises:
        EnvError: The package is missing, or the id or an option is unknown.
    """
    if name != NAME:
        raise EnvError(f"{name}: there is no such environment; allowed: {NAME}")
    if not all(_fits(*option) for option in options.items()):
        raise EnvError(f"{name}: options {dict(options)}; allowed: {OPTIONS}")
    return Crafter(**DEFAULTS | dict(options), render=render)


def _fits(key: str, value: object) -> bool:
    return key in LIMITS and type(value) is int and LIMITS[key][0] <= value <= LIMITS[key][1]


class Crafter(gym.Env[Observation, np.int64]):
    """One world of Crafter.

    Observations: `image` (size, size, 3) uint8, the tiles around the player and below them what it
    carries; `inventory` (16,) uint8, from 0 to 9: health, food, drink, energy, then what it
    carries, in Crafter's own order. The reward is 1 in a step that unlocks achievements, of which
    there are 22, and 0.1 for each point of health won or lost. Death terminates an episode, the
    limit truncates it. `info` has `achievements`, name -> how often, and at the end of an episode
    `scores`, name -> whether it was reached.

    Args:
        size: Side of the image in pixels. area: Side of the world in tiles.
        steps: Steps after which the episode is cut.
        render: Whether `render()` draws frames.

    Raises:
        EnvError: The package is missing.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, *, size: int, area: int, steps: int, render: bool) -> None:
        crafter = require("crafter", "crafter", NAME)
        self.render_mode = "rgb_array" if render else None
        self._game = crafter.Env(area=(area, area), size=(size, size), length=steps, seed=0)
        self._items = tuple(crafter.constants.items)
        most = [item["max"] for item in crafter.constants.items.values()]
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {
                "image": spaces.Box(0, 255, (size, size, 3), np.uint8),
                "inventory": spaces.Box(0, np.array(most, np.uint8), dtype=np.uint8),
            }
        )
        self.action_space = spaces.Discrete(len(crafter.constants.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a world; with a seed it depends on nothing else."""
        super().reset(seed=seed, options=options)
        # Crafter draws a world from these two, and takes a seed only when it is made.
        self._game._seed, self._game._episode = int(self.np_random.integers(2**31)), 0
        image = self._game.reset()
        _keep_order(self._game._world)
        player = self._game._player
        return self._observe(image, player.inventory), {"achievements": dict(player.achievements)}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Do one of the 17 actions."""
        image, reward, done, info = self._game.step(int(action))
        dead = info["discount"] == 0
        said = {"achievements": info["achievements"]}
        if done:
            said["scores"] = {name: count > 0 for name, count in said["achievements"].items()}
        return self._observe(image, info["inventory"]), float(reward), dead, done and not dead, said

    def render(self) -> np.ndarray:
        """Draw what the player sees: (256, 256, 3) uint8."""
        game, random = self._game, self._game._world.random
        # Drawing takes the noise of nights from the numbers that move the creatures.
        size, state = game._size, random.get_state()
        game._size = np.array([FRAME_SIZE, FRAME_SIZE])  # `render(size)` refuses every size
        frame = game.render()
        game._size = size
        random.set_state(state)
        return np.ascontiguousarray(frame)

    def _observe(self, image: np.ndarray, inventory: Mapping[str, int]) -> Observation:
        carried = np.array([inventory[item] for item in self._items], np.uint8)
        return {"image": np.ascontiguousarray(image), "inventory": carried}


class Members(dict[Any, None]):
    """A set that is walked through in the order in which its members came."""

    def add(self, member: object) -> None:
        """Put a member last, or leave it where it is."""
        self[member] = None

    def remove(self, member: object) -> None:
        """Take a member out."""
        del self[member]


def _keep_order(world: Any) -> None:  # noqa: ANN401
    """Make a new world repeatable.

    It keeps the creatures of a region in a set, in the order of their addresses in memory, and
    draws by number which one vanishes: equal seeds gave different games.
    """
    regions = defaultdict(Members, {region: Members() for region in world._chunks})
    for creature in world.objects:
        regions[world.chunk_key(creature.pos)].add(creature)
    world._chunks = regions
