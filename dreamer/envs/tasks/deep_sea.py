"""DeepSea: a sea N deep whose treasure only N right moves in a row reach, each of them punished.

Choosing at random finds the treasure once in 2^N episodes, and every reward seen before says to go
left. It separates deep exploration from trying actions at random. Osband et al. 2020, Behaviour
Suite for Reinforcement Learning (arXiv 1908.03568); the deterministic variant.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.tasks import exact, picture
from dreamer.envs.tasks.options import check_choice, check_whole
from dreamer.envs.tasks.picture import Cell

NAME = "DeepSea-v0"
MOVE_COST = 0.01  # of N right moves together
TREASURE = 1.0


class DeepSea(gym.Env[np.ndarray, np.int64]):
    """Sink one row a step, moving left or right.

    The observation is the cell as a one-hot (size * size, row by row, uint8), all zeros after the
    last step. Which of the two actions moves right differs from cell to cell, and is the same in
    every episode. A right move costs 0.01 / size; one from the bottom right cell earns 1.

    Args:
        size: Rows and columns N, and steps of an episode, 2 to 100.
        layout: Seed of what the actions mean, 0 to 2^31 - 1.
        render_mode: `rgb_array` or None.

    Raises:
        EnvError: An option is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, *, size: int = 10, layout: int = 0, render_mode: str | None = None) -> None:
        check_whole(NAME, "size", size, 2, 100)
        check_whole(NAME, "layout", layout, 0, 2**31 - 1)
        check_choice(NAME, "render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        self.shape = (size, size)
        self.observation_space = spaces.Box(0, 1, (size * size,), np.uint8)
        self.action_space = spaces.Discrete(2)
        rights = np.random.default_rng(layout).integers(2, size=self.shape)
        self._rights: list[list[int]] = rights.tolist()  # -> [row][column], the action
        self._size = size
        self._cell = (0, 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at the top left."""
        super().reset(seed=seed, options=options)
        self._cell = (0, 0)
        return self.observation_at(self._cell), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Sink one row; the episode is terminated below the last."""
        self._cell, reward = self._move(self._cell, int(action))
        return self.observation_at(self._cell), reward, self._cell[0] == self._size, False, {}

    def render(self) -> np.ndarray:
        """Water that the agent can reach, the treasure, and the agent until it is out of sight."""
        colours = np.full((*self.shape, 3), picture.WALL, np.uint8)
        for row, column in self.cells():
            depth = row / self._size
            colours[row, column] = (150 - 110 * depth, 210 - 100 * depth, 240 - 60 * depth)
        colours[-1, -1] = picture.GOLD
        return picture.draw(colours, self._cell if self._cell[0] < self._size else None)

    def cells(self) -> list[Cell]:
        """Cells (row, column) that can be reached: those on and below the diagonal."""
        return [(row, column) for row in range(self._size) for column in range(row + 1)]

    def observation_at(self, cell: Cell) -> np.ndarray:
        """What is seen in a cell; below the last row, nothing."""
        obs = np.zeros(self._size * self._size, np.uint8)
        if cell[0] < self._size:
            obs[cell[0] * self._size + cell[1]] = 1
        return obs

    def tables(self) -> exact.Tables:
        """The task written down; cell (r, c) is state r * size + c."""
        size = self._size
        tables = exact.empty(size * size, 2, 1, steps=size)
        tables.start[0] = 1.0
        for row, column, action in np.ndindex(size, size, 2):
            (below, beside), reward = self._move((row, column), action)
            state = row * size + column
            tables.reward[state, action, 0] = reward
            if below < size:
                tables.successor[state, action, 0] = below * size + beside
        return tables

    def _move(self, cell: Cell, action: int) -> tuple[Cell, float]:
        row, column = cell
        if action != self._rights[row][column]:
            return (row + 1, max(column - 1, 0)), 0.0
        last = self._size - 1
        # Sinking from (0, 0), only the bottom row has an agent in the last column.
        reward = TREASURE if column == row == last else 0.0
        return (row + 1, min(column + 1, last)), reward - MOVE_COST / self._size


def optimal_return(**options: Any) -> float:  # noqa: ANN401
    """Return of going right all the way: 0.99. Options as in `DeepSea`."""
    return exact.optimal(DeepSea(**options).tables())


def random_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of random play, 2^-size - 0.005. Options as in `DeepSea`."""
    return exact.uniform(DeepSea(**options).tables())
