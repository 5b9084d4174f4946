"""Agents to serve: of random weights that lean somewhere, and an environment to play."""

from __future__ import annotations

from pathlib import Path

from builders import generator, policy_config, world_config

from dreamer.envs.make import EnvConfig
from dreamer.intrinsic.rewards import make_behavior
from dreamer.saved_agent import save_agent
from dreamer.types import EnvSpec
from dreamer.world_model.model import MultimodalWorldModel


def env_config(name="CartPole-v1"):
    """One environment."""
    return EnvConfig(
        id=name,
        num_envs=1,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )


def save(folder: Path, spec: EnvSpec, seed=1, env="CartPole-v1", **policy) -> Path:
    """An agent whose weights lean somewhere, so that a wrong input would change what it does."""
    model = MultimodalWorldModel(spec, world_config(), seed)
    behavior, rewards = make_behavior(model, policy_config(**policy), None, seed)
    source = generator(seed)
    for module in (model, behavior):
        for weight in module.parameters():
            weight.data.normal_(0.0, 0.3, generator=source)
    save_agent(folder, model, behavior, rewards, env_config(env), {})
    return folder
