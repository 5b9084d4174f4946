"""Observations that may be missing: a sensor that fails leaves its key out, or says None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.envs.leaf import Leaf
from dreamer.types import PRESENT, SILENCE, ObsSpec

FLAG = ObsSpec(shape=(1,), dtype="uint8", kind="flag")


def may_be_missing(leaf: Leaf) -> tuple[Leaf, Leaf]:
    """A key that observations may lack, and its flag: 1 where it was there.

    What is missing is a blank in the row: zeros, silence, or the empty text.
    """

    def values(observations: Sequence[object]) -> np.ndarray:
        found = [_find(obs, leaf.path) for obs in observations]
        array = np.full((len(found), *leaf.spec.shape), _blank(leaf.spec), leaf.spec.dtype)
        there = [i for i, value in enumerate(found) if value is not None]
        if there:
            array[there] = leaf.convert([found[i] for i in there])
        return array

    def flags(observations: Sequence[object]) -> np.ndarray:
        return np.array([[_find(obs, leaf.path) is not None] for obs in observations], np.uint8)

    return Leaf(leaf.key, (), leaf.spec, values), Leaf(PRESENT + leaf.key, (), FLAG, flags)


def _find(obs: Any, path: tuple[str, ...]) -> object | None:  # noqa: ANN401
    for part in path:
        obs = obs.get(part) if isinstance(obs, Mapping) else None
    return obs


def _blank(spec: ObsSpec) -> int:
    return SILENCE if (spec.kind, spec.dtype) == ("audio", "uint8") else 0
