"""Two configurations compared on the same seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

LARGEST = 16  # seeds that are compared in full; 2 to this many sign flips


def differences(mine: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Mine minus theirs on every seed that both have, in the order of the seeds."""
    return [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]


def share_as_low(values: Sequence[float]) -> float:
    """Exact sign-flip test (Fisher 1935): how rare so low a mean is if signs are chance.

    Args:
        values: At most 16 paired differences.

    Returns:
        Share of the 2^n ways to flip their signs that have a mean as low or lower; 2^-n at least.
        1 without values.
    """
    if not values:
        return 1.0
    pairs = np.asarray(values[:LARGEST], np.float64)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(pairs))))
    sums = signs @ pairs
    # what rounding alone makes higher counts as equal
    return float(np.mean(sums <= pairs.sum() + 1e-9 * np.abs(pairs).sum()))


def hopeless(mine: Mapping[int, float], best: Mapping[int, float], prune_below: float) -> bool:
    """Whether a trial is given up, looking at the seeds that it shares with the best one.

    Args:
        mine, best: Seed -> value. prune_below: See `share_as_low`; 0 gives nothing up.
    """
    low = differences(mine, best)
    return len(low) > 1 and sum(low) < 0 and share_as_low(low) <= prune_below
