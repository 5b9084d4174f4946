"""The gate: an interval with known answers, and rulings on their very edge."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dreamer.types import DataError
from pipeline.registry.config import PromoteConfig
from pipeline.registry.gate import judge, paired_interval


def demands(**changes):
    values = {"env": "E-v0", "floor": 10.0, "tolerance": 2.0, "confidence": 0.95, "seed": 1}
    return PromoteConfig(**values | changes)


def test_the_interval_of_a_constant_difference_is_that_difference():
    theirs = [0.0, 500.0, -3.0, 80.0]
    mine = [value + 1.5 for value in theirs]
    assert paired_interval(mine, theirs, 0.95, 0) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("confidence", "low", "high"),
    [(0.4, 0.5, 0.5), (0.6, 0.0, 1.0), (0.95, 0.0, 1.0)],
)
def test_two_pairs_by_hand(confidence, low, high):
    """Resampled means of the differences 0 and 1: 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4."""
    assert paired_interval([3.0, 6.0], [3.0, 5.0], confidence, 0) == (0.5, low, high)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9])
def test_four_pairs_by_enumeration(confidence):
    gaps = np.array([-1.0, 0.25, 2.0, 7.0])
    means = np.array([np.mean(each) for each in itertools.product(gaps, repeat=4)])
    tail = (1 - confidence) / 2
    # Between the neighbours of the exact quantile: 10,000 resamples miss it by half a percent.
    bounds = [np.quantile(means, (max(q - 0.02, 0), min(q + 0.02, 1))) for q in (tail, 1 - tail)]
    found = paired_interval(list(gaps), [0.0] * 4, confidence, 3)
    assert found.mean == gaps.mean()
    assert bounds[0][0] <= found.low <= bounds[0][1]
    assert bounds[1][0] <= found.high <= bounds[1][1]


def test_pairs_matter():
    """The same returns in another order: no longer a sure thing."""
    theirs = [10.0, 200.0, 30.0, 400.0, 50.0]
    mine = [value + 1.0 for value in theirs]
    assert paired_interval(mine, theirs, 0.95, 0).low == 1.0
    assert paired_interval(mine[::-1], theirs, 0.95, 0).low < -50.0


def test_the_interval_is_a_function_of_the_seed():
    mine, theirs = [1.0, 5.0, 2.0, 9.0, 4.0], [0.0, 7.0, 1.0, 3.0, 8.0]
    assert paired_interval(mine, theirs, 0.9, 7) == paired_interval(mine, theirs, 0.9, 7)


@pytest.mark.parametrize(("mine", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_is_no_pairs_is_refused(mine, theirs):
    with pytest.raises(DataError, match="allowed: as many of both, at least one"):
        paired_interval(mine, theirs, 0.9, 0)


@pytest.mark.parametrize(("returns", "passed"), [([9.0, 11.0], True), ([9.0, 10.9], False)])
def test_without_a_champion_the_floor_alone_decides(returns, passed):
    ruling = judge(returns, None, demands())
    assert ruling.passed is passed
    assert ruling.difference is None
    assert ruling.verdict == ("passed" if passed else "refused")
    assert ruling.reasons[0].endswith("the floor, 10")
    assert ruling.reasons[1] == "there is no champion to compare with"


@pytest.mark.parametrize(
    ("gap", "tolerance", "passed"),
    [
        (-2.0, 2.0, False),  # the lower end must be above
        (-1.5, 2.0, True),
        (0.0, 0.0, False),  # as good is not better
        (0.5, 0.0, True),
    ],
)
def test_the_edge_of_the_tolerance(gap, tolerance, passed):
    theirs = [20.0, 30.0, 40.0]
    ruling = judge([value + gap for value in theirs], theirs, demands(tolerance=tolerance))
    assert ruling.passed is passed
    assert ruling.difference == (gap, gap, gap)


def test_better_than_the_champion_is_not_enough_below_the_floor():
    ruling = judge([9.0, 9.0], [1.0, 1.0], demands())
    assert not ruling.passed
    assert ruling.reasons[0] == "mean return 9 is below the floor, 10"
    assert "is above -2" in ruling.reasons[1]


def test_a_tolerance_of_zero_is_told_without_a_sign():
    assert judge([11.0], [11.0], demands(tolerance=0.0)).reasons[1].endswith("is not above 0")
