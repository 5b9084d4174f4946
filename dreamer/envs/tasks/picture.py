"""Pictures of gridworlds: one coloured square a cell, and a smaller one for the agent."""

from __future__ import annotations

import numpy as np

Cell = tuple[int, int]  # (row, column)
Colour = tuple[int, int, int]

WIDTH = 256  # pixels along the longer side, about
SMALLEST = 8  # pixels a cell

FLOOR: Colour = (238, 238, 232)
WALL: Colour = (96, 100, 108)
AGENT: Colour = (20, 20, 24)
GOAL: Colour = (46, 160, 67)
GOLD: Colour = (224, 168, 24)
PIT: Colour = (140, 32, 40)


def draw(colours: np.ndarray, agent: Cell | None) -> np.ndarray:
    """Draw a grid.

    Args:
        colours: (rows, columns, 3) uint8.
        agent: Where to draw the agent, if anywhere.

    Returns:
        (rows * p, columns * p, 3) uint8 with p >= 8 pixels a cell.
    """
    pixels = max(SMALLEST, WIDTH // max(colours.shape[:2]))
    picture = colours.repeat(pixels, 0).repeat(pixels, 1)
    # A line between cells, so that they can be counted.
    picture[::pixels] = picture[::pixels] // 8 * 7
    picture[:, ::pixels] = picture[:, ::pixels] // 8 * 7
    if agent is not None:
        top, left = agent[0] * pixels, agent[1] * pixels
        margin = pixels // 4
        inner = slice(top + margin, top + pixels - margin + 1)
        picture[inner, left + margin : left + pixels - margin + 1] = AGENT
    return picture
