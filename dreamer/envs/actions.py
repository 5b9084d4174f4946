"""Action spaces <-> action vectors: one-hots, or numbers of which [-1, 1] covers a box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.types import ActionSpec, EnvError

Decode = Callable[[np.ndarray], np.ndarray]  # (n, A) -> n native actions

ALLOWED = "Discrete, MultiDiscrete, MultiBinary and float Box with finite bounds"


def action_codec(space: gym.Space[Any], name: str) -> tuple[ActionSpec, Decode]:
    """Spec of an action space and how its vectors are read; the error names `name`.

    Raises:
        EnvError: The space has no place in a vector.
    """
    match space:
        case spaces.Discrete():
            nvec, start = np.array(space.n), np.array(space.start)
            return _choices(nvec, start, np.dtype(space.dtype))
        case spaces.MultiDiscrete():
            return _choices(space.nvec, np.asarray(space.start), np.dtype(space.dtype))
        case spaces.MultiBinary():
            return _choices(np.full(space.shape, 2), np.array(0), np.dtype(space.dtype))
        case spaces.Box() if space.dtype.kind == "f":
            return _continuous(space, name)
        case spaces.Box():
            found = f"a Box of {space.dtype}"
        case _:
            found = f"a {type(space).__name__} space"
    raise EnvError(f"{name}: the action space is {found}; allowed: {ALLOWED}")


def _choices(
    nvec: np.ndarray, start: np.ndarray, dtype: np.dtype[Any]
) -> tuple[ActionSpec, Decode]:
    sizes = tuple(int(n) for n in nvec.reshape(-1))
    splits = np.cumsum(sizes)[:-1]

    def decode(vectors: np.ndarray) -> np.ndarray:
        parts = [vectors] if len(sizes) == 1 else np.split(vectors, splits, axis=1)
        index = np.stack([part.argmax(1) for part in parts], axis=1)
        return (index.reshape(-1, *nvec.shape) + start).astype(dtype)

    return ActionSpec(kind="discrete", sizes=sizes), decode


def _continuous(space: spaces.Box, name: str) -> tuple[ActionSpec, Decode]:
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise EnvError(
            f"{name}: the action space {space} has infinite bounds, which [-1, 1] cannot cover; "
            f"allowed: {ALLOWED} (gymnasium.wrappers.RescaleAction gives it some)"
        )
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    # Halved before adding: the width of a box may exceed the largest float.
    center, half = low / 2 + high / 2, high / 2 - low / 2
    shape, dtype = space.shape, space.dtype

    def decode(vectors: np.ndarray) -> np.ndarray:
        unit = np.minimum(np.maximum(vectors, -1.0), 1.0).reshape(-1, *shape)
        # The last clip undoes what rounding may add beyond a bound.
        return np.minimum(np.maximum(center + half * unit, low), high).astype(dtype)

    return ActionSpec(kind="continuous", sizes=(int(np.prod(shape)),)), decode
