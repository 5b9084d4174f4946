"""What `dreamer tune` is told in the section `tune` of `params.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dreamer.types import ConfigError, check_range
from pipeline.params import Raw, build

LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Range:
    """All numbers from `low` to `high`; whole ones if both bounds are.

    Attributes:
        log: Whether equal factors, instead of equal differences, are equally likely.
    """

    low: int | float
    high: int | float
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        if not self.low < self.high:
            raise ConfigError("high", self.high, f"above low, {self.low}")
        if self.log and self.low <= 0:
            raise ConfigError("low", self.low, "above 0, for log: true")


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """What is searched, how, and how its outcome is checked.

    Attributes:
        space: Dotted key of a parameter -> values, or a range.
        search: Every combination of the values, or Optuna's tree-structured Parzen estimator.
        trials: How many in all, the first with the parameters as they are.
        seeds: A trial is one training with each. evaluate_seed: Of the episodes that judge it.
        objective: Figure of the evaluation whose mean over the seeds shall be high.
        prune_below: Share of sign flips, see `pipeline.tune.pairs`, below or at which a trial is
            given up; 0 for never.
        sampler_seed: Of the search.
        finalists: How many of the best trials are trained again. final_seeds: With which seeds.
    """

    space: dict[str, list[Any] | Range]
    search: Literal["grid", "tpe"]
    trials: int
    seeds: tuple[int, ...]
    objective: str
    evaluate_seed: int
    prune_below: float
    sampler_seed: int
    finalists: int
    final_seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("trials", self.trials, 1, 10**6)
        check_range("evaluate_seed", self.evaluate_seed, 0, LARGEST_SEED)
        check_range("prune_below", self.prune_below, 0.0, 0.5)
        check_range("sampler_seed", self.sampler_seed, 0, LARGEST_SEED)
        check_range("finalists", self.finalists, 1, 1000)
        for name, seeds in (("seeds", self.seeds), ("final_seeds", self.final_seeds)):
            if not seeds or len(set(seeds)) < len(seeds):
                raise ConfigError(name, list(seeds), "at least one seed, each once")
            for seed in seeds:
                check_range(name, seed, 0, LARGEST_SEED)
        if both := sorted({*self.seeds} & {*self.final_seeds}):
            raise ConfigError("final_seeds", both, "seeds that tuning has not seen (tune.seeds)")


def tune_config(raw: Raw) -> TuneConfig:
    """Build the section `tune`, and check what it demands of the others.

    Raises:
        ConfigError: With the dotted key.
    """
    if "tune" not in raw:
        raise ConfigError("tune", "no such section", "the section `tune` in params.yaml")
    config = build(TuneConfig, raw["tune"], "tune")
    if raw["seed"] not in config.final_seeds:
        allowed = f"seeds with `seed`, {raw['seed']}, among them: `dvc repro` repeats its figure"
        raise ConfigError("tune.final_seeds", list(config.final_seeds), allowed)
    if raw["evaluate"]["seed"] == config.evaluate_seed:
        allowed = "another one than evaluate.seed, whose episodes tuning must not see"
        raise ConfigError("tune.evaluate_seed", config.evaluate_seed, allowed)
    return config
