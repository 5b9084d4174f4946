"""What `params.yaml` consists of, and what its sections demand of each other."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.envs.make import EnvConfig
from dreamer.intrinsic.rewards import IntrinsicConfig
from dreamer.loop import TrainConfig
from dreamer.meta_gradient import MetaConfig, MetaGradient
from dreamer.pretraining import PretrainConfig
from dreamer.replay.buffer import ReplayConfig
from dreamer.schedule import OptimizerConfig
from dreamer.types import ConfigError, check_range
from dreamer.world_model.imagination import ImaginationConfig
from dreamer.world_model.model import WorldModelConfig
from pipeline.params.builder import build
from pipeline.params.dotted import Raw, override
from pipeline.params.yaml_reader import load_raw

# Sections that say nothing about one training. Who reads one, a command or the stage `seeds`,
# builds and checks it.
APART = ("promote", "seeds", "tune")
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the machine is used.

    Attributes:
        threads: CPU threads of one operation; sums may differ in the last bit between counts.
        compile: Whether the costly pieces of a training update run through torch.compile; results
            differ by rounding.
    """

    threads: int
    compile: bool

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("threads", self.threads, 1, 256)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """The stage `collect`.

    Attributes:
        steps: Environment steps over all environments; a reset is a step.
        policy: Who acts.
    """

    steps: int
    policy: Literal["random"]

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("steps", self.steps, 1, 10**9)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """The stage `evaluate`.

    Attributes:
        episodes: Episodes played in all, `num_envs` of them at a time.
        policy: `sample` actions or take the `mode`.
        seed: Of the episodes and of the noise, apart from that of training.
    """

    episodes: int
    num_envs: int
    policy: Literal["sample", "mode"]
    seed: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("episodes", self.episodes, 1, 10**6)
        check_range("num_envs", self.num_envs, 1, 4096)
        check_range("seed", self.seed, 0, LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class SeedsConfig:
    """The stage `seeds`.

    Attributes:
        also: Seeds to train with beside `seed`; `seed` itself among them is not trained twice.
        workers: How many at a time; no bit depends on it.
    """

    also: tuple[int, ...]
    workers: int

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if len(set(self.also)) < len(self.also):
            raise ConfigError("also", list(self.also), "each seed once")
        for seed in self.also:
            check_range("also", seed, 0, LARGEST_SEED)
        check_range("workers", self.workers, 1, 1024)


@dataclass(frozen=True, kw_only=True)
class Params:
    """Everything in `params.yaml` about one training, one section per part that it configures."""

    seed: int
    device: Literal["cpu", "cuda", "auto"]
    runtime: RuntimeConfig
    env: EnvConfig
    collect: CollectConfig
    replay: ReplayConfig
    world_model: WorldModelConfig
    pretrain: PretrainConfig
    imagination: ImaginationConfig
    policy: PolicyConfig
    intrinsic: IntrinsicConfig
    meta: MetaConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    evaluate: EvaluateConfig

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("seed", self.seed, 0, LARGEST_SEED)


def validate(params: Params) -> Params:
    """Check what sections demand of each other; return the parameters.

    Raises:
        ConfigError: naming the key to change.
    """
    replay, rings, starts = params.replay, params.env.num_envs, params.imagination.starts
    # per environment: a window that ends before the write head, and its share of the batch
    rows = rings * (replay.seq_len + -(-replay.batch_size // rings))
    demands = {"replay.capacity": replay.capacity}
    if params.pretrain.updates:
        demands["collect.steps"] = params.collect.steps
    for key, found in demands.items():
        if found < rows:
            allowed = f"at least {rows}, for a batch of {replay.batch_size} sequences of"
            raise ConfigError(key, found, f"{allowed} {replay.seq_len} from {rings} environments")
    if params.train.env_steps < params.collect.steps:
        allowed = f"at least collect.steps, {params.collect.steps}, which it includes"
        raise ConfigError("train.env_steps", params.train.env_steps, allowed)
    if starts != "all" and starts > replay.seq_len:
        raise ConfigError("imagination.starts", starts, f"all, or 1 to {replay.seq_len} (seq_len)")
    per_sequence = replay.seq_len if starts == "all" else starts
    check_range(
        "policy.minibatches", params.policy.minibatches, 1, replay.batch_size * per_sequence
    )
    check_levels(params)
    check_rates(params)
    if params.evaluate.num_envs > params.evaluate.episodes:
        allowed = f"1 to {params.evaluate.episodes} (evaluate.episodes)"
        raise ConfigError("evaluate.num_envs", params.evaluate.num_envs, allowed)
    return params


def check_levels(params: Params) -> None:
    """Check what the hierarchy demands of the other sections.

    Raises:
        ConfigError: naming the key to change.
    """
    policy, intrinsic, horizon = params.policy, params.intrinsic, params.imagination.horizon
    options = intrinsic.empowerment.enabled and intrinsic.empowerment.kind == "option"
    if options and not policy.hierarchy:
        allowed = "action, or option with policy.hierarchy: true (the manager's goal codes)"
        raise ConfigError("intrinsic.empowerment.kind", "option", allowed)
    if not policy.hierarchy:
        return
    if horizon % policy.goal_every:
        fits = [k for k in range(1, horizon + 1) if horizon % k == 0]
        allowed = f"one of {fits}, which divide imagination.horizon, {horizon}"
        raise ConfigError("policy.goal_every", policy.goal_every, allowed)
    if options and policy.worker.empowerment:
        allowed = "0, because options are paid by intrinsic.empowerment.weight"
        raise ConfigError("policy.worker.empowerment", policy.worker.empowerment, allowed)
    enabled = {"icm": intrinsic.icm.enabled, "empowerment": intrinsic.empowerment.enabled}
    for name, on in enabled.items():
        weight = getattr(policy.worker, name)
        if weight and not on:
            allowed = f"0, or intrinsic.{name}.enabled: true"
            raise ConfigError(f"policy.worker.{name}", weight, allowed)


def check_rates(params: Params) -> None:
    """Check that rates which tune themselves start within their bounds.

    Raises:
        ConfigError: naming the key to change.
    """
    if not params.meta.enabled:
        return
    rates = {
        "world_model.world_lr": params.world_model.world_lr,
        "policy.actor_lr": params.policy.actor_lr,
        "policy.critic_lr": params.policy.critic_lr,
    }
    low, high = MetaGradient.LOWEST, MetaGradient.HIGHEST
    for key, rate in rates.items():
        if not low <= rate <= high:
            raise ConfigError(key, rate, f"{low:g} to {high:g} while meta.enabled")


def of_stages(raw: Raw) -> Raw:
    """Return the parameters of one training, without the sections that are about something else."""
    return {name: section for name, section in raw.items() if name not in APART}


def from_raw(raw: Raw) -> Params:
    """Build and validate the parameters of a training.

    The section `seeds` is checked, too, where there is one: its stage is the last to run, and its
    mistakes should not show only then.

    Raises:
        ConfigError: for every mistake, with the dotted key.
    """
    if "seeds" in raw:
        seeds_config(raw)
    return validate(build(Params, of_stages(raw)))


def seeds_config(raw: Raw) -> SeedsConfig:
    """Build the section `seeds`.

    Raises:
        ConfigError: for every mistake, with the dotted key.
    """
    if "seeds" not in raw:
        raise ConfigError("seeds", "no such section", "the section `seeds` in params.yaml")
    return build(SeedsConfig, raw["seeds"], "seeds")


def load_params(
    path: str | Path = "params.yaml", overrides: Mapping[str, Any] = types.MappingProxyType({})
) -> Params:
    """Read, override, build and validate the parameters.

    Args:
        path: The YAML file.
        overrides: Dotted key -> value.

    Raises:
        ConfigError: for every mistake, with the dotted key.
    """
    return from_raw(override(load_raw(path), overrides))
