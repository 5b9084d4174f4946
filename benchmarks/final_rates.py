"""Where learning rates that tune themselves ended up: what a row tells of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamer.meta_gradient import MetaGradient
from dreamer.types import DataError
from pipeline.params import Raw, leaves

METRIC = "meta/lr"
STARTS = {  # metric of a rate -> the parameter that it starts from
    METRIC: "policy.actor_lr",
    f"{METRIC}_critic": "policy.critic_lr",
    f"{METRIC}_manager": "policy.actor_lr",
    f"{METRIC}_world": "world_model.world_lr",
}
NEAR = 3.0  # times the tuned rate, or a share of it
EDGE = 1e-6  # relative distance from a bound that is still on it


def final_rates(metrics: Path, raw: Raw, tuned: Raw) -> dict[str, dict[str, Any]]:
    """Judge the last logged value of every rate.

    Args:
        metrics: The table `metrics.csv` of training. raw: Parameters of the run.
        tuned: Those whose rates are known to be good: the preset's.

    Returns:
        Metric -> `tuned`, `start` and `final` rate, whether the final one lies `near` the tuned one
        (within three times), and whether it lies `on_bound`. Empty if no rate was logged.

    Raises:
        DataError: A rate that has no parameter.
    """
    own, good = dict(leaves(raw)), dict(leaves(tuned))
    return {
        name: judged(good[start], own[start], final)
        for name, final in last_logged(metrics).items()
        for start in [parameter(name, metrics)]
    }


def judged(tuned: float, start: float, final: float) -> dict[str, Any]:
    """One rate."""
    low, high = MetaGradient.LOWEST * (1 + EDGE), MetaGradient.HIGHEST * (1 - EDGE)
    return {
        "tuned": tuned,
        "start": start,
        "final": final,
        "near": tuned / NEAR <= final <= tuned * NEAR,
        "on_bound": not low < final < high,
    }


def parameter(metric: str, where: Path) -> str:
    """The parameter that a rate starts from."""
    if metric not in STARTS:
        raise DataError(f"{where}: found {metric}; allowed: {', '.join(STARTS)}")
    return STARTS[metric]


def last_logged(metrics: Path) -> dict[str, float]:
    """Last value of every column of rates."""
    with metrics.open(encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    last: dict[str, float] = {}
    for row in rows:
        last |= {key: float(value) for key, value in row.items() if is_rate(key) and value}
    return dict(sorted(last.items()))


def is_rate(column: str) -> bool:
    """Whether a column of metrics is a rate."""
    return column == METRIC or column.startswith(f"{METRIC}_")


def distance(rate: Mapping[str, Any]) -> float:
    """How many times the final rate is the tuned one, or the tuned one the final: 1 or more."""
    ratio = float(rate["final"]) / float(rate["tuned"])
    return max(ratio, 1.0 / ratio)
