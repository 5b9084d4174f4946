"""Images of a dream at about ten moments: what came, and what the model made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer.types import ObsSpec
from pipeline.report.canvas import BLUE, ORANGE, say, show_image
from pipeline.report.dream import Dream, spread_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

MOMENTS = 10
WIDTH, SIDE = 10.2, 1.3  # inches of all images in a row, and at most of one
ROWS = ("real", "reconstructed", "imagined", "difference")


def image_height(window: Dream, key: str, spec: ObsSpec) -> float:
    """Inches."""
    height, width = spec.shape[:2]
    side = min(SIDE, WIDTH / len(moments(window, key)))
    return 1.0 + len(ROWS) * (side * height / width + 0.05)


def image_rows(figure: SubFigure, key: str, spec: ObsSpec, window: Dream) -> None:
    """Draw real, reconstructed and imagined images, and where the last ones are wrong."""
    del spec
    shown = window.truth[key], window.reconstructed[key], window.imagined[key][0]
    error = difference(shown[0], shown[2])
    columns, missing = moments(window, key), window.missing(key)
    grid: Any = figure.subplots(len(ROWS), len(columns), squeeze=False)
    figure.suptitle(f"{key}: one sampled future, and its mean absolute difference from the truth")
    for column, moment in enumerate(columns):
        for axes, images in zip(grid[:, column], shown, strict=False):
            show_image(axes, images[moment])
        show_image(grid[-1, column], error[moment], cmap="magma", vmin=0.0, vmax=0.5)
        if missing[moment]:
            say(grid[0, column], "missing")
        head(grid[0, column], moment, window)
        frame(grid[2, column], seen=moment < window.context)
        percent = f"{100 * error[moment].mean():.1f} %"
        grid[-1, column].set_xlabel(percent, fontsize="small")
    for axes, name in zip(grid[:, 0], ROWS, strict=True):
        axes.set_ylabel(name)


def moments(window: Dream, key: str) -> list[int]:
    """About ten rows, from the last one seen to the last one imagined.

    One at which there is nothing to see, all of one colour, gives way to the nearest that shows
    something, halfway to its neighbours at most.
    """
    flat = window.truth[key].reshape(window.steps, -1)
    shows, context = flat.min(1) != flat.max(1), window.context
    spread = spread_out(context - 1, window.steps - 1, MOMENTS)
    reach = (spread[1] - spread[0]) // 2
    found = set()
    for moment in spread:
        first, last = (0, context) if moment < context else (context, window.steps)
        near = range(max(first, moment - reach), min(last, moment + reach + 1))
        nearest = sorted((t for t in near if shows[t]), key=lambda t: abs(t - moment))
        found.add(nearest[0] if nearest else moment)
    return sorted(found)


def head(axes: Axes, moment: int, window: Dream) -> None:
    """Say above a column which row it shows, and how far ahead that was imagined."""
    ahead = moment - window.context + 1
    axes.set_title(f"step {moment}, " + (f"+{ahead}" if ahead > 0 else "seen"), fontsize="small")


def frame(axes: Axes, *, seen: bool) -> None:
    """Tell what was decoded from what the model saw from what it imagined."""
    for spine in axes.spines.values():
        spine.set(color=BLUE if seen else ORANGE, lw=2)


def difference(truth: np.ndarray, imagined: np.ndarray) -> np.ndarray:
    """Mean over the channels of (W, height, width, channels) uint8, as shares of 255."""
    apart = np.abs(truth.astype(np.float32) - imagined.astype(np.float32))
    return apart.mean(-1) / 255
