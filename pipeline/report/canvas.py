"""One look for all pictures, and PNG files with the same bytes for the same content.

matplotlib is imported when a picture is drawn: it takes a third of a second that commands without
pictures need not wait. `pyplot` and the reader's own matplotlibrc stay out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report.tables import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Told apart with every kind of colour vision (Okabe and Ito, "Color Universal Design", 2008).
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
YELLOW = "#F0E442"
INK, FAINT, EDGE = "#333333", "#999999", "#E5E5E5"
CLASSES = (*COLOURS, YELLOW, INK)  # colours of up to eight classes

GRID = 128  # places a pixel
# Where a cell of it begins: away from what is laid out in whole, halves or thirds of pixels.
OFFSET = 0.3183

LOOK = {
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 120,
    "font.size": 10,
    "grid.color": EDGE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 120,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Hand out an empty figure and write it as PNG when the block ends well.

    Args:
        path: Of the PNG file. width, height: In inches, 120 pixels each.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", LOOK]):
        figure = Figure(figsize=(width, height))
        yield figure
        settle(figure)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())


def settle(figure: Figure) -> None:
    """Lay a figure out, once and for all, on a grid finer than its pixels.

    The solver of the layout adds in an order that depends on addresses, which changes the last bits
    of positions, and from time to time on which pixel a text lies.
    """
    engine = figure.get_layout_engine()
    assert engine is not None, "LOOK asks for one"
    engine.execute(figure)
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        place = part.bbox_relative
        place.p0, place.p1 = _snap(place.p0, figure), _snap(place.p1, figure)
    for axes in figure.axes:
        place = axes.get_position(original=True)
        start, end = _snap(place.p0, figure), _snap(place.p1, figure)
        axes.set_position((*start, end[0] - start[0], end[1] - start[1]))


def _snap(point: np.ndarray, figure: Figure) -> tuple[float, float]:
    """Move a point, in shares of the figure or of a part of it, by a hundredth of a pixel."""
    width, height = (float(side) for side in figure.bbox.size * GRID)
    x, y = (float(share) for share in point)
    return math.floor(x * width + OFFSET) / width, math.floor(y * height + OFFSET) / height


def short_numbers(axis: Axis) -> None:
    """Label an axis 0, 5k, 10k, 1M."""
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


def class_colours(classes: int) -> list[Any]:
    """A colour for each class, told apart with every kind of colour vision."""
    if classes <= len(CLASSES):
        return list(CLASSES[:classes])
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 1.0, classes)))


def say(axes: Axes, text: str) -> None:
    """Write a sentence where a picture has nothing to show."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=FAINT, transform=axes.transAxes)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])


def placard(path: Path, text: str) -> None:
    """Write a picture that only says why there is nothing to show, so that it exists all the same.

    Args:
        path: Of the PNG file. text: One line.
    """
    with picture(path, 7.0, 0.6) as figure:
        axes = figure.subplots()
        say(axes, text)
        axes.spines[:].set_visible(False)


def show_image(axes: Axes, image: np.ndarray, **style: Any) -> None:  # noqa: ANN401
    """Fill axes with an image (height, width[, channels]); `style` goes to `imshow`."""
    if image.ndim == 3 and image.shape[2] != 3:
        image = image[..., -1]  # one channel, or a stack of which the last is the newest
        style = {"cmap": "gray", "vmin": 0, "vmax": 255} | style
    axes.imshow(image, **style)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=EDGE)
