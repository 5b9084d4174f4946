"""The gate: may this challenger replace that champion? Numbers in, a ruling in words out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreamer.types import DataError
from pipeline.registry.config import PromoteConfig
from pipeline.report.tables import bootstrap_means


class Interval(NamedTuple):
    """Mean of paired differences, challenger minus champion, and its bootstrap interval."""

    mean: float
    low: float
    high: float


class Ruling(NamedTuple):
    """Whether the challenger passed, why, and how far it is from the champion, if there is one."""

    passed: bool
    reasons: tuple[str, ...]
    difference: Interval | None

    @property
    def verdict(self) -> str:
        """One word."""
        return "passed" if self.passed else "refused"


def paired_interval(
    mine: Sequence[float], theirs: Sequence[float], confidence: float, seed: int
) -> Interval:
    """Percentile bootstrap over pairs: both of a pair are drawn or left together.

    Args:
        mine, theirs: (n,) returns of the same episodes. confidence: Of the two-sided interval.
        seed: Of the bootstrap.

    Raises:
        DataError: There are no pairs, or not as many of both.
    """
    if not mine or len(mine) != len(theirs):
        found = f"{len(mine)} and {len(theirs)} returns"
        raise DataError(f"gate: found {found}; allowed: as many of both, at least one")
    pairs = np.asarray(mine, np.float64) - np.asarray(theirs, np.float64)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(bootstrap_means(pairs, seed), (tail, 1.0 - tail))
    return Interval(float(pairs.mean()), float(low), float(high))


def judge(mine: Sequence[float], theirs: Sequence[float] | None, config: PromoteConfig) -> Ruling:
    """Compare a challenger with the floor, and with the champion.

    Args:
        mine: (n,) returns of the challenger. theirs: (n,) of the champion in the same episodes, or
            None where there is none yet; then the floor alone decides.
    """
    mean = float(np.mean(mine))
    high_enough = mean >= config.floor
    reasons = [
        f"mean return {mean:.6g} is {'not below' if high_enough else 'below'} the floor, "
        f"{config.floor:.6g}"
    ]
    if theirs is None:
        return Ruling(high_enough, (*reasons, "there is no champion to compare with"), None)
    gap = paired_interval(mine, theirs, config.confidence, config.seed)
    bar = 0.0 - config.tolerance  # never -0
    good_enough = gap.low > bar
    reasons.append(
        f"challenger minus champion is {gap.mean:.6g} on average, {config.confidence:.6g} interval "
        f"{gap.low:.6g} to {gap.high:.6g}, whose lower end is "
        f"{'above' if good_enough else 'not above'} {bar:.6g}"
    )
    return Ruling(high_enough and good_enough, tuple(reasons), gap)
