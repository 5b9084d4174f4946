"""Agents whose returns are written on them, demands on them, and a look into the registry."""

from __future__ import annotations

from pathlib import Path

from builders import policy_config, vector_spec, world_config

from dreamer.envs.make import EnvConfig
from dreamer.intrinsic.rewards import make_behavior
from dreamer.saved_agent import save_agent
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.commands.settings import write_params
from pipeline.params import load_raw, override
from pipeline.tracking.store import connect

ROOT = Path(__file__).parents[1]
NAME = "dreamer-CartPole-v1"


def demand(root: Path, **promote: object) -> None:
    """Write parameters of a project: a floor of 10, a tolerance of 2, four episodes."""
    values = {"floor": 10.0, "tolerance": 2.0} | promote
    changes = {f"promote.{key}": value for key, value in values.items()}
    changes |= {"evaluate.episodes": 4, "evaluate.num_envs": 2}
    write_params(root / "params.yaml", override(load_raw(ROOT / "params.yaml"), changes))


def save(folder: Path, skill: float, env: str = "CartPole-v1", size: int = 4) -> Path:
    """An agent with a fact, its skill."""
    config = EnvConfig(
        id=env,
        num_envs=2,
        action_repeat=1,
        active_modalities="all",
        optional_modalities=(),
        modalities={},
    )
    model = MultimodalWorldModel(vector_spec(size, discrete=(2,)), world_config(), 1)
    behavior, rewards = make_behavior(model, policy_config(), None, 1)
    save_agent(folder, model, behavior, rewards, config, {"skill": skill})
    return folder


class State:
    """What the registry of a project holds under a name.

    Attributes:
        aliases: Name -> version. tags: Version -> its tags.
    """

    def __init__(self, root: Path, name: str = NAME) -> None:
        client = connect(root)
        found = client.search_registered_models(f"name='{name}'")
        # MLflow gives numbers or texts.
        aliases = found[0].aliases if found else {}
        self.aliases = {alias: str(version) for alias, version in aliases.items()}
        versions = client.search_model_versions(f"name='{name}'")
        self.tags = {str(version.version): dict(version.tags) for version in versions}
