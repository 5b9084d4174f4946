"""One observation key, from what environments say to the arrays of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dreamer.types import ObsSpec

Convert = Callable[[Sequence[object]], np.ndarray]  # n native observations -> (n, *)


class Leaf(NamedTuple):
    """One observation key: where it is found in an observation and how n of it become an array."""

    key: str
    path: tuple[str, ...]
    spec: ObsSpec
    convert: Convert

    def read(self, observations: Sequence[Any]) -> np.ndarray:
        """Convert this key of n observations to a fresh (n, *) array.

        Raises:
            ValueError, TypeError, KeyError: One of them does not fit its space.
        """
        for part in self.path:
            observations = [obs[part] for obs in observations]
        return self.convert(observations)
