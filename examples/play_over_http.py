"""Play a real environment with an agent behind HTTP: `python -m examples.play_over_http --help`.

The server remembers nothing. What an agent knows of an episode travels as one text per environment,
which comes with each action and goes back with the next observation; "" starts an episode. At one
environment per request the episodes are those of `dreamer evaluate --episodes 1` with the same seed
and policy, to the digit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dreamer.envs.episode import EpisodeStats
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv


class RemoteAgent:
    """One connection to a server, `mlflow models serve` or `dreamer serve`.

    Args:
        url: Such as http://127.0.0.1:5001. policy: `mode` or `sample`. seed: Of the first row that
            starts an episode; row i starts with seed + i.
    """

    def __init__(self, url: str, policy: str, seed: int) -> None:
        self.connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.params = {"policy": policy, "seed": seed}

    def act(self, obs: dict[str, Any], states: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Ask for n actions.

        Args:
            obs: Observation key -> n rows, nested lists of numbers. states: n texts.

        Returns:
            (n, A) float32 and the texts for the next request.

        Raises:
            ValueError: The server refused; it says why.
        """
        request = {"inputs": obs | {"recurrent_state": list(states)}, "params": self.params}
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", "/invocations", json.dumps(request), headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status}: {body.decode()}")
        answer = json.loads(body)["predictions"]
        return np.array(answer["action"], np.float32), answer["recurrent_state"]


def play(url: str, env: EnvConfig, seeds: Sequence[int], policy: str) -> list[EpisodeStats]:
    """Play one episode per seed, side by side, all that are under way in one request.

    Args:
        env: With `num_envs` 1. seeds: Consecutive numbers, of the episodes and of their noise.
    """
    agent, envs = RemoteAgent(url, policy, seeds[0]), [VectorEnv(env, seed) for seed in seeds]
    with ExitStack() as stack:
        for each in (agent.connection, *envs):
            stack.callback(each.close)
        rows, states = [each.reset() for each in envs], [""] * len(envs)
        while there := [index for index, each in enumerate(envs) if not each.finished]:
            keys = envs[0].spec.obs
            obs = {key: np.concatenate([rows[i][key] for i in there]).tolist() for key in keys}
            actions, texts = agent.act(obs, [states[index] for index in there])
            for index, action, text in zip(there, actions, texts, strict=True):
                rows[index], states[index] = envs[index].step(action[None]), text
    return [each.finished[0] for each in envs]


def main() -> None:
    """Print the return of every episode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:5001", help="of the server; default: %(default)s")
    add("--env", default="CartPole-v1", help="what the agent was trained for; default: %(default)s")
    add("--action-repeat", type=int, default=1, help="with which it was; default: %(default)s")
    add("--modalities", default="all", help="that it sees: all, first, or names with commas")
    add("--policy", choices=("mode", "sample"), default="mode", help="default: %(default)s")
    add("--episodes", type=int, default=3, help="default: %(default)s")
    add("--seed", type=int, default=1_000_000, help="of the first one; default: %(default)s")
    add("--together", action="store_true", help="all episodes side by side, in the same requests")
    args = parser.parse_args()
    seen = args.modalities
    env = EnvConfig(
        id=args.env,
        num_envs=1,
        action_repeat=args.action_repeat,
        active_modalities=seen if seen in ("all", "first") else tuple(seen.split(",")),
        optional_modalities=(),
        modalities={},
    )
    seeds = range(args.seed, args.seed + args.episodes)
    groups = [seeds] if args.together else [[seed] for seed in seeds]
    for group in groups:
        try:
            episodes = play(args.url, env, group, args.policy)
        except (ValueError, OSError) as error:
            sys.exit(str(error))
        for seed, episode in zip(group, episodes, strict=True):
            print(f"seed {seed}: return {episode.ret:.10g} after {episode.length} steps")


if __name__ == "__main__":
    main()
