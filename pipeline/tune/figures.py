"""What one training of a trial gives, whichever backend ran it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dreamer.types import ConfigError, DataError
from pipeline.params import Raw, of_stages, override
from pipeline.tune.space import Point


class Outcome(NamedTuple):
    """One training.

    Attributes:
        metrics: Figures of its evaluation. made: Stages that ran; others were there already.
        validation: Table of the validations on the way, None where it is not at hand.
        experiment: Name of the DVC experiment, None where it is none.
    """

    metrics: dict[str, float]
    made: tuple[str, ...]
    validation: Path | None
    experiment: str | None = None


def settings(point: Point, seed: int, evaluate_seed: int) -> Point:
    """Dotted key -> value of everything that one training of a trial changes."""
    return {**point, "seed": seed, "evaluate.seed": evaluate_seed}


def parameters(raw: Raw, changes: Mapping[str, object]) -> Raw:
    """Parameters of the stages with the changes."""
    return override(of_stages(raw), changes)


def read_metrics(path: Path) -> dict[str, float]:
    """Read the figures of an evaluation.

    Raises:
        DataError: They are missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: found no figures: {' '.join(str(error).split())}") from error


def objective(metrics: Mapping[str, float], name: str) -> float:
    """The figure that is searched for.

    Raises:
        ConfigError: There is none of this name.
    """
    if name not in metrics:
        raise ConfigError("tune.objective", name, f"one of {', '.join(sorted(metrics))}")
    return metrics[name]
