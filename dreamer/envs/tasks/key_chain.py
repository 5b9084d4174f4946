"""KeyChain: rooms in a row, each locked by a key that lies in the room before; one reward at last.

Every key and every door is a subgoal, and a map of which cells are novel shows how far curiosity
has come. What has to be done is a dozen steps a room; what random play does in the same time is
stay in the first.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.tasks import exact, picture
from dreamer.envs.tasks.options import check_choice, check_whole
from dreamer.envs.tasks.picture import Cell

NAME = "KeyChain-v0"
REWARD = 1.0
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # down, up, right, left
TAKE = len(MOVES)
STEPS_PER_ROOM = 60
KEY_COLOURS = ((235, 190, 30), (41, 98, 210), (190, 60, 200), (0, 175, 190), (230, 126, 34))


class KeyChain(gym.Env[np.ndarray, np.int64]):
    """Take the key of each room, go through its door, and reach the goal in the last room.

    Moves are down, up, right and left; the fifth action takes the key that lies in the cell. A door
    lets pass whoever took the key of its room. The reward is 1 at the goal, which terminates the
    episode, and 0 before. Keys, doors and goal lie where `layout` puts them, in every episode; the
    agent starts in the middle of the first room's left side.

    The observation is, as uint8 zeros and ones, the row (size), the column within the room
    (size + 1, the last is the doorway on its right), the room (rooms), and a bit for each key taken
    (rooms - 1).

    Args:
        rooms: 2 to 8.
        size: Rows and columns of a room, 3 to 15.
        steps: Steps after which the episode is cut, 1 to 1,000,000, or None: 60 a room.
        layout: Seed of where things are, 0 to 2^31 - 1.
        render_mode: `rgb_array` or None.

    Raises:
        EnvError: An option is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        *,
        rooms: int = 3,
        size: int = 5,
        steps: int | None = None,
        layout: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_whole(NAME, "rooms", rooms, 2, 8)
        check_whole(NAME, "size", size, 3, 15)
        if steps is not None:
            check_whole(NAME, "steps", steps, 1, 10**6)
        check_whole(NAME, "layout", layout, 0, 2**31 - 1)
        check_choice(NAME, "render_mode", render_mode, (None, "rgb_array"))
        self.render_mode = render_mode
        self.shape = (size, rooms * (size + 1) - 1)
        self.observation_space = spaces.Box(0, 1, (2 * size + 2 * rooms,), np.uint8)
        self.action_space = spaces.Discrete(TAKE + 1)
        self._rooms, self._size = rooms, size
        self._steps = STEPS_PER_ROOM * rooms if steps is None else steps
        self._keys, self._doors, self._goal = _furnish(rooms, size, layout)
        self._start = (size // 2, 0)
        self._cell, self._held, self._taken = self._start, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start in the first room without keys."""
        super().reset(seed=seed, options=options)
        self._cell, self._held, self._taken = self._start, 0, 0
        return self.observation_at(self._cell, self._held), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move one cell, or take a key."""
        self._cell, self._held = self._move(self._cell, self._held, int(action))
        self._taken += 1
        arrived = self._cell == self._goal
        obs = self.observation_at(self._cell, self._held)
        reward = REWARD if arrived else 0.0
        return obs, reward, arrived, self._taken >= self._steps, {}

    def render(self) -> np.ndarray:
        """Rooms, doors in the colour of their key while it is not taken, the goal, the agent."""
        rows, columns = self.shape
        colours = np.full((rows + 2, columns + 2, 3), picture.WALL, np.uint8)
        inner = colours[1:-1, 1:-1]
        for cell in self.cells():
            inner[cell] = picture.FLOOR
        for room in range(self._held, self._rooms - 1):
            colour = KEY_COLOURS[room % len(KEY_COLOURS)]
            inner[self._keys[room]] = inner[self._doors[room]] = colour
        inner[self._goal] = picture.GOAL
        return picture.draw(colours, (self._cell[0] + 1, self._cell[1] + 1))

    def cells(self) -> list[Cell]:
        """Cells (row, column) of all rooms and doorways; a wall column lies between two rooms."""
        rows, columns = self.shape
        inside = ((row, column) for column in range(columns) for row in range(rows))
        return [cell for cell in inside if cell[1] % (rows + 1) < rows or cell in self._doors]

    def observation_at(self, cell: Cell, held: int | None = None) -> np.ndarray:
        """What is seen in a cell with the first `held` keys; None: as few as lead there."""
        size, rooms = self._size, self._rooms
        room, column = divmod(cell[1], size + 1)
        if held is None:
            held = room + (column == size)
        obs = np.zeros(2 * size + 2 * rooms, np.uint8)
        obs[cell[0]] = obs[size + column] = obs[2 * size + 1 + room] = 1
        first = 2 * size + 1 + rooms
        obs[first : first + held] = 1
        return obs

    def tables(self) -> exact.Tables:
        """The task written down; state `rooms * (index in cells()) + keys held`."""
        cells = self.cells()
        states = {
            (cell, held): self._rooms * i + held
            for i, cell in enumerate(cells)
            for held in range(self._rooms)
        }
        tables = exact.empty(len(states), TAKE + 1, 1, steps=self._steps)
        tables.start[states[self._start, 0]] = 1.0
        for (cell, held), state in states.items():
            for action in range(TAKE + 1):
                after = self._move(cell, held, action)
                if after[0] == self._goal:
                    tables.reward[state, action, 0] = REWARD
                else:
                    tables.successor[state, action, 0] = states[after]
        return tables

    def _move(self, cell: Cell, held: int, action: int) -> tuple[Cell, int]:
        if action == TAKE:
            here = held < self._rooms - 1 and cell == self._keys[held]
            return cell, held + here
        down, right = MOVES[action]
        row, column = cell[0] + down, cell[1] + right
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            return cell, held
        room, inside = divmod(column, self._size + 1)
        if inside == self._size and ((row, column) != self._doors[room] or held <= room):
            return cell, held
        return (row, column), held


def _furnish(rooms: int, size: int, layout: int) -> tuple[list[Cell], list[Cell], Cell]:
    """Keys of all rooms but the last, their doors, and the goal, all in cells of the whole map."""
    generator = np.random.default_rng(layout)
    entrance = (size // 2, 0)
    keys: list[Cell] = []
    doors: list[Cell] = []
    for _ in range(rooms - 1):
        door = (int(generator.integers(size)), entrance[1] + size)
        # Away from both openings, so that walking from one to the other passes no key.
        places = [c for c in _far(entrance, size) if _distance(c, door) > size // 2]
        keys.append(places[int(generator.integers(len(places)))])
        doors.append(door)
        entrance = (door[0], door[1] + 1)
    places = _far(entrance, size)
    return keys, doors, places[int(generator.integers(len(places)))]


def _far(entrance: Cell, size: int) -> list[Cell]:
    """Cells of the room that is entered at its left in `entrance`, at least size - 1 steps away."""
    room = np.ndindex(size, size)
    cells = [(row, entrance[1] + column) for row, column in room]
    return [cell for cell in cells if _distance(cell, entrance) >= size - 1]


def _distance(a: Cell, b: Cell) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def optimal_return(**options: Any) -> float:  # noqa: ANN401
    """Return of the shortest way, 1 if `steps` allow it. Options as in `KeyChain`."""
    return exact.optimal(KeyChain(**options).tables())


def optimal_steps(**options: Any) -> int:  # noqa: ANN401
    """Steps of the shortest way to the goal, by breadth-first search. Options as in `KeyChain`."""
    tables = KeyChain(**options).tables()
    return int(exact.steps_to_reward(tables)[tables.start.argmax()])


def random_return(**options: Any) -> float:  # noqa: ANN401
    """Expected return of random play. Options as in `KeyChain`."""
    return exact.uniform(KeyChain(**options).tables())
