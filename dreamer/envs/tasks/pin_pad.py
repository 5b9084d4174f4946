"""PinPad: walk over coloured pads in the right order, again and again; nothing hints at the order.

The reward is sparse and the way to it long, but every pad is a natural subgoal, which is what a
hierarchy should find. After Hafner et al. 2022, Deep Hierarchical Planning from Pixels (arXiv
2206.04114): its rooms, moves and reward, with a state vector in place of its picture.
"""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.tasks import exact, picture
from dreamer.envs.tasks.options import check_choice, check_whole
from dreamer.envs.tasks.picture import Cell

NAME = "PinPad-v0"
ROWS, COLUMNS = 12, 14
REWARD = 10.0
MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # stay, down, up, right, left
COLOURS = (
    (214, 48, 49),
    (39, 174, 96),
    (41, 98, 210),
    (235, 190, 30),
    (190, 60, 200),
    (0, 175, 190),
)

# Number of pads -> (top, left, height, width) of the pads in the order in which they are due.
# Neighbours in the order lie across the room wherever there are places enough.
PADS = MappingProxyType(
    {
        3: ((0, 0, 4, 4), (8, 5, 4, 4), (0, 10, 4, 4)),
        4: ((0, 0, 4, 4), (8, 10, 4, 4), (8, 0, 4, 4), (0, 10, 4, 4)),
        5: ((1, 0, 4, 3), (9, 10, 3, 4), (7, 0, 4, 3), (0, 10, 3, 4), (4, 11, 4, 3)),
        6: ((0, 0, 3, 3), (9, 11, 3, 3), (4, 0, 4, 2), (9, 0, 3, 3), (0, 11, 3, 3), (4, 12, 4, 2)),
    }
)


class PinPad(gym.Env[np.ndarray, np.int64]):
    """Step on pad 1, 2, ... without another in between; earn 10; appear elsewhere; repeat.

    The observation is, as uint8 zeros and ones, the row (12) and the column (14) of the agent and
    the last `pads` different pads it stepped on, oldest first, a one-hot each (pads * pads; zeros
    where there was none yet). When these are the right sequence the reward is 10, and the step
    after, whatever its action, moves the agent to a random cell with an empty list. (Director's
    game lets ten steps pass in between.) Episodes are cut, never terminated.

    Args:
        pads: How many, 3 to 6.
        steps: Steps of an episode, 1 to 1,000,000; the paper has 10,000.
        render_mode: `rgb_array` or None.

    Raises:
        EnvError: An option is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, *, pads: int = 3, steps: int = 2000, render_mode: str | None = None) -> None:
        check_choice(NAME, "pads", pads, PADS)
        check_whole(NAME, "steps", steps, 1, 10**6)
        check_choice(NAME, "render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        self.shape = (ROWS, COLUMNS)
        self.observation_space = spaces.Box(0, 1, (ROWS + COLUMNS + pads * pads,), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))
        self._order = tuple(range(1, pads + 1))
        self._steps = steps
        floor = np.zeros(self.shape, np.int64)
        for pad, (top, left, height, width) in zip(self._order, PADS[pads], strict=True):
            floor[top : top + height, left : left + width] = pad
        self._floor: list[list[int]] = floor.tolist()  # -> [row][column], a pad or 0
        self._cell = (0, 0)
        self._history: deque[int] = deque(maxlen=pads)
        self._taken = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start in a random cell."""
        super().reset(seed=seed, options=options)
        self._taken = 0
        self._appear()
        return self.observation_at(self._cell, tuple(self._history)), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move one cell, or appear elsewhere after a complete sequence."""
        reward = 0.0
        if self._complete():
            self._appear()
        else:
            self._cell = _moved(self._cell, int(action))
            pad = self._floor[self._cell[0]][self._cell[1]]
            if pad and (not self._history or self._history[-1] != pad):
                self._history.append(pad)
                reward = REWARD if self._complete() else 0.0
        self._taken += 1
        obs = self.observation_at(self._cell, tuple(self._history))
        return obs, reward, False, self._taken >= self._steps, {}

    def render(self) -> np.ndarray:
        """The room within its wall; below it the last pads, the oldest at the left."""
        colours = np.full((ROWS + 3, COLUMNS + 2, 3), picture.WALL, np.uint8)
        palette = np.array([picture.FLOOR, *COLOURS], np.uint8)
        palette[1:] = (palette[1:].astype(np.int64) + 2 * 255) // 3
        pad = self._floor[self._cell[0]][self._cell[1]]
        if pad:
            palette[pad] = COLOURS[pad - 1]
        colours[1:-2, 1:-1] = palette[np.array(self._floor)]
        for slot, stepped in enumerate(self._history):
            colours[-1, 1 + 2 * slot] = COLOURS[stepped - 1]
        return picture.draw(colours, (self._cell[0] + 1, self._cell[1] + 1))

    def cells(self) -> list[Cell]:
        """All cells (row, column)."""
        return list(np.ndindex(ROWS, COLUMNS))

    def observation_at(self, cell: Cell, history: tuple[int, ...] = ()) -> np.ndarray:
        """What is seen in a cell after stepping on `history`, numbers of at most `pads` pads."""
        pads = len(self._order)
        obs = np.zeros(ROWS + COLUMNS + pads * pads, np.uint8)
        obs[cell[0]] = 1
        obs[ROWS + cell[1]] = 1
        for slot, pad in enumerate(history):
            obs[ROWS + COLUMNS + slot * pads + pad - 1] = 1
        return obs

    def tables(self) -> exact.Tables:
        """The task written down, with no more memory than how much of the sequence is done.

        State `cell * (pads + 1) + done`; a pad out of order leaves nothing done, unless it is
        pad 1. With all done, the step is spent on appearing elsewhere.
        """
        pads = len(self._order)
        tables = exact.empty(ROWS * COLUMNS * (pads + 1), len(MOVES), 1, steps=self._steps)
        tables.start[:: pads + 1] = 1 / (ROWS * COLUMNS)
        for row, column, done, action in np.ndindex(ROWS, COLUMNS, pads + 1, len(MOVES)):
            state = (row * COLUMNS + column) * (pads + 1) + done
            if done == pads:
                tables.successor[state, action, 0] = tables.fresh
                continue
            below, beside = _moved((row, column), action)
            pad = self._floor[below][beside]
            after = done if pad in (0, done) else done + 1 if pad == done + 1 else int(pad == 1)
            after_state = (below * COLUMNS + beside) * (pads + 1) + after
            tables.successor[state, action, 0] = after_state
            tables.reward[state, action, 0] = REWARD * (after == pads)
        return tables

    def _appear(self) -> None:
        self._cell = divmod(int(self.np_random.integers(ROWS * COLUMNS)), COLUMNS)
        self._history.clear()

    def _complete(self) -> bool:
        return tuple(self._history) == self._order


def _moved(cell: Cell, action: int) -> Cell:
    down, right = MOVES[action]
    return min(max(cell[0] + down, 0), ROWS - 1), min(max(cell[1] + right, 0), COLUMNS - 1)


def optimal_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of always taking the shortest way. Options as in `PinPad`."""
    return exact.optimal(PinPad(**options).tables())


def random_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of random play. Options as in `PinPad`."""
    return exact.uniform(PinPad(**options).tables())
