"""Symbolic grids of a dream at about ten moments, layer by layer, a colour for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer.types import ObsSpec
from pipeline.report.canvas import CLASSES, INK, class_colours, say, show_image
from pipeline.report.dream import Dream
from pipeline.report.strips import WIDTH, frame, head, moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SIDE = 0.85  # inches of a grid, at most
ROWS = ("real", "reconstructed", "imagined")
# Mostly class 0 is where nothing is.
NAMED = ("#D9D9D9", *CLASSES, "#8C510A", "#B2DF8A", "#FDBF6F", "#CAB2D6")


class Cells(NamedTuple):
    """One layer of the grids of W steps, (W, height, width) each; `classes` that may occur."""

    layer: int
    classes: int
    real: np.ndarray
    reconstructed: np.ndarray
    imagined: np.ndarray

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Real, reconstructed, imagined."""
        return self.real, self.reconstructed, self.imagined


def layers(window: Dream, key: str, spec: ObsSpec) -> list[Cells]:
    """Layers in which there is more than one class to see, or else the first."""
    shown = window.truth[key], window.reconstructed[key], window.imagined[key][0]
    cells = [
        Cells(layer, classes, *(grids[..., layer] for grids in shown))
        for layer, classes in enumerate(spec.layers)
    ]
    return [each for each in cells if len(occurring(each)) > 1] or cells[:1]


def occurring(cells: Cells) -> list[int]:
    """Classes that occur in a layer, real or not."""
    return [int(number) for number in np.unique(np.stack(cells.rows()))]


def grid_height(window: Dream, key: str, spec: ObsSpec) -> float:
    """Inches."""
    return 0.4 + len(layers(window, key, spec)) * _layer_height(window, key, spec)


def grid_rows(figure: SubFigure, key: str, spec: ObsSpec, window: Dream) -> None:
    """Draw real, reconstructed and imagined cells of each layer; wrong ones are crossed out."""
    shown = layers(window, key, spec)
    figure.suptitle(f"{key}: one sampled future; a colour for each class, wrong cells crossed out")
    parts: Any = figure.subfigures(len(shown), 1, squeeze=False).ravel()
    for part, cells in zip(parts, shown, strict=True):
        _layer(part, key, cells, window)


def _layer_height(window: Dream, key: str, spec: ObsSpec) -> float:
    height, width = spec.shape[:2]
    side = min(SIDE, WIDTH / len(moments(window, key)))
    return 1.0 + len(ROWS) * (side * height / width + 0.05)


def _layer(figure: SubFigure, key: str, cells: Cells, window: Dream) -> None:
    from matplotlib.patches import Patch

    columns, missing = moments(window, key), window.missing(key)
    colours, classes = cell_colours(cells.classes), occurring(cells)
    grid: Any = figure.subplots(len(ROWS), len(columns), squeeze=False)
    for column, moment in enumerate(columns):
        for axes, values in zip(grid[:, column], cells.rows(), strict=True):
            show_image(axes, colours[values[moment]])
            if not missing[moment]:
                _cross_out(axes, values[moment] != cells.real[moment])
        if missing[moment]:
            say(grid[0, column], "missing")
        head(grid[0, column], moment, window)
        frame(grid[2, column], seen=moment < window.context)
        right = (cells.imagined[moment] == cells.real[moment]).mean()
        grid[2, column].set_xlabel(f"{100 * right:.0f} % right", fontsize="small")
    for axes, name in zip(grid[:, 0], ROWS, strict=True):
        axes.set_ylabel(name)
    patches = [Patch(color=colours[number], label=str(number)) for number in classes]
    title = f"layer {cells.layer}"
    figure.legend(handles=patches, loc="outside right center", title=title, fontsize="small")


def cell_colours(classes: int) -> np.ndarray:
    """(classes, 3) in [0, 1]."""
    from matplotlib.colors import to_rgb

    chosen = NAMED[:classes] if classes <= len(NAMED) else class_colours(classes)
    return np.array([to_rgb(colour) for colour in chosen])


def _cross_out(axes: Axes, wrong: np.ndarray) -> None:
    down, across = np.nonzero(wrong)
    axes.plot(across, down, "x", color="white", ms=5, mew=2.2)
    axes.plot(across, down, "x", color=INK, ms=5, mew=1.0)
