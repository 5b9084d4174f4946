"""How good the agents are: figures of the stage `evaluate` with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dreamer.types import DataError

PREFIXES = {"best by validation": "", "last": "last/"}
RETURN = "episode/return"


class Evaluation(NamedTuple):
    """Undiscounted returns of one agent.

    Attributes:
        agent: Which. episodes: How many. mean, std, lowest, highest: Of their returns.
        low, high: 95 percent bootstrap interval of the mean. length: Mean of agent steps.
        scores: Other means that the environment gives.
    """

    agent: str
    episodes: int
    mean: float
    std: float
    lowest: float
    highest: float
    low: float
    high: float
    length: float
    scores: dict[str, float]


def evaluations(figures: Mapping[str, Any], path: str) -> Iterator[Evaluation]:
    """Read what `reports/evaluate/metrics.json` holds; nothing of an empty mapping.

    Raises:
        DataError: A figure is missing or no number.
    """
    for agent, prefix in PREFIXES.items():
        if f"{prefix}{RETURN}" in figures:
            try:
                yield _evaluation(agent, prefix, figures)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}: found no number for {error}") from error


def _evaluation(agent: str, prefix: str, figures: Mapping[str, Any]) -> Evaluation:
    def of(name: str) -> float:
        return float(figures[f"{prefix}{RETURN}{name}"])

    start = f"{prefix}episode/"
    known = {"return", "length", "count"}
    names = [key.removeprefix(start) for key in figures if key.startswith(start)]
    scores = [name for name in names if name not in known and not name.startswith("return_")]
    return Evaluation(
        agent=agent,
        episodes=int(figures[f"{start}count"]),
        mean=of(""),
        std=of("_std"),
        lowest=of("_min"),
        highest=of("_max"),
        low=of("_ci_low"),
        high=of("_ci_high"),
        length=float(figures[f"{start}length"]),
        scores={name: float(figures[f"{start}{name}"]) for name in sorted(scores)},
    )
