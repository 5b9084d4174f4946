"""Charts of the page: round ticks, and curves that lie where they should."""

import re

import numpy as np
import pytest

from pipeline.page.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    NARROW,
    RIGHT,
    TOP,
    Line,
    Scale,
    is_logarithmic,
    line_chart,
    short,
    ticks,
)
from pipeline.page.curves import DURING, charts, returns_chart


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3, 48, [10, 20, 30, 40]),
        (-1.2, 1.2, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks_are_powers_of_ten():
    assert ticks(0.002, 30, log=True) == pytest.approx([0.01, 0.1, 1, 10])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (500, "500"), (10_000, "10k"), (2.5e6, "2.5M"), (-2000, "-2k")],
)
def test_numbers_of_axes_are_short(value, text):
    assert short(value) == text


def test_scales_meet_their_ends_and_the_middle():
    assert [Scale(0, 10, 100, 0)(v) for v in (0, 5, 10)] == [100, 50, 0]
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)


def test_only_positive_values_far_apart_are_logarithmic():
    assert is_logarithmic(np.array([1.0, 21.0]))
    assert not is_logarithmic(np.array([1.0, 19.0]))
    assert not is_logarithmic(np.array([0.0, 100.0]))


def test_a_straight_line_goes_from_corner_to_corner():
    svg = line_chart([Line("a", np.array([0.0, 8.0]), np.array([0.0, 1.0]))], "steps")
    points = re.search(r'points="([\d., ]+)"', svg)[1]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points.split())
    assert (x0, x1) == (LEFT, NARROW - RIGHT)
    air = (HEIGHT - BOTTOM - TOP) * 0.05 / 1.1
    assert (y0, y1) == pytest.approx((HEIGHT - BOTTOM - air, TOP + air), abs=0.06)


def test_what_is_not_finite_is_left_out_and_names_are_escaped():
    line = Line("a<b", np.array([0.0, 1.0, 2.0]), np.array([1.0, np.nan, 3.0]), dots=True)
    svg = line_chart([line], "s&t")
    assert svg.count("<circle") == 2
    assert "a<b" not in svg
    assert "a&lt;b" in svg
    assert "s&amp;t" in svg


def test_a_constant_and_a_single_point_can_be_drawn():
    assert "<polyline" in line_chart([Line("a", np.arange(3.0), np.full(3, 7.0))], "x")
    assert "<circle" in line_chart([Line("a", np.zeros(1), np.zeros(1))], "x")


def test_charts_whose_columns_are_missing_are_left_out():
    rows = [{"env_step": 0.0, "policy/entropy": 1.0}, {"env_step": 5.0, "policy/entropy": 0.5}]
    (chart,) = charts(DURING, rows, "env_step", "environment steps")
    assert (chart.title, chart.key) == ("Entropy", (("policy", "c0"),))


def test_several_trainings_get_a_mean_and_a_band():
    def rows(*returns):
        steps = (0.0, 10.0)
        return [
            {"env_step": s, "validation/return": r} for s, r in zip(steps, returns, strict=True)
        ]

    (one,) = returns_chart({"a": rows(1, 2)}, [])
    assert one.key == (("validation", "c0"),)
    assert "polygon" not in one.svg
    (two,) = returns_chart({"a": rows(1, 2), "b": rows(3, 4)}, [])
    assert two.key == (("a", "c0"), ("b", "c1"), ("mean, band of 1 std", "mean"))
    assert "polygon" in two.svg
    assert list(returns_chart({"a": []}, [])) == []
