"""A trained agent as files: weights, what it was built from, and how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer import checkpoint
from dreamer.behavior.actor_critic import PolicyConfig, WorkerWeights
from dreamer.behavior.hierarchy import HierarchicalPPO
from dreamer.envs.make import EnvConfig
from dreamer.intrinsic.empowerment import EmpowermentConfig
from dreamer.intrinsic.icm import ICMConfig
from dreamer.intrinsic.rewards import IntrinsicConfig, IntrinsicRewards, make_behavior
from dreamer.modalities.audio import AudioConfig
from dreamer.modalities.text import TextConfig
from dreamer.types import CheckpointError, EnvSpec
from dreamer.world_model.model import MultimodalWorldModel, WorldModelConfig


class SavedAgent(NamedTuple):
    """Everything needed to act, and the facts stored beside the weights."""

    model: MultimodalWorldModel
    behavior: HierarchicalPPO
    intrinsic: IntrinsicRewards
    env: EnvConfig
    facts: dict[str, Any]


def save_agent(
    directory: Path,
    model: MultimodalWorldModel,
    behavior: HierarchicalPPO,
    intrinsic: IntrinsicRewards,
    env: EnvConfig,
    facts: Mapping[str, Any],
) -> None:
    """Write an agent atomically, equal bytes for equal weights.

    Args:
        directory: Folder to create or replace.
        facts: JSON values to keep beside the weights (steps, validation return).

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    parts = {"model": model, "behavior": behavior, "intrinsic": intrinsic}
    tensors = {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    meta = {
        "kind": "agent",
        "spec": model.spec.to_json(),
        "env": asdict(env),
        "world_model": asdict(model.config),
        "policy": asdict(behavior.config),
        "intrinsic": None if intrinsic.config is None else asdict(intrinsic.config),
        "facts": dict(facts),
    }
    checkpoint.write(directory, tensors, meta)


def load_agent(directory: Path, device: torch.device) -> SavedAgent:
    """Read an agent.

    Raises:
        CheckpointError: If it is missing, damaged, no agent, or one of another version of this
            program, whose configuration had other keys.
    """
    tensors, meta = checkpoint.read(directory, device)
    if meta.get("kind") != "agent":
        raise CheckpointError(f"{directory}: found {meta.get('kind')!r}, needed an agent")
    try:
        spec, env = EnvSpec.from_json(meta["spec"]), EnvConfig(**meta["env"])
        world_model, policy = _world_model(meta["world_model"]), _policy(meta["policy"])
        rewards = _intrinsic(meta["intrinsic"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory}: the agent was saved by another version of this program: {error}"
        ) from None
    model = MultimodalWorldModel(spec, world_model, seed=0).to(device)
    behavior, intrinsic = make_behavior(model, policy, rewards, seed=0)
    _load(directory, model, "model.", tensors)
    _load(directory, behavior, "behavior.", tensors)
    _load(directory, intrinsic, "intrinsic.", tensors)
    return SavedAgent(model, behavior, intrinsic, env, meta["facts"])


def _world_model(raw: Mapping[str, Any]) -> WorldModelConfig:
    own = {"text": TextConfig(**raw["text"]), "audio": AudioConfig(**raw["audio"])}
    return WorldModelConfig(**{**raw, **own})


def _policy(raw: Mapping[str, Any]) -> PolicyConfig:
    return PolicyConfig(**{**raw, "worker": WorkerWeights(**raw["worker"])})


def _intrinsic(raw: Mapping[str, Any] | None) -> IntrinsicConfig | None:
    if raw is None:
        return None
    empowerment = EmpowermentConfig(**raw["empowerment"])
    return IntrinsicConfig(icm=ICMConfig(**raw["icm"]), empowerment=empowerment)


def _load(
    directory: Path, module: torch.nn.Module, prefix: str, tensors: Mapping[str, torch.Tensor]
) -> None:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{directory}: the weights are of another shape: {reason}") from None
