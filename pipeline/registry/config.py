"""What `dreamer promote` demands, from the section `promote` of `params.yaml`.

Returns mean something in one environment only, so the demands name theirs and are never applied to
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dreamer.types import ConfigError, check_range
from pipeline.params import EvaluateConfig, Params, Raw, build, from_raw, leaves, load_raw

LARGEST_SEED = 2**31 - 1
LARGEST = 1e12  # of a return
SEEDS = ("seed", "train.eval_seed", "evaluate.seed", "tune.evaluate_seed")
LISTS_OF_SEEDS = ("tune.seeds", "tune.final_seeds")


@dataclass(frozen=True, kw_only=True)
class PromoteConfig:
    """When a challenger becomes champion.

    Attributes:
        env: Environment that the numbers are of. floor: Least mean return of a champion.
        tolerance: How much worse than the champion the challenger may be at the lower end of the
            interval of the mean difference, as a return; 0 asks for a shown improvement.
        confidence: Of the interval. seed: Of the episodes and of the bootstrap.
    """

    env: str
    floor: float
    tolerance: float
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("floor", self.floor, -LARGEST, LARGEST)
        check_range("tolerance", self.tolerance, 0.0, LARGEST)
        check_range("confidence", self.confidence, 0.5, 0.9999)
        check_range("seed", self.seed, 0, LARGEST_SEED)


class Demands(NamedTuple):
    """What a challenger must meet.

    Attributes:
        path: Where it is said. params: Of the same file; its device and threads are used.
        gate: The section `promote`. playing: As in `evaluate`, with the seed of the gate.
    """

    path: Path
    params: Params
    gate: PromoteConfig
    playing: EvaluateConfig


def promote_config(raw: Raw) -> PromoteConfig:
    """Build the section `promote`, and check what it demands of the others.

    Raises:
        ConfigError: With the dotted key.
    """
    if "promote" not in raw:
        raise ConfigError("promote", "no such section", "the section `promote` in params.yaml")
    config, flat = build(PromoteConfig, raw["promote"], "promote"), dict(leaves(raw))
    used = {key: {flat[key]} for key in SEEDS if key in flat}
    used |= {key: set(flat[key]) for key in LISTS_OF_SEEDS if key in flat}
    for key, seeds in used.items():
        if config.seed in seeds:
            allowed = f"another one than {key}: nothing may have seen the episodes of the gate"
            raise ConfigError("promote.seed", config.seed, allowed)
    return config


def demands_for(env: str, paths: Sequence[Path]) -> Demands:
    """Demands of the first file whose section `promote` is about an environment.

    Args:
        env: Its id. paths: Files of parameters; the first one must have the section.

    Raises:
        ConfigError: None of them is, or one of them is wrong.
    """
    found = []
    for number, path in enumerate(paths):
        raw = load_raw(path)
        if number and "promote" not in raw:  # a training older than the section
            continue
        gate = promote_config(raw)
        if gate.env == env:
            return _demands(path, raw, gate)
        found.append(gate.env)
    allowed = f"{env}, the environment of the agent, with its own promote.floor, in {paths[0]}"
    raise ConfigError("promote.env", " and ".join(dict.fromkeys(found)), allowed)


def _demands(path: Path, raw: Raw, gate: PromoteConfig) -> Demands:
    params = from_raw(raw)
    how = params.evaluate
    if how.episodes < 2:
        raise ConfigError("evaluate.episodes", how.episodes, "at least 2, for an interval")
    playing = EvaluateConfig(
        episodes=how.episodes, num_envs=how.num_envs, policy=how.policy, seed=gate.seed
    )
    return Demands(path, params, gate, playing)
