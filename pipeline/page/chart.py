"""Line charts as SVG that takes its colours from the page, so that they suit light and dark.

Colours are the classes `c0`, `c1`, ... and `mean` of the page's style; nothing is drawn by scripts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

HEIGHT = 200  # pixels, where one of the page is about as large
NARROW, WIDE = 340, 1040
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 36
TICKS = 5
LOG_FROM = 20.0  # a factor between largest and smallest value that asks for a logarithmic axis
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Line(NamedTuple):
    """A curve: its name, (n,) places and (n,) values, whether its points are marked, and whether it
    is the mean of the others.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    dots: bool = False
    mean: bool = False

    def colour(self, number: int) -> str:
        """Class of the curve with this number in its chart."""
        return "mean" if self.mean else f"c{number % 6}"


class Band(NamedTuple):
    """The area between (n,) lower and (n,) upper values."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Scale(NamedTuple):
    """From values to pixels: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        share = ((math.log10(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    *,
    width: int = NARROW,
    log: bool = True,
    band: Band | None = None,
) -> str:
    """Draw curves into one SVG element; points that are not finite are left out.

    Args:
        lines: At least one with a point. x_label: Below the axis. width: In pixels.
        log: Whether the axis may be logarithmic. band: Drawn behind the curves.
    """
    finite = [_finite(line) for line in lines]
    values = np.concatenate([line.y for line in finite])
    if band is not None:
        values = np.concatenate([values, band.low, band.high])
    places = np.concatenate([line.x for line in finite])
    x = _scale(places, LEFT, width - RIGHT, log=False)
    y = _scale(values, HEIGHT - BOTTOM, TOP, log=log and is_logarithmic(values))
    parts = [*_axes(x, y, x_label)]
    if band is not None:
        parts.append(_area(band, x, y))
    for number, line in enumerate(finite):
        parts += _curve(line, number, x, y)
    body = "".join(parts)
    title = escape(", ".join(line.name for line in lines))
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{title}" '
        f'preserveAspectRatio="xMidYMid meet">{body}</svg>'
    )


def is_logarithmic(values: np.ndarray) -> bool:
    """Whether positive values differ by more than a factor of twenty."""
    return bool(values.min() > 0 and values.max() > LOG_FROM * values.min())


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Round numbers from `low` to `high`: about five, or powers of ten.

    The distance is 1, 2 or 5 times a power of ten.
    """
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        return [10.0**power for power in range(first, last + 1, max(1, (last - first) // TICKS))]
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis: 0, 0.25, 500, 10k, 1e-05."""
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def _finite(line: Line) -> Line:
    good = np.isfinite(line.x) & np.isfinite(line.y)
    return line._replace(x=line.x[good], y=line.y[good])


def _scale(values: np.ndarray, start: float, end: float, *, log: bool) -> Scale:
    low, high = float(values.min()), float(values.max())
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    elif not log and start > end:  # a little air above and below curves
        margin = (high - low) * 0.05
        low, high = low - margin, high + margin
    return Scale(low, high, start, end, log)


def _axes(x: Scale, y: Scale, x_label: str) -> Iterator[str]:
    for value in ticks(y.low, y.high, y.log):
        at = f"{y(value):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{x.end:.0f}" y1="{at}" y2="{at}"/>'
        yield f'<text class="tick end" x="{LEFT - 6}" y="{y(value) + 4:.1f}">{short(value)}</text>'
    for value in ticks(x.low, x.high):
        place = f'x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
        yield f'<text class="tick middle" {place}>{short(value)}</text>'
    middle = (x.start + x.end) / 2
    yield f'<text class="tick middle" x="{middle}" y="{HEIGHT - 4}">{escape(x_label)}</text>'


def _area(band: Band, x: Scale, y: Scale) -> str:
    there = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(band.x, band.high, strict=True)]
    back = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(band.x, band.low, strict=True)]
    return f'<polygon class="band" points="{" ".join(there + back[::-1])}"/>'


def _curve(line: Line, number: int, x: Scale, y: Scale) -> Iterator[str]:
    colour = line.colour(number)
    points = [(x(a), y(b)) for a, b in zip(line.x, line.y, strict=True)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    yield f'<polyline class="curve {colour}" points="{path}"/>'
    if line.dots or len(points) == 1:
        for (a, b), place, value in zip(points, line.x, line.y, strict=True):
            says = escape(f"{line.name}: {value:,.6g} at {place:,.0f}")
            circle = f'<circle class="dot {colour}" cx="{a:.1f}" cy="{b:.1f}" r="3">'
            yield f"{circle}<title>{says}</title></circle>"
