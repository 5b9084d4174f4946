"""Which curves of a training are shown, and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.page.chart import WIDE, Band, Line, line_chart
from pipeline.report.curves import TRAINING, VALIDATION, mean_and_spread, series
from pipeline.report.reading import Row

STEPS, UPDATES = "env_step", "update"


class Chart(NamedTuple):
    """A drawn chart: its title, the SVG, and name and colour of each curve."""

    title: str
    svg: str
    key: tuple[tuple[str, str], ...]


WORLD = {
    "world/recon_loss": "reconstruction",
    "world/kl_loss": "KL",
    "world/reward_loss": "reward",
    "world/cont_loss": "continue",
}
# Title -> column -> name; a chart whose columns are missing is left out.
PRETRAINING = {"World model, pretraining": WORLD}
DURING = {
    "World model, in training": WORLD,
    "Imagined return": {"policy/return": "return", "policy/value": "critic's estimate"},
    "Entropy": {"policy/entropy": "policy", "manager/entropy": "manager"},
    "Share of actions clipped": {
        "policy/clip_fraction": "policy",
        "manager/clip_fraction": "manager",
    },
    "Curiosity and empowerment, raw": {
        "reward/icm/raw": "curiosity",
        "reward/empowerment/raw": "empowerment",
    },
    "Curiosity: losses": {
        "icm/forward_loss": "forward model",
        "icm/inverse_loss": "inverse model",
    },
    "Goals: reconstruction of states": {"goal/reconstruction": "error"},
    "Goals: codes in use (perplexity)": {"goal/code_perplexity": "codes"},
    "Learning rates": {
        "meta/lr_world": "world model",
        "meta/lr": "actor",
        "meta/lr_manager": "manager",
        "meta/lr_critic": "critics",
    },
}


def returns_chart(
    trainings: Mapping[str, Sequence[Row]], metrics: Sequence[Row]
) -> Iterator[Chart]:
    """Draw validation returns: of one training beside its own episodes, of several with their band.

    Args:
        trainings: Name -> rows with `validation/return`, the training at hand first.
        metrics: Rows of the training at hand with `episode/return`.
    """
    found = {name: series(rows, STEPS, VALIDATION) for name, rows in trainings.items()}
    found = {name: line for name, line in found.items() if len(line[0])}
    if not found:
        return
    if len(found) == 1:
        lines = [Line("validation", *next(iter(found.values())), dots=True)]
        steps, returns = series(metrics, STEPS, TRAINING)
        lines += [Line("training, last 20 episodes", steps, returns)] if len(steps) else []
        yield _returns("Return per episode", lines, None)
        return
    lines = [Line(name, *line) for name, line in found.items()]
    steps, mean, spread = mean_and_spread([np.stack(line).T for line in found.values()])
    band = Band(steps, mean - spread, mean + spread) if len(steps) else None
    lines += [Line("mean, band of 1 std", steps, mean, mean=True)] if len(steps) else []
    yield _returns("Validation return per episode", lines, band)


def charts(
    plan: Mapping[str, Mapping[str, str]], rows: Sequence[Row], x: str, x_label: str
) -> Iterator[Chart]:
    """Draw what a plan names and the rows hold."""
    for title, columns in plan.items():
        lines = [Line(name, *series(rows, x, column)) for column, name in columns.items()]
        lines = [line for line in lines if np.isfinite(line.y).any()]
        if lines:
            yield Chart(title, line_chart(lines, x_label), _key(lines))


def _returns(title: str, lines: Sequence[Line], band: Band | None) -> Chart:
    svg = line_chart(lines, "environment steps", width=WIDE, log=False, band=band)
    return Chart(title, svg, _key(lines))


def _key(lines: Sequence[Line]) -> tuple[tuple[str, str], ...]:
    return tuple((line.name, line.colour(number)) for number, line in enumerate(lines))
