"""Numbers over the course of a training: learning curve, losses, seeds compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.canvas import (
    BLUE,
    COLOURS,
    FAINT,
    INK,
    ORANGE,
    picture,
    say,
    short_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float]

VALIDATION, TRAINING = "validation/return", "episode/return"
LOSSES = {  # of `MultimodalWorldModel`; anything else that begins with world/ follows
    "world/recon_loss": "reconstruction (squared error)",
    "world/reward_loss": "reward (nats)",
    "world/cont_loss": "continue (nats)",
    "world/kl_loss": "KL, posterior to prior (nats)",
    "world/dyn_loss": "dynamics (nats, floored)",
    "world/rep_loss": "representation (nats, floored)",
    "world/loss": "weighted sum",
    "world/grad_norm": "gradient norm",
}
COLUMNS = 4


def learning_curve(path_png: Path, rows: Sequence[Row]) -> None:
    """Draw validation return and mean return of recent training episodes over environment steps.

    Args:
        path_png: Where to. rows: With `env_step` and, each where it was measured,
            `validation/return` and `episode/return`.
    """
    with picture(path_png, 7.0, 4.0) as figure:
        axes = figure.subplots()
        axes.set(xlabel="environment steps", ylabel="return per episode")
        steps, returns = series(rows, "env_step", TRAINING)
        if len(steps):
            axes.plot(steps, returns, color=ORANGE, lw=1.2, label="training, last 20 episodes")
        steps, returns = series(rows, "env_step", VALIDATION)
        if len(steps):
            best = len(returns) - 1 - int(np.argmax(returns[::-1]))  # the later one of a tie
            label = f"validation (best {returns[best]:,.4g} at {steps[best]:,.0f} steps)"
            axes.plot(steps, returns, "o-", color=BLUE, lw=2, ms=4, label=label)
            axes.plot(steps[best], returns[best], "o", color=BLUE, ms=9, mfc="none", mew=1.5)
        if not axes.lines:
            say(axes, "no episode was finished")
            return
        short_numbers(axes.xaxis)
        _legend_above(axes)


def losses_picture(path_png: Path, rows: Sequence[Row]) -> None:
    """Draw every `world/` metric over the updates, one panel each.

    A panel is logarithmic where a positive metric fell or rose by more than a factor of twenty.

    Args:
        path_png: Where to. rows: With `update` and metrics.
    """
    present = dict.fromkeys(key for row in rows for key in row if key.startswith("world/"))
    names = [key for key in LOSSES if key in present] + [
        key for key in present if key not in LOSSES
    ]
    down = max(1, -(-len(names) // COLUMNS))
    with picture(path_png, 11.0, 0.4 + 2.1 * down) as figure:
        grid = figure.subplots(down, COLUMNS, squeeze=False, sharex=True).ravel()
        figure.suptitle("World model")
        for axes, name in zip(grid, names, strict=False):
            _loss_panel(axes, LOSSES.get(name, name), *series(rows, "update", name))
        if not names:
            say(grid[0], "no update was logged")
        for axes in grid[max(1, len(names)) :]:
            axes.remove()
        for axes in grid[: len(names)][-COLUMNS:]:
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel("updates")


def compare_seeds(
    path_png: Path,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    baseline: float | None = None,
) -> None:
    """Draw several trainings: thin lines, their mean, and a band of one standard deviation.

    Mean and band reach as far as every curve does; between its points a curve is a straight line.

    Args:
        path_png: Where to. curves: Name of a seed -> (environment step, return), any order.
        title: Above the picture. baseline: Return of a random policy, drawn dashed.
    """
    lines = {name: np.asarray(sorted(curve), np.float64) for name, curve in curves.items() if curve}
    with picture(path_png, 7.0, 4.2) as figure:
        axes = figure.subplots()
        axes.set(xlabel="environment steps", ylabel="return per episode", title=title)
        if not lines:
            say(axes, "no curve to draw")
            return
        for name, colour in zip(lines, _cycle(len(lines)), strict=True):
            axes.plot(*lines[name].T, color=colour, lw=1, alpha=0.7, label=name)
        if len(lines) > 1:
            steps, mean, spread = mean_and_spread(list(lines.values()))
            axes.fill_between(steps, mean - spread, mean + spread, color=INK, alpha=0.12, lw=0)
            axes.plot(steps, mean, color=INK, lw=2.2, label="mean, +- 1 std")
        if baseline is not None:
            axes.axhline(baseline, color=FAINT, lw=1.2, ls="--", label=f"random ({baseline:,.4g})")
        short_numbers(axes.xaxis)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def series(rows: Sequence[Row], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Columns `x` and `y` of the rows that have both, as float64."""
    pairs = [(row[x], row[y]) for row in rows if x in row and y in row]
    columns = np.asarray(pairs, np.float64).reshape(-1, 2).T
    return columns[0], columns[1]


def mean_and_spread(lines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and sample standard deviation of curves with different steps.

    Args:
        lines: Two or more (points, 2) of step and value, steps rising.

    Returns:
        Steps (all that occur where every curve is defined), means and deviations.
    """
    first, last = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
    steps = np.unique(np.concatenate([line[:, 0] for line in lines]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.stack([np.interp(steps, *line.T) for line in lines])
    return steps, values.mean(0), values.std(0, ddof=1)


def _loss_panel(axes: Axes, title: str, updates: np.ndarray, values: np.ndarray) -> None:
    axes.set_title(title)
    axes.plot(updates, values, color=BLUE, lw=1.4, marker="o" if len(values) == 1 else "")
    if values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
    short_numbers(axes.xaxis)


def _legend_above(axes: Axes) -> None:
    """Where it cannot cover a line."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
