"""One look for all pictures, and PNG files with the same bytes for the same content.

matplotlib is imported when a picture is drawn: it takes a third of a second that commands without
pictures need not wait. `pyplot` and the reader's own matplotlibrc stay out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.report.tables import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Told apart with every kind of colour vision (Okabe and Ito, "Color Universal Design", 2008).
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
INK, FAINT, EDGE = "#333333", "#999999", "#E5E5E5"

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
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())


def short_numbers(axis: Axis) -> None:
    """Label an axis 0, 5k, 10k, 1M."""
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


def say(axes: Axes, text: str) -> None:
    """Write a sentence where a picture has nothing to show."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=FAINT, transform=axes.transAxes)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
