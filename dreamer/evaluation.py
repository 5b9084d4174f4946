"""Play whole episodes with a frozen agent, on environments and noise of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import numpy as np

from dreamer.agent import Agent
from dreamer.envs.episode import EpisodeStats
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.nn.noise import Noise
from dreamer.types import EnvError, Policy, Rows
from dreamer.world_model.model import MultimodalWorldModel

Watch = Callable[[Rows, np.ndarray, Agent], None]


def play_episodes(
    model: MultimodalWorldModel,
    policy: Policy,
    env: EnvConfig,
    *,
    episodes: int,
    seed: int,
    choice: Literal["sample", "mode"],
    withheld: Collection[str] = (),
    watch: Watch | None = None,
) -> list[EpisodeStats]:
    """Play a fixed set of episodes: the first ones of each environment, so that short ones are not
    preferred. Nothing of the training (buffer, normalisers, noise) is touched.

    Args:
        env: `num_envs` environments play side by side.
        episodes: How many episodes count.
        seed: Of the episodes and of the action noise.
        choice: `sample` actions or take the `mode`.
        withheld: Modalities that the agent must do without.
        watch: Called with every row, the action chosen there and the agent.

    Returns:
        One entry per episode, ordered by environment and episode.

    Raises:
        EnvError: The environment has other spaces than the one that the model learned from.
    """
    envs = VectorEnv(env, seed)
    if envs.spec != model.spec:
        envs.close()
        allowed = f"{model.spec.words}, which the agent was trained for"
        raise EnvError(f"{env.id}: found {envs.spec.words}; allowed: {allowed}")
    noise = Noise(seed, next(model.parameters()).device)
    agent = Agent(
        model, policy, envs.num_envs, noise, stream="evaluate", choice=choice, withheld=withheld
    )
    quota = [len(range(index, episodes, envs.num_envs)) for index in range(envs.num_envs)]
    finished: list[EpisodeStats] = []
    rows, step = envs.reset(), 0
    while len(finished) < episodes:
        action = agent.act(rows, step)
        if watch is not None:
            watch(rows, action, agent)
        rows, step = envs.step(action), step + 1
        finished += [e for e in envs.pop_finished() if e.episode < quota[e.env]]
    envs.close()
    return sorted(finished, key=lambda e: (e.env, e.episode))


def mean_return(episodes: list[EpisodeStats]) -> float:
    """Mean undiscounted return."""
    return float(np.mean([episode.ret for episode in episodes]))
