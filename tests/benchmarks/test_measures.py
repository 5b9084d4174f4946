"""Measures of questions on rows whose answer is known."""

from __future__ import annotations

from benchmarks.measures import Results, clearance


def results(**ends: list[tuple[float, float]]) -> Results:
    rows = {
        stem: [{"best": {"return_ci_low": low, "return_ci_high": high}} for low, high in intervals]
        for stem, intervals in ends.items()
    }
    return Results(rows, {})


def test_clearance_is_between_the_nearest_ends():
    found = results(one=[(0.8, 0.9), (0.7, 0.95)], other=[(0.1, 0.3), (0.2, 0.25)])
    assert clearance("one", "other")(found) == 0.7 - 0.3


def test_intervals_that_overlap_have_none():
    found = results(one=[(0.2, 0.9)], other=[(0.1, 0.3)])
    assert clearance("one", "other")(found) < 0


def test_without_rows_nothing_is_said():
    assert clearance("one", "other")(results(one=[(0.2, 0.9)])) is None
