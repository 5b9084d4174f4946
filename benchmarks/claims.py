"""What this project claims to learn, and how rows of finished runs decide it.

A row is what `benchmarks.evidence_rows` writes. Nothing here is a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What runs of one preset have to show.

    Attributes:
        preset: Name in `presets/`. seeds: One run each.
        text: The claim in words, without numbers that the thresholds hold.
        mean: Least mean over the seeds of what the best agents return.
        each: Least return of every single best agent, or None.
        ending: Least mean over the seeds of each run's last three validations, or None.
    """

    preset: str
    seeds: tuple[int, ...]
    text: str
    mean: float
    each: float | None = None
    ending: float | None = None


MATRIX = (
    Claim(
        preset="cartpole",
        seeds=(0, 1, 2, 3, 4),
        text="Every seed learns to keep the pole up, and the agents stay good until the end.",
        mean=475.0,
        each=450.0,
        ending=400.0,
    ),
    Claim(
        preset="pendulum",
        seeds=(0, 1, 2),
        text="The pendulum is swung up and held, with a continuous torque.",
        mean=-300.0,
    ),
    Claim(
        preset="dmc_cartpole_balance",
        seeds=(0, 1, 2),
        text="A continuous force keeps the pole of dm_control upright.",
        mean=600.0,
    ),
    Claim(
        preset="minigrid_empty",
        seeds=(0, 1, 2),
        text="The goal is found from pixels, by the short way: each step costs reward.",
        mean=0.9,
    ),
)


class Condition(NamedTuple):
    """One threshold of a claim: what was found (None without rows) and what is needed."""

    text: str
    found: float | None
    needed: float

    @property
    def met(self) -> bool:
        """Whether enough was found."""
        return self.found is not None and self.found >= self.needed


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds (0 for a single one)."""

    mean: float
    std: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of one number per seed; at least one."""
    array = np.asarray(values, np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0)


def best_returns(rows: Sequence[Row]) -> list[float]:
    """Mean return of each run's best agent."""
    return [float(row["best"]["return"]) for row in rows]


def last_returns(rows: Sequence[Row]) -> list[float]:
    """Mean return of each run's last agent."""
    return [float(row["last"]["return"]) for row in rows]


def endings(rows: Sequence[Row]) -> list[float]:
    """Mean of each run's last three validations."""
    return [float(row["last_validations"]) for row in rows]


def conditions(claim: Claim, rows: Sequence[Row], untaught: float | None) -> list[Condition]:
    """Compare the rows of a claim's preset with its thresholds.

    Args:
        rows: Of the finished runs. untaught: The best mean return that needs no learning, if it was
            measured; a threshold below it would show nothing.
    """
    best = best_returns(rows)
    found = [Condition("mean of the best agents", spread(best).mean if best else None, claim.mean)]
    if untaught is not None:
        found.append(
            Condition("the same, against what needs no learning", found[0].found, untaught)
        )
    if claim.each is not None:
        least = min(best) if best else None
        found.append(Condition("worst of the best agents", least, claim.each))
    if claim.ending is not None:
        ending = spread(endings(rows)).mean if rows else None
        found.append(Condition("mean of the last three validations", ending, claim.ending))
    return found


def verdict(claim: Claim, rows: Sequence[Row], untaught: float | None) -> str:
    """`met` or `not met` once every run is finished, until then `open`."""
    if len(rows) < len(claim.seeds):
        return "open"
    return (
        "met"
        if all(condition.met for condition in conditions(claim, rows, untaught))
        else "not met"
    )
