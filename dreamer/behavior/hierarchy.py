"""HierarchicalPPO: a manager that sets goals and a worker that pursues them, or one flat policy,
learning from the same imagined rollout.

Source: Hafner et al. 2022 (arXiv 2206.04114) for the two levels and the goal autoencoder; Schulman
et al. 2017 (arXiv 1707.06347) for how each learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dreamer.behavior.actor_critic import PolicyConfig
from dreamer.behavior.goal_policy import GoalPolicy, ImaginedGoalPolicy, Pursuit
from dreamer.behavior.goals import GoalAutoencoder, goal_reward
from dreamer.behavior.learner import REPLAY_VALUE_SCALE, ActorCritic
from dreamer.behavior.level import Level, Rollout
from dreamer.behavior.ppo import Targets, trajectory_weight
from dreamer.behavior.segments import smdp_cont, smdp_reward, split_states, split_steps
from dreamer.behavior.streams import active
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec, Batch, Imagined, Losses, Metrics, Policy, Rate

Rewards = Mapping[str, Tensor]  # stream -> (H, N) on arriving at states 1 .. H


class Lesson(NamedTuple):
    """What one level learns from one imagined batch."""

    level: ActorCritic
    rollout: Rollout
    targets: Targets

    def metrics(self) -> Metrics:
        """What the top level expects of the task."""
        targets = self.targets
        return {
            "policy/return": targets.ret[:, 0].mean(),
            "policy/value": targets.value[:, 0].mean(),
            "policy/advantage_std": targets.adv.std(),
            "policy/return_scale": self.level.streams.scale("extrinsic"),
        }


class HierarchicalPPO(nn.Module):
    """All of behaviour: policies, critics, goals.

    Args:
        feat_dim: F. deter: D. units: Width of the MLPs. spec: Actions. config: What is tuned.
        intrinsic: Weight of each intrinsic stream in the top level's mix.
        paid: Weights of streams that only the worker can earn. seed: Of the initial weights.

    Attributes:
        top: The manager, or the flat policy. worker, goals: None without a hierarchy.
    """

    def __init__(
        self,
        feat_dim: int,
        deter: int,
        units: int,
        spec: ActionSpec,
        config: PolicyConfig,
        intrinsic: Mapping[str, float],
        paid: Mapping[str, float],
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.deter = config, deter
        mix = active({"extrinsic": 1.0} | dict(intrinsic))
        if not config.hierarchy:
            level = Level(
                name="",
                metrics="policy",
                entropy_scale=config.entropy_scale,
                target_kl=config.target_kl,
                weights=mix,
            )
            self.top = ActorCritic(feat_dim, units, spec, config, level, seed)
            self.worker, self.goals = None, None
            return
        manager, worker = both_levels(config, mix, vars(config.worker) | dict(paid))
        sizes = (config.goal_classes,) * config.goal_groups
        code = ActionSpec(kind="code", sizes=sizes)
        self.top = ActorCritic(feat_dim, units, code, config, manager, seed)
        self.worker = ActorCritic(feat_dim + code.dim, units, spec, config, worker, seed)
        self.goals = GoalAutoencoder(deter, units, config.goal_groups, config.goal_classes, seed)

    @property
    def policy(self) -> Policy:
        """Who acts."""
        return self.top.actor if self.goal_policy is None else self.goal_policy

    @property
    def goal_policy(self) -> GoalPolicy | None:
        """Manager and worker as one, or None without a hierarchy."""
        if self.worker is None or self.goals is None:
            return None
        every = self.config.goal_every
        return GoalPolicy(self.top.actor, self.worker.actor, self.goals, every, self.deter)

    def imagined_policy(self) -> Policy:
        """Who acts in imagination."""
        policy = self.goal_policy
        return self.top.actor if policy is None else ImaginedGoalPolicy(policy)

    def levels(self) -> list[ActorCritic]:
        """From the top down."""
        return [self.top] if self.worker is None else [self.top, self.worker]

    @property
    def acting(self) -> ActorCritic:
        """The level whose actions reach the environment."""
        return self.levels()[-1]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Optimiser groups."""
        groups: dict[str, list[nn.Parameter]] = {}
        for level in self.levels():
            groups |= level.groups()
        if self.goals is not None:
            groups["goals"] = list(self.goals.parameters())
        return groups

    def rates(self) -> dict[str, float]:
        """Learning rate of each group."""
        rates = {name: rate for level in self.levels() for name, rate in level.rates().items()}
        return rates if self.goals is None else rates | {"goals": self.config.goal_lr}

    def rate_names(self) -> dict[str, str]:
        """Group -> name of its rate, of the groups whose rates can tune themselves."""
        names: dict[str, str] = {}
        for level in self.levels():
            names |= level.rate_names()
        return names

    def loss_scales(self) -> dict[str, float]:
        """Weight of every loss of the joint backward."""
        scales = {"replay_value": REPLAY_VALUE_SCALE}
        if self.config.actor == "reinforce":
            scales |= {"actor": 1.0, "critic": 1.0}
        return scales

    def reinforce(
        self, imagined: Imagined, rewards: Rewards
    ) -> tuple[Losses, list[Lesson], Metrics]:
        """Losses of a flat policy; the log-probabilities must carry gradients."""
        rollout, metrics = self._flat(imagined, rewards)
        losses, targets = self.top.reinforce(rollout)
        return losses, [Lesson(self.top, rollout, targets)], metrics

    def evaluate(self, imagined: Imagined, rewards: Rewards) -> tuple[list[Lesson], Metrics]:
        """Returns and advantages of every level, from the top down."""
        if self.worker is None:
            rollouts = [self._flat(imagined, rewards)]
        else:
            rollouts = [self._manager(imagined, rewards), self._worker(imagined, rewards)]
        lessons = [
            Lesson(level, rollout, level.evaluate(rollout))
            for level, (rollout, _) in zip(self.levels(), rollouts, strict=True)
        ]
        return lessons, {k: v for _, metrics in rollouts for k, v in metrics.items()}

    def replay_value(
        self, feat: Tensor, batch: Batch, bootstrap: Tensor, discount: float
    ) -> Tensor:
        """See `ActorCritic.replay_value`; the manager's critic values states as they are."""
        return self.top.replay_value(feat, batch, bootstrap, discount)

    def ppo_update(
        self,
        lessons: list[Lesson],
        optimizer: LaProp,
        rates: Mapping[str, Rate],
        noise: Noise,
        index: int,
        examine: tuple[str, ...] = (),
    ) -> Metrics:
        """PPO of every level, manager first; see `ActorCritic.ppo_update`. What is examined are
        parts of the acting level's loss.
        """
        metrics: Metrics = {}
        for lesson in lessons:
            parts = examine if lesson.level is self.acting else ()
            rest = (optimizer, rates, noise, index, parts)
            metrics |= lesson.level.ppo_update(lesson.rollout, lesson.targets, *rest)
        return metrics

    def update_slow(self) -> None:
        """Let the slow critics follow."""
        for level in self.levels():
            level.critic.update_slow(self.config.slow_rate)

    def _flat(self, imagined: Imagined, rewards: Rewards) -> tuple[Rollout, Metrics]:
        ready = self.top.streams.prepare(rewards)
        rollout = Rollout(
            imagined.feat,
            imagined.action,
            imagined.log_prob,
            imagined.entropy,
            arrive(ready),
            imagined.cont,
            trajectory_weight(imagined.cont),
        )
        return rollout, self.top.streams.metrics(rewards, ready)

    @torch.no_grad()
    def _manager(self, imagined: Imagined, rewards: Rewards) -> tuple[Rollout, Metrics]:
        """Segments as steps."""
        every = self.config.goal_every
        ready = self.top.streams.prepare(rewards)
        choices: tuple[Pursuit, ...] = imagined.carries[::every]
        rollout = Rollout(
            imagined.feat[::every],
            torch.stack([each.code for each in choices]),
            torch.stack([each.log_prob for each in choices]),
            torch.stack([each.entropy for each in choices]),
            arrive(smdp_reward(ready, imagined.cont, every)),
            smdp_cont(imagined.cont, every),
            trajectory_weight(imagined.cont)[::every],
        )
        return rollout, self.top.streams.metrics(rewards, ready)

    @torch.no_grad()
    def _worker(self, imagined: Imagined, rewards: Rewards) -> tuple[Rollout, Metrics]:
        """Steps inside the segments, each segment a rollout of its own."""
        assert self.worker is not None
        every = self.config.goal_every
        state = split_states(imagined.feat, every)
        choices: tuple[Pursuit, ...] = imagined.carries[::every]
        goal, code = (
            torch.cat(each) for each in zip(*[(x.goal, x.code) for x in choices], strict=True)
        )
        split = {name: split_steps(reward, every) for name, reward in rewards.items()}
        split["goal"] = goal_reward(goal, state[1:, :, : self.deter])
        ready = self.worker.streams.prepare(split)
        rollout = Rollout(
            torch.cat([state, code.expand(len(state), -1, -1)], -1),
            split_steps(imagined.action, every),
            split_steps(imagined.log_prob, every),
            split_steps(imagined.entropy, every),
            arrive(ready),
            split_states(imagined.cont, every),
            split_steps(trajectory_weight(imagined.cont), every),
            len(imagined.action) // every,
        )
        return rollout, self.worker.streams.metrics(split, ready, "worker_reward")


def both_levels(
    config: PolicyConfig, mix: Mapping[str, float], wages: Mapping[str, float]
) -> tuple[Level, Level]:
    """Manager and worker with their weights of the streams."""
    manager = Level(
        name="manager",
        metrics="manager",
        entropy_scale=config.manager_entropy_scale,
        target_kl=config.manager_target_kl,
        weights=mix,
    )
    worker = Level(
        name="worker",
        metrics="policy",
        entropy_scale=config.entropy_scale,
        target_kl=config.target_kl,
        weights=active(wages),
    )
    return manager, worker


def arrive(reward: Tensor) -> Tensor:
    """(H, S, N) rewards of steps -> (H + 1, S, N) on arriving, entry 0 unused."""
    return torch.cat([torch.zeros_like(reward[:1]), reward])
