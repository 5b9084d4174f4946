"""Stage `collect`: random play, stored as whole episodes. Reads env, collect; writes
data/episodes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dreamer.agent import random_action
from dreamer.envs.vector import VectorEnv
from dreamer.nn.noise import Noise
from dreamer.replay.episodes import split_episodes, write_episodes
from dreamer.types import Rows
from pipeline.params import Params
from pipeline.stages.command import main
from pipeline.stages.session import Session

SHARD_BYTES = 64 * 2**20
POLICIES = {"random": random_action}


def run(params: Params, session: Session) -> None:
    """Collect `collect.steps` rows over all environments."""
    # A stream of its own: training continues with other episodes than these.
    env = VectorEnv(params.env, Noise(params.seed, torch.device("cpu")).child("collect"))
    rows = play(env, params, session)
    write_episodes(session.workspace.episodes, split_episodes(rows), env.spec, SHARD_BYTES)
    env.close()


def play(env: VectorEnv, params: Params, session: Session) -> Iterator[Rows]:
    """Yield rows with the action taken at each; stops when a signal asks for it."""
    choose = POLICIES[params.collect.policy]
    noise = Noise(params.seed, torch.device("cpu"))
    rows = env.reset()
    for step in range(-(-params.collect.steps // env.num_envs)):
        if session.scratch.stop_requested:
            raise session.scratch.interrupted()
        action = choose(env.spec.action, env.num_envs, noise, step)
        action[rows["is_last"]] = 0.0
        yield {**rows, "action": action}
        rows = env.step(action)


if __name__ == "__main__":
    main("collect", run)
