"""One picture per question: validation return of every variant, a panel per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.evidence_rows import Row
from benchmarks.question import Task
from benchmarks.question_page import Answer, repeat
from pipeline.report.canvas import COLOURS, FAINT, picture, say, short_numbers
from pipeline.report.curves import mean_and_spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("-", "--")  # a second round of colours is dashed


def draw_question(found: Answer, path: Path) -> None:
    """Draw every seed thin and the mean of each variant thick.

    Args:
        found: Rows of the question. path: Of the PNG file.
    """
    tasks = found.question.tasks
    with picture(path, 5.5 * len(tasks) + 1.5, 4.2) as figure:
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        figure.suptitle(found.question.text)
        for axes, task in zip(panels, tasks, strict=True):
            axes.set(xlabel="environment steps", ylabel="validation return")
            axes.set_title(task.random.stem)
            draw_task(axes, found, task)


def draw_task(axes: Axes, found: Answer, task: Task) -> None:
    """One panel."""
    for index, arm in enumerate(task.arms):
        lines = [curve(row) for row in found.of(task, arm)]
        look = COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
        draw_arm(axes, arm, lines, *look)
    if not axes.lines:
        say(axes, "no run is finished")
        return
    if row := found.random.get(task.random.stem):
        axes.axhline(row["random"]["return"], color=FAINT, lw=1.2, ls=":", label="random")
    short_numbers(axes.xaxis)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.18), ncols=3)


def draw_arm(axes: Axes, label: str, lines: Sequence[np.ndarray], colour: str, dashes: str) -> None:
    """Seeds and mean of one variant."""
    if not lines:
        return
    for line in lines:
        axes.plot(*line.T, color=colour, ls=dashes, lw=0.8, alpha=0.45)
    steps, mean = lines[0].T if len(lines) == 1 else mean_and_spread(lines)[:2]
    axes.plot(steps, mean, color=colour, ls=dashes, lw=2.2, label=f"{label} ({len(lines)})")


def curve(row: Row) -> np.ndarray:
    """(points, 2) environment step and validation return."""
    return np.asarray(row["validation"], np.float64) * np.array([repeat(row), 1.0])
