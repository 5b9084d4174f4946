"""How learning rates that tune themselves moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer.meta_gradient import ACTING
from pipeline.report.canvas import COLOURS, FAINT, picture, short_numbers
from pipeline.report.curves import Row, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WEIGHTS = ("meta/", "_weight")  # how metrics of weights begin and end
SLOPES = "meta/gradient_"
MARGIN = 1.5  # of the bounds to the edge of the picture
TICKS = (0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0)
LEAST_SPAN = 1.3  # the right panel shows at least this factor up and down


class Curve(NamedTuple):
    """One rate or weight: its name, updates and values (points,), the start first."""

    name: str
    updates: np.ndarray
    values: np.ndarray


def rates_picture(
    path_png: Path,
    rows: Sequence[Row],
    starts: Mapping[str, float],
    bounds: tuple[float, float],
) -> None:
    """Draw learning rates over the updates between their bounds, and as multiples of their starts.

    Weights of the loss, where they tune themselves too, are dashed lines among the multiples.

    Args:
        path_png: Where to.
        rows: With `update` and the metrics of `MetaGradient`, `meta/lr` among them.
        starts: Name of a rate -> where it started. bounds: Lowest and highest rate.
    """
    rates = [_rate(rows, name, start) for name, start in starts.items()]
    curves = rates + _weights(rows)
    with picture(path_png, 11.0, 3.8) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        figure.suptitle("Learning rates that tune themselves, before warm-up and decay")
        for n, curve in enumerate(curves):
            updates, values, is_rate = curve.updates, curve.values, n < len(rates)
            # Earlier ones lie above, where lines of equal values cover each other.
            style: dict[str, Any] = {"color": COLOURS[n % len(COLOURS)], "zorder": 3 - n / 100}
            label = f"{curve.name}  {values[0]:.2g} to {values[-1]:.2g}"
            factors = values / values[0]
            right.plot(updates, factors, "-" if is_rate else "--", lw=1.8, label=label, **style)
            if is_rate:
                left.plot(updates, values, lw=1.8, **style)
                left.plot(0, values[0], "o", ms=7, mfc="none", mew=1.5, **style)
        _bounded(left, bounds)
        _relative(right, curves)
        for axes in (left, right):
            axes.set_xlabel("updates")
            axes.locator_params("x", nbins=8, integer=True)
            short_numbers(axes.xaxis)
        figure.legend(loc="outside lower center", ncols=4)


def metric(name: str) -> str:
    """Metric under which `MetaGradient` reports a rate."""
    return "meta/lr" if name == ACTING else f"meta/lr_{name}"


def _rate(rows: Sequence[Row], name: str, start: float) -> Curve:
    updates, values = series(rows, "update", metric(name))
    return Curve(name, np.concatenate([[0.0], updates]), np.concatenate([[start], values]))


def _weights(rows: Sequence[Row]) -> list[Curve]:
    """Of parts of the loss, from where they were first seen."""
    names = dict.fromkeys(key for row in rows for key in row if key.startswith(WEIGHTS[0]))
    chosen = [name for name in names if name.endswith(WEIGHTS[1])]
    words = [name.removeprefix(WEIGHTS[0]).replace("_", " ") for name in chosen]
    return [
        Curve(word, *series(rows, "update", name))
        for word, name in zip(words, chosen, strict=True)
        if not name.startswith(SLOPES)
    ]


def _bounded(axes: Axes, bounds: tuple[float, float]) -> None:
    axes.set(title="between their bounds (dashed), from their starts (circles)")
    axes.set_yscale("log")
    axes.set_ylim(bounds[0] / MARGIN, bounds[1] * MARGIN)
    for bound in bounds:
        axes.axhline(bound, color=FAINT, lw=1.2, ls="--")


def _relative(axes: Axes, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    factors = [curve.values / curve.values[0] for curve in curves]
    low = min([1 / LEAST_SPAN, *(float(factor.min()) / 1.1 for factor in factors)])
    high = max([LEAST_SPAN, *(float(factor.max()) * 1.1 for factor in factors)])
    axes.set(title="as multiples of their starts")
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    if high / low < 200:  # more decades have enough ticks of their own
        axes.yaxis.set_major_locator(FixedLocator([t for t in TICKS if low <= t <= high]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(1.0, color=FAINT, lw=1)
