"""The online loop: act, add, sample, update, evaluate, checkpoint. All of its state can be saved,
and a resumed loop does what the uninterrupted one would have done, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dreamer.agent import Agent
from dreamer.envs.episode import EpisodeStats
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.evaluation import mean_return, play_episodes
from dreamer.exchange import make_batch, write_back
from dreamer.replay.buffer import SequenceReplayBuffer
from dreamer.schedule import OptimizerConfig
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import Metrics, Rows, check_range


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how often.

    Attributes:
        env_steps: Environment steps of the run, the collected ones included; a reset is a step.
        updates_per_env_step: Updates owed per environment step.
        extra_world_updates: Updates of the world model alone before each of them. They cost a
            fraction of a full update, and a small model that blurs its world is what limits a small
            agent.
        eval_every: Environment steps between validations.
        eval_episodes: Episodes per validation, played side by side.
        eval_policy: `sample` actions in validation, or take the `mode`.
        eval_seed: Seed of validation episodes.
        log_every: Updates between metrics.
        checkpoint_seconds: Wall-clock seconds between checkpoints.
    """

    env_steps: int
    updates_per_env_step: float
    extra_world_updates: int
    eval_every: int
    eval_episodes: int
    eval_policy: Literal["sample", "mode"]
    eval_seed: int
    log_every: int
    checkpoint_seconds: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("env_steps", self.env_steps, 1, 10**12)
        check_range("updates_per_env_step", self.updates_per_env_step, 0.0, 1000.0)
        check_range("extra_world_updates", self.extra_world_updates, 0, 1000)
        check_range("eval_every", self.eval_every, 1, 10**12)
        check_range("eval_episodes", self.eval_episodes, 1, 10_000)
        check_range("log_every", self.log_every, 1, 10**9)
        check_range("checkpoint_seconds", self.checkpoint_seconds, 0.0, 10**9)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop tells its surroundings; none may change the course of training.

    Attributes:
        on_metrics: (env_step, metrics) every `log_every` updates and after each validation.
        on_episode: (env_step, statistics) of every finished training episode.
        on_best: Called when a validation was at least as good as all before.
        after_step: Called between steps; may checkpoint, or raise to stop.
    """

    on_metrics: Callable[[int, dict[str, float]], None]
    on_episode: Callable[[int, EpisodeStats], None]
    on_best: Callable[[], None]
    after_step: Callable[[], None]


@dataclass(kw_only=True)
class OnlineLoop:
    """Where online training stands.

    Attributes:
        trainer, buffer, env: What learns, from what, where.
        config, schedule: How long and how often; rates.
        validation: The environment of validation episodes.
        agent: Acts in `env`.
        rows: What the environments showed last and the agent has not answered.
        start_steps: Environment steps that were in the buffer before the loop.
        vector_steps, env_steps, updates: Counters; `env_steps` counts rows.
        score, best: Last and best validation return.
        history: One row per log interval or validation, for curves.
        recent: Returns of the last 20 training episodes.
    """

    trainer: DreamerV3Trainer
    buffer: SequenceReplayBuffer
    env: VectorEnv
    config: TrainConfig
    schedule: OptimizerConfig
    validation: EnvConfig
    agent: Agent = field(init=False)
    rows: Rows = field(init=False)
    start_steps: int = 0
    vector_steps: int = 0
    env_steps: int = 0
    updates: int = 0
    score: float = -float("inf")
    best: float = -float("inf")
    history: list[dict[str, float]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the acting agent."""
        self.agent = Agent(
            self.trainer.model,
            self.trainer.behavior.policy,
            self.env.num_envs,
            self.trainer.noise,
            stream="act",
        )

    def start(self, collected_steps: int) -> None:
        """Begin a fresh run after `collected_steps` environment steps were stored."""
        self.start_steps = self.env_steps = collected_steps
        self.rows = self.env.reset()

    def run(self, hooks: Hooks) -> None:
        """Go on until `config.env_steps`; end with a validation, even if nothing is owed."""
        if self.env_steps >= self.config.env_steps and not self.history:
            self._validate(hooks)
        while self.env_steps < self.config.env_steps:
            self._step(hooks)
            self._catch_up(hooks)
            if self._due() or self.env_steps >= self.config.env_steps:
                self._validate(hooks)
            hooks.after_step()

    @property
    def owed(self) -> int:
        """Updates that the environment steps so far call for."""
        return int((self.env_steps - self.start_steps) * self.config.updates_per_env_step)

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        whole = max(1, self.config.env_steps - self.start_steps)
        return min(1.0, (self.env_steps - self.start_steps) / whole)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the buffer, which keeps itself."""
        counters = {name: getattr(self, name) for name in COUNTERS}
        return counters | {
            "trainer": self.trainer.state_dict(),
            "agent": self.agent.state_dict(),
            "env": self.env.state_dict(),
            "rows": self.rows,
            "history": self.history,
            "recent": self.recent,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; environments replay their recorded actions."""
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.trainer.load_state_dict(state["trainer"])
        self.agent.load_state_dict(state["agent"])
        self.env.load_state_dict(state["env"])
        self.rows = {key: np.asarray(value) for key, value in state["rows"].items()}
        self.history, self.recent = state["history"], state["recent"]

    def _step(self, hooks: Hooks) -> None:
        action = self.agent.act(self.rows, self.vector_steps)
        self.buffer.add({**self.rows, "action": action}, self.agent.latents())
        self.rows = self.env.step(action)
        self.vector_steps += 1
        self.env_steps += self.env.num_envs
        for episode in self.env.pop_finished():
            self.recent = [*self.recent, episode.ret][-20:]
            hooks.on_episode(self.env_steps, episode)

    def _catch_up(self, hooks: Hooks) -> None:
        while self.updates < self.owed:
            metrics = self._update()
            if self.updates % self.config.log_every == 0:
                row = self.trainer.read(metrics)
                if self.recent:
                    row["episode/return"] = float(np.mean(self.recent))
                self._log(hooks, row)

    def _update(self) -> Metrics:
        share = self.schedule.share(self.updates, self.progress)
        extra = self.config.extra_world_updates
        for index in range(self.updates * extra, (self.updates + 1) * extra):
            sample = self.buffer.sample(self.trainer.noise.numpy("world-replay", index))
            batch = make_batch(self.trainer, sample)
            result = self.trainer.pretrain_step(batch, index, share, stream="world")
            write_back(self.buffer, sample, result)
        sample = self.buffer.sample(self.trainer.noise.numpy("replay", self.updates))
        result = self.trainer.update_step(make_batch(self.trainer, sample), self.updates, share)
        write_back(self.buffer, sample, result)
        metrics, tuning = result.metrics, self.trainer.tuning
        if tuning is not None and tuning.due(self.updates):
            fresh = self.buffer.sample(self.trainer.noise.numpy("meta-replay", self.updates))
            batch = make_batch(self.trainer, fresh)
            metrics |= self.trainer.meta_step(batch, self.updates, share)
        self.updates += 1
        return metrics

    def _due(self) -> bool:
        before = self.env_steps - self.env.num_envs
        return self.env_steps // self.config.eval_every > before // self.config.eval_every

    def _validate(self, hooks: Hooks) -> None:
        episodes = play_episodes(
            self.trainer.model,
            self.trainer.behavior.policy,
            self.validation,
            episodes=self.config.eval_episodes,
            seed=self.config.eval_seed,
            choice=self.config.eval_policy,
        )
        self.score = mean_return(episodes)
        # A tie goes to the later one, which has learned from more.
        if self.score >= self.best:
            self.best = self.score
            hooks.on_best()
        self._log(hooks, {"validation/return": self.score, "validation/best": self.best})

    def _log(self, hooks: Hooks, row: dict[str, float]) -> None:
        self.history.append({"env_step": self.env_steps, "update": self.updates} | row)
        hooks.on_metrics(self.env_steps, row)


COUNTERS = ("start_steps", "vector_steps", "env_steps", "updates", "score", "best")
