"""One environment and its current episode: seeded on its own, recorded, summed up at its end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np


@dataclass(frozen=True, kw_only=True)
class EpisodeStats:
    """A finished episode: which one, its undiscounted return and its length in agent steps.

    Attributes:
        scores: What the environment says of it in `info["scores"]`, name -> mean over the steps
            that say it.
    """

    env: int
    episode: int
    ret: float
    length: int
    scores: dict[str, float] = field(default_factory=dict)


def episode_seed(seed: int, env: int, episode: int) -> int:
    """Seed of one episode, 0 to 2^31 - 1: a pure function, the same however many run beside it."""
    digest = hashlib.blake2b(f"episode {seed} {env} {episode}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


class Outcome(NamedTuple):
    """What one environment step said, before conversion to rows."""

    obs: Any
    reward: float
    is_first: bool
    terminated: bool
    truncated: bool


@dataclass(kw_only=True)
class Slot:
    """One environment and where its current episode stands."""

    env: gym.Env[Any, Any]
    index: int
    episode: int = -1
    ret: float = 0.0
    done: bool = True
    actions: list[np.ndarray] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)

    def reset(self, seed: int, episode: int) -> Outcome:
        """Start an episode from its own seed."""
        self.episode, self.ret, self.done = episode, 0.0, False
        self.actions, self.scores = [], {}
        obs, _ = self.env.reset(seed=episode_seed(seed, self.index, episode))
        return Outcome(obs, 0.0, is_first=True, terminated=False, truncated=False)

    def step(self, native: object, vector: np.ndarray) -> Outcome:
        """Take one action, given as the environment and as the agent (A,) speaks, and record it."""
        obs, reward, terminated, truncated, info = self.env.step(native)
        for name, score in info.get("scores", {}).items():
            self.scores.setdefault(name, []).append(float(score))
        self.actions.append(vector)
        self.ret += float(reward)
        self.done = bool(terminated or truncated)
        return Outcome(obs, float(reward), False, bool(terminated), bool(truncated))

    def stats(self) -> EpisodeStats:
        """The episode so far."""
        return EpisodeStats(
            env=self.index,
            episode=self.episode,
            ret=self.ret,
            length=len(self.actions),
            scores={name: float(np.mean(said)) for name, said in self.scores.items()},
        )
