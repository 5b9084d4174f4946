"""How much results vary with the seed: figures of all seeds, and the band of their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.report.canvas import placard
from pipeline.report.curves import VALIDATION, compare_seeds, mean_and_spread
from pipeline.report.tables import write_csv, write_json

# Figure of an evaluation -> its name here: of the agent that is delivered, and of the last one.
FIGURES = {"episode/return": "seeds/return", "last/episode/return": "seeds/last_return"}


class Repeat(NamedTuple):
    """One training among those that differ in the seed alone.

    Attributes:
        seed: Its seed. figures: Of its evaluation.
        curve: Environment step and mean return of every validation.
    """

    seed: int
    figures: Mapping[str, float]
    curve: Sequence[tuple[int, float]]


def variation(repeats: Sequence[Repeat]) -> dict[str, float]:
    """Figures over two or more seeds.

    Returns:
        `seeds/count`; `seeds/return`, the mean over the seeds of their mean returns, with its
        `_std` (of the sample, n - 1), `_min`, `_max` and, as `seeds/return/<seed>`, that of each;
        the same of `seeds/last_return`, the agents of the last step.
    """
    found: dict[str, float] = {"seeds/count": len(repeats)}
    for figure, name in FIGURES.items():
        values = np.asarray([repeat.figures[figure] for repeat in repeats], np.float64)
        found |= {
            name: float(values.mean()),
            f"{name}_std": float(values.std(ddof=1)),
            f"{name}_min": float(values.min()),
            f"{name}_max": float(values.max()),
        }
        found |= {f"{name}/{r.seed}": float(r.figures[figure]) for r in repeats}
    return found


def band(repeats: Sequence[Repeat]) -> list[dict[str, float]]:
    """Rows `env_step`, `mean`, `low` and `high`: mean of the curves and one deviation to each side.

    As far as every curve reaches; between its points a curve is a straight line.
    """
    lines = [np.asarray(repeat.curve, np.float64) for repeat in repeats]
    return [
        {"env_step": int(step), "mean": mean, "low": mean - spread, "high": mean + spread}
        for step, mean, spread in zip(*mean_and_spread(lines), strict=True)
    ]


def write_variation(folder: Path, repeats: Sequence[Repeat], title: str) -> dict[str, float]:
    """Write tables and picture of two or more seeds; return their figures."""
    figures = variation(repeats)
    write_json(folder / "metrics.json", figures)
    write_json(folder / "evaluations.json", {str(r.seed): r.figures for r in repeats})
    rows = [
        {"seed": r.seed, "env_step": step, VALIDATION: value}
        for r in repeats
        for step, value in r.curve
    ]
    write_csv(folder / "validation.csv", rows)
    write_csv(folder / "band.csv", band(repeats))
    compare_seeds(folder / "curves.png", {f"seed {r.seed}": r.curve for r in repeats}, title)
    return figures


def write_nothing(folder: Path) -> None:
    """Write the same files, empty, and a picture that says why, where there is one seed alone."""
    for name in ("metrics.json", "evaluations.json"):
        write_json(folder / name, {})
    for name in ("validation.csv", "band.csv"):
        write_csv(folder / name, [])
    placard(folder / "curves.png", "one seed alone (seeds.also: [])")
