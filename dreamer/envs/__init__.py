"""Environments as rows: any Gymnasium id, dm_control and MiniGrid behind one step convention."""

from dreamer.envs.episode import EpisodeStats, episode_seed
from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.spaces import spec_of
from dreamer.envs.vector import VectorEnv

__all__ = ["EnvConfig", "EpisodeStats", "VectorEnv", "episode_seed", "make_env", "spec_of"]
