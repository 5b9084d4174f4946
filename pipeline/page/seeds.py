"""The same training with other seeds, as the stage `seeds` found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dreamer.types import DataError
from pipeline.page.evaluation import Evaluation, evaluations
from pipeline.page.sources import Source
from pipeline.report.reading import Row, read_json, read_rows
from pipeline.stages.session import Workspace

KEYS = ("count", "return", "return_std", "return_min", "return_max")


class Variation(NamedTuple):
    """Mean returns of the agents of all seeds.

    Attributes:
        seeds: How many. mean, std, lowest, highest: Over them, one number each.
    """

    seeds: int
    mean: float
    std: float
    lowest: float
    highest: float


def variation(workspace: Workspace) -> Variation | None:
    """Figures over the seeds; None where there is one seed alone.

    Raises:
        DataError: A figure is missing or no number.
    """
    path = workspace.reports("seeds") / "metrics.json"
    figures = read_json(path)
    if not figures:
        return None
    try:
        count, *others = (float(figures[f"seeds/{key}"]) for key in KEYS)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: found no number for {error}") from error
    return Variation(int(count), *others)


def other_curves(source: Source) -> dict[str, list[Row]]:
    """Name of every seed but that of the training itself -> its validations."""
    curves: dict[str, list[Row]] = {}
    for row in read_rows(source.workspace.reports("seeds") / "validation.csv"):
        if "seed" in row and row["seed"] != source.flat.get("seed"):
            curves.setdefault(f"seed {row['seed']:.0f}", []).append(row)
    return curves


def other_evaluations(source: Source) -> Iterator[Evaluation]:
    """Evaluation of the best agent of every seed but that of the training itself."""
    path = source.workspace.reports("seeds") / "evaluations.json"
    for seed, figures in read_json(path).items():
        if seed != str(source.flat.get("seed")):
            yield from (e._replace(agent=f"seed {seed}") for e in _best(figures, f"{path}"))


def _best(figures: object, path: str) -> list[Evaluation]:
    if not isinstance(figures, dict):
        raise DataError(f"{path}: found a {type(figures).__name__}; allowed: figures of each seed")
    return list(evaluations(figures, path))[:1]
