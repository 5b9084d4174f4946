"""Pits: a way between pits from which nothing leads out, made for empowerment.

Falling costs nothing that an agent sees when it happens: the episode goes on, every action does
nothing, and no reward comes any more. What is lost is the power to act, which is 0 nats in a pit
and the logarithm of what can be reached elsewhere (Mohamed and Rezende 2015, arXiv 1509.08731).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.tasks import exact, picture
from dreamer.envs.tasks.options import check_choice, check_share, check_whole
from dreamer.envs.tasks.picture import Cell

NAME = "Pits-v0"
REWARD = 1.0
MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # stay, down, up, right, left
SIDEWAYS = ((0, 0), (3, 4), (3, 4), (1, 2), (1, 2))  # where a slip takes each of them
SIZES = (5, 7, 9, 11, 13, 15)


class Pits(gym.Env[np.ndarray, np.int64]):
    """Walk from the bottom left to the goal at the top right without falling into a pit.

    Cells whose row and column are both odd are pits, so that all others form streets. The streets
    along the edges, with pits on one side only, are dead ends: a wall below the top left corner and
    one above the bottom right corner leave no way but between pits. The goal earns 1 and terminates
    the episode. An agent in a pit stays there until the episode is cut.

    The observation is the row and the column of the agent (2 * size uint8 zeros and ones). `info`
    has `stuck`, true in a pit.

    Args:
        size: Rows and columns: 5, 7, 9, 11, 13 or 15.
        slip: Probability, 0 to 1, that a move goes to one of its two sides instead.
        goal: Whether there is a goal; without one nothing earns a reward.
        steps: Steps after which the episode is cut, 1 to 1,000,000.
        render_mode: `rgb_array` or None.

    Raises:
        EnvError: An option is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        *,
        size: int = 7,
        slip: float = 0.0,
        goal: bool = True,
        steps: int = 100,
        render_mode: str | None = None,
    ) -> None:
        check_choice(NAME, "size", size, SIZES)
        check_share(NAME, "slip", slip, 1.0)
        check_choice(NAME, "goal", goal, (True, False))
        check_whole(NAME, "steps", steps, 1, 10**6)
        check_choice(NAME, "render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        self.shape = (size, size)
        self.observation_space = spaces.Box(0, 1, (2 * size,), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))
        self._size, self._slip, self._steps = size, float(slip), steps
        self._goal = (0, size - 1) if goal else None
        self._walls = {(1, 0), (size - 2, size - 1)}
        self._start = (size - 1, 0)
        self._cell, self._taken = self._start, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at the bottom left."""
        super().reset(seed=seed, options=options)
        self._cell, self._taken = self._start, 0
        return self.observation_at(self._cell), {"stuck": False}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move one cell, or slip to a side, or stay in a pit."""
        direction = int(action)
        # One draw a step wherever it may slip, so that later draws do not depend on the way taken.
        if self._slip and (draw := self.np_random.random()) < self._slip:
            direction = SIDEWAYS[direction][int(draw < self._slip / 2)]
        self._cell = self._move(self._cell, direction)
        self._taken += 1
        arrived = self._cell == self._goal
        info = {"stuck": is_pit(self._cell)}
        obs = self.observation_at(self._cell)
        return obs, REWARD if arrived else 0.0, arrived, self._taken >= self._steps, info

    def render(self) -> np.ndarray:
        """Streets, pits, walls, the goal and the agent."""
        colours = np.full((self._size + 2, self._size + 2, 3), picture.WALL, np.uint8)
        inner = colours[1:-1, 1:-1]
        for cell in self.cells():
            inner[cell] = picture.PIT if is_pit(cell) else picture.FLOOR
        if self._goal:
            inner[self._goal] = picture.GOAL
        return picture.draw(colours, (self._cell[0] + 1, self._cell[1] + 1))

    def cells(self) -> list[Cell]:
        """Cells (row, column) that the agent can be in, pits included."""
        return [cell for cell in np.ndindex(self.shape) if cell not in self._walls]

    def observation_at(self, cell: Cell) -> np.ndarray:
        """What is seen in a cell."""
        obs = np.zeros(2 * self._size, np.uint8)
        obs[cell[0]] = obs[self._size + cell[1]] = 1
        return obs

    def tables(self) -> exact.Tables:
        """The task written down; the state is the index in `cells()`."""
        states = {cell: i for i, cell in enumerate(self.cells())}
        tables = exact.empty(len(states), len(MOVES), 3, steps=self._steps)
        tables.start[states[self._start]] = 1.0
        tables.probability[:] = (1 - self._slip, self._slip / 2, self._slip / 2)
        for cell, state in states.items():
            for action, (left, right) in enumerate(SIDEWAYS):
                for outcome, direction in enumerate((action, left, right)):
                    after = self._move(cell, direction)
                    if after == self._goal:
                        tables.reward[state, action, outcome] = REWARD
                    else:
                        tables.successor[state, action, outcome] = states[after]
        return tables

    def _move(self, cell: Cell, direction: int) -> Cell:
        if is_pit(cell):
            return cell
        row, column = cell[0] + MOVES[direction][0], cell[1] + MOVES[direction][1]
        inside = 0 <= row < self._size and 0 <= column < self._size
        return (row, column) if inside and (row, column) not in self._walls else cell


def is_pit(cell: Cell) -> bool:
    """Whether a cell of any size of the task is a pit."""
    return cell[0] % 2 == 1 and cell[1] % 2 == 1


def optimal_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of the best policy, 1 without slips. Options as in `Pits`."""
    return exact.optimal(Pits(**options).tables())


def random_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of random play. Options as in `Pits`."""
    return exact.uniform(Pits(**options).tables())
