"""A trained agent as files: weights, what it was built from, and how it came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer import checkpoint
from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.behavior.learner import ActorCritic
from dreamer.envs.make import EnvConfig
from dreamer.types import CheckpointError, EnvSpec
from dreamer.world_model.model import MultimodalWorldModel, WorldModelConfig
from dreamer.world_model.rssm import SIZES


class SavedAgent(NamedTuple):
    """Everything needed to act, and the facts stored beside the weights."""

    model: MultimodalWorldModel
    behavior: ActorCritic
    env: EnvConfig
    facts: dict[str, Any]


def save_agent(
    directory: Path,
    model: MultimodalWorldModel,
    behavior: ActorCritic,
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
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"behavior.{name}": value for name, value in behavior.state_dict().items()}
    meta = {
        "kind": "agent",
        "spec": model.spec.to_json(),
        "env": asdict(env),
        "world_model": asdict(model.config),
        "policy": asdict(behavior.config),
        "facts": dict(facts),
    }
    checkpoint.write(directory, tensors, meta)


def load_agent(directory: Path, device: torch.device) -> SavedAgent:
    """Read an agent.

    Raises:
        CheckpointError: If it is missing, damaged, or no agent.
    """
    tensors, meta = checkpoint.read(directory, device)
    if meta.get("kind") != "agent":
        raise CheckpointError(f"{directory}: found {meta.get('kind')!r}, needed an agent")
    spec = EnvSpec.from_json(meta["spec"])
    world_model = WorldModelConfig(**meta["world_model"])
    policy = PolicyConfig(**meta["policy"])
    model = MultimodalWorldModel(spec, world_model, seed=0).to(device)
    units = SIZES[world_model.size].units
    behavior = ActorCritic(model.feat_dim, units, spec.action, policy, seed=0).to(device)
    _load(directory, model, "model.", tensors)
    _load(directory, behavior, "behavior.", tensors)
    env = meta["env"]
    if isinstance(env["active_modalities"], list):
        env["active_modalities"] = tuple(env["active_modalities"])
    return SavedAgent(model, behavior, EnvConfig(**env), meta["facts"])


def _load(
    directory: Path, module: torch.nn.Module, prefix: str, tensors: Mapping[str, torch.Tensor]
) -> None:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{directory}: the weights are of another shape: {reason}") from None
