"""The cells of a gridworld, and the shortest way to each of them."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from dreamer.envs.episode import episode_seed
from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.spaces import Codec, codec_of
from dreamer.envs.tasks.pits import Pits, is_pit

Cell = tuple[int, int]  # (row, column)

LIMIT = 20_000  # steps that looking for ways may take, a few seconds


@runtime_checkable
class Gridworld(Protocol):
    """An environment that can say what is seen in each of its cells, in zeros and ones."""

    shape: tuple[int, int]

    def cells(self) -> list[Cell]:
        """Cells that the agent can be in."""

    def observation_at(self, cell: Cell) -> object:
        """What is seen in a cell, and nothing else that could be seen there too: whoever carries
        keys into it sees these marks and more.
        """


class Place(NamedTuple):
    """A step on the way to a cell.

    Attributes:
        parent: Index of the place before; -1 at the start. action: Number of the one that led here.
        depth: Steps from the start.
    """

    parent: int
    action: int
    depth: int


class World(NamedTuple):
    """A gridworld as an agent sees it.

    Attributes:
        shape: Rows and columns. cells: Those that were reached. pits: Those of them to mark.
        marks: (cells, M) what is seen there, all keys side by side.
        places: All that lie on the ways, the nearest first. seen: key -> (places, *).
        ends: Index of the place at which each cell was reached.
    """

    shape: tuple[int, int]
    cells: list[Cell]
    pits: list[Cell]
    marks: np.ndarray
    places: list[Place]
    seen: dict[str, np.ndarray]
    ends: list[int]

    def inside(self, marks: np.ndarray) -> np.ndarray:
        """(n, M) marks -> (n, cells) bool: a row is in the cell all of whose marks it shows; it may
        show others too, of what is carried.
        """
        shared = marks.astype(np.float32) @ self.marks.astype(np.float32).T
        return np.asarray(shared == self.marks.sum(1))


def open_world(config: EnvConfig, seed: int) -> World | None:
    """Find the cells of an environment from where the first episode of `seed` starts; None if it is
    no gridworld with one choice a step.

    Raises:
        EnvError: It cannot be made.
    """
    env = make_env(config)
    try:
        bare = env.unwrapped
        if not isinstance(bare, Gridworld):
            return None
        codec = codec_of(env, config.view)
        action = codec.spec.action
        if action.kind != "discrete" or len(action.sizes) > 1:
            return None
        obs, _ = env.reset(seed=episode_seed(seed, 0, 0))
        return _explore(env, bare, codec, obs)
    finally:
        env.close()


def join(rows: dict[str, np.ndarray], keys: list[str]) -> np.ndarray:
    """key -> (n, *) to (n, M)."""
    return np.concatenate([rows[key].reshape(len(rows[key]), -1) for key in keys], 1)


def _explore(env: gym.Env[Any, Any], bare: Gridworld, codec: Codec, start: object) -> World:
    """Breadth-first over observations, on copies of the environment."""
    keys = list(codec.spec.obs)
    cells = bare.cells()
    marks = join(_read(codec, [bare.observation_at(cell) for cell in cells]), keys)
    candidates = _by_first_mark(marks)
    natives = codec.decode(np.eye(codec.spec.action.dim, dtype=np.float32))
    places, seen = [Place(-1, 0, 0)], [start]
    first = join(_read(codec, [start]), keys)[0]
    known = {first.tobytes()}
    reached = dict.fromkeys(_cells_of(first, marks, candidates), 0)
    border, taken = [(0, env)], 0
    while border and len(reached) < len(cells) and taken < LIMIT:
        (parent, before), *border = border
        for number, native in enumerate(natives):
            after = copy.deepcopy(before)
            obs, _, terminated, truncated, _ = after.step(native)
            taken += 1
            row = join(_read(codec, [obs]), keys)[0]
            if row.tobytes() in known:
                continue
            known.add(row.tobytes())
            place = len(places)
            places.append(Place(parent, number, places[parent].depth + 1))
            seen.append(obs)
            for cell in _cells_of(row, marks, candidates):
                reached.setdefault(cell, place)
            if not (terminated or truncated):
                border.append((place, after))
    found = sorted(reached)
    kept = [cells[i] for i in found]
    return World(
        shape=bare.shape,
        cells=kept,
        pits=[cell for cell in kept if isinstance(bare, Pits) and is_pit(cell)],
        marks=marks[found],
        **_prune(places, _read(codec, seen), [reached[i] for i in found]),
    )


def _by_first_mark(marks: np.ndarray) -> dict[int, np.ndarray]:
    """First mark of a cell -> indices of the cells that begin with it, so that few are compared."""
    firsts = marks.astype(bool).argmax(1)
    return {int(first): np.flatnonzero(firsts == first) for first in np.unique(firsts)}


def _cells_of(row: np.ndarray, marks: np.ndarray, candidates: dict[int, np.ndarray]) -> list[int]:
    """Indices of the cells all of whose marks a row shows: one, or none at all."""
    near = [candidates[int(mark)] for mark in np.flatnonzero(row) if int(mark) in candidates]
    return [int(i) for cells in near for i in cells[(row >= marks[cells]).all(-1)]]


def _prune(places: list[Place], seen: dict[str, np.ndarray], ends: list[int]) -> dict[str, Any]:
    """Keep the places on the ways to `ends`."""
    needed: set[int] = set()
    for place in ends:
        while place >= 0 and place not in needed:
            needed.add(place)
            place = places[place].parent
    order = sorted(needed)
    new = {old: number for number, old in enumerate(order)} | {-1: -1}
    return {
        "places": [places[old]._replace(parent=new[places[old].parent]) for old in order],
        "seen": {key: rows[order] for key, rows in seen.items()},
        "ends": [new[place] for place in ends],
    }


def _read(codec: Codec, observations: list[Any]) -> dict[str, np.ndarray]:
    return {leaf.key: leaf.read(observations) for leaf in codec.leaves}
