"""Tables and numbers as pages of results print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.claims import spread


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    cells = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def plus_minus(values: Sequence[float]) -> str:
    """Mean and spread over seeds, as far as there are any."""
    if not values:
        return "-"
    found = spread(values)
    behind = f" +- {found.std:,.{digits(found.mean)}f}" if len(values) > 1 else ""
    return number(found.mean) + behind


def with_range(values: Sequence[float]) -> str:
    """Mean and spread, and behind them the least and the largest."""
    ends = f" ({number(min(values))} .. {number(max(values))})" if len(values) > 1 else ""
    return plus_minus(values) + ends


def number(value: float | None) -> str:
    """Four digits or so: -1,238.4, 45.67, 0.953."""
    return "-" if value is None else f"{value:,.{digits(value)}f}"


def digits(value: float) -> int:
    """How many digits behind the point a number of this size is worth."""
    return 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3


def distinct(values: Iterable[object]) -> str:
    """Return what occurs, each once, in order of appearance."""
    return ", ".join(dict.fromkeys(str(value) for value in values))
