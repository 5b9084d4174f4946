"""Environments as rows: any Gymnasium id, dm_control and MiniGrid behind one step convention."""

from dreamer.envs.make import EnvConfig, make_env
from dreamer.envs.spaces import spec_of
from dreamer.envs.vector import EpisodeStats, VectorEnv, episode_seed

__all__ = ["EnvConfig", "EpisodeStats", "VectorEnv", "episode_seed", "make_env", "spec_of"]
