"""Actor and critic networks on features, and the parameters of behaviour learning."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dreamer.nn.distributions import (
    ActionDist,
    BoundedNormal,
    OneHotActions,
    OneHotCode,
    StreamReturns,
)
from dreamer.nn.layers import MLP, Linear
from dreamer.nn.math import NUM_BINS
from dreamer.types import Acted, ActionSpec, ConfigError, NoiseSource, check_range

LAYERS = 3
UNIMIX = 0.01
OUTSCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class WorkerWeights:
    """Weights of the reward streams in the worker's mix; the manager, or a flat policy, takes
    extrinsic with 1 and the intrinsic streams with the weights of section `intrinsic`.

    Attributes:
        goal: Pursuing the manager's goal.
        extrinsic: The task itself; helps where rewards are dense.
        icm, empowerment: Need the module of that name to be enabled.
    """

    goal: float
    extrinsic: float
    icm: float
    empowerment: float

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name, weight in vars(self).items():
            check_range(name, weight, 0.0, 100.0)
        if not any(vars(self).values()):
            raise ConfigError("goal", self.goal, "above 0, unless another stream drives the worker")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What is tuned about behaviour learning.

    Attributes:
        actor: `ppo` (epochs over the imagined batch) or `reinforce` (the official DreamerV3
            update).
        clip_ratio: PPO clips probability ratios to 1 -+ clip_ratio.
        epochs, minibatches: PPO passes over the imagined batch, and parts per pass.
        target_kl: The actor stops for the rest of an update beyond 1.5 times this divergence.
        entropy_scale: Weight of the policy entropy in nats.
        slow_rate: Share by which the slow critic follows per update (0.02 in the paper; a run of a
            few thousand updates needs more, or values lag behind the policy).
        actor_lr, critic_lr: Learning rates, of both levels.
        hierarchy: Whether a manager sets goals for a worker; without it neither exists.
        goal_every: K, steps that a goal lasts; divides the horizon.
        goal_groups, goal_classes: L, C: a goal is L choices among C.
        goal_lr: Learning rate of the goal autoencoder.
        manager_entropy_scale, manager_target_kl: As above, for the manager.
        worker: What the worker is paid for.
    """

    actor: Literal["ppo", "reinforce"]
    clip_ratio: float
    epochs: int
    minibatches: int
    target_kl: float
    entropy_scale: float
    slow_rate: float
    actor_lr: float
    critic_lr: float
    hierarchy: bool
    goal_every: int
    goal_groups: int
    goal_classes: int
    goal_lr: float
    manager_entropy_scale: float
    manager_target_kl: float
    worker: WorkerWeights

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.actor not in ("ppo", "reinforce"):
            raise ConfigError("actor", self.actor, "ppo or reinforce")
        check_range("clip_ratio", self.clip_ratio, 1e-3, 1.0)
        check_range("epochs", self.epochs, 1, 100)
        check_range("minibatches", self.minibatches, 1, 1000)
        check_range("target_kl", self.target_kl, 1e-6, 1e6)
        check_range("entropy_scale", self.entropy_scale, 0.0, 10.0)
        check_range("slow_rate", self.slow_rate, 0.0, 1.0)
        check_range("actor_lr", self.actor_lr, 0.0, 1.0)
        check_range("critic_lr", self.critic_lr, 0.0, 1.0)
        check_range("goal_every", self.goal_every, 1, 1000)
        check_range("goal_groups", self.goal_groups, 1, 64)
        check_range("goal_classes", self.goal_classes, 2, 64)
        check_range("goal_lr", self.goal_lr, 0.0, 1.0)
        check_range("manager_entropy_scale", self.manager_entropy_scale, 0.0, 10.0)
        check_range("manager_target_kl", self.manager_target_kl, 1e-6, 1e6)
        if self.hierarchy and self.actor == "reinforce":
            raise ConfigError("actor", self.actor, "ppo, or hierarchy: false (levels learn by PPO)")


class Actor(nn.Module):
    """A policy without memory: categorical with 1 % uniform mixture, or bounded normal.

    Satisfies `Policy`.

    Args:
        feat_dim: F. units: Width of the MLP. spec: Actions.

    Source: arXiv 2301.04104 v2, "Actor learning" (the paper's uniform mixture in every line).
    """

    def __init__(
        self, feat_dim: int, units: int, spec: ActionSpec, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.spec = spec
        self.mlp = MLP(feat_dim, units, LAYERS, generator)
        self.out = Linear(units, spec.dim, generator, outscale=OUTSCALE)
        continuous = spec.kind == "continuous"
        self.std = Linear(units, spec.dim, generator, outscale=OUTSCALE) if continuous else None

    def forward(self, feat: Tensor) -> ActionDist:
        """(..., F) -> distribution over (..., A)."""
        hidden = self.mlp(feat)
        if self.std is not None:
            return BoundedNormal(self.out(hidden), self.std(hidden))
        if self.spec.kind == "code":
            return OneHotCode(self.out(hidden), self.spec.sizes[0], UNIMIX)
        return OneHotActions(self.out(hidden), self.spec.sizes, UNIMIX)

    def initial(self, batch: int) -> tuple[()]:
        """No carry."""
        del batch
        return ()

    def draw(self, noise: NoiseSource, stream: str, index: int, lead: tuple[int, ...]) -> Tensor:
        """(*lead, K): one uniform per choice, or one normal per dimension."""
        return noise.action(self.spec, stream, index, lead)

    def act(self, feat: Tensor, carry: tuple[()], is_first: Tensor, noise: Tensor) -> Acted:
        """See `Policy.act`."""
        del is_first
        dist = self(feat)
        action = dist.sample(noise)
        return Acted(action, dist.log_prob(action), dist.entropy(), carry)

    def mode(self, feat: Tensor, carry: tuple[()], is_first: Tensor) -> tuple[Tensor, tuple[()]]:
        """Most probable action (N, A) and the next carry."""
        del is_first
        return self(feat).mode(), carry


class ValueHead(nn.Module):
    """Values of all reward streams of a level on one trunk; exactly 0 before training.

    Args:
        feat_dim: F. units: Width. task: 1 if the extrinsic stream is the first, or 0.
        others: S', further streams.
    """

    def __init__(
        self, feat_dim: int, units: int, task: int, others: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.task = task
        self.mlp = MLP(feat_dim, units, LAYERS, generator)
        self.out = Linear(units, task * NUM_BINS + others, generator, outscale=0.0)

    def forward(self, feat: Tensor) -> StreamReturns:
        """(..., F) -> distribution over the returns (..., task + S')."""
        return StreamReturns(self.out(self.mlp(feat)), self.task)


class Critic(nn.Module):
    """Value head with a slow copy that regularises it.

    Source: arXiv 2301.04104, "Critic learning".
    """

    def __init__(
        self, feat_dim: int, units: int, task: int, others: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.head = ValueHead(feat_dim, units, task, others, generator)
        self.slow = deepcopy(self.head).requires_grad_(False)

    def forward(self, feat: Tensor) -> StreamReturns:
        """(..., F) -> distribution over the returns (..., S)."""
        return self.head(feat)

    @torch.no_grad()
    def update_slow(self, rate: float) -> None:
        """slow += rate * (head - slow), after every update."""
        slow: list[Tensor] = list(self.slow.parameters())
        torch._foreach_lerp_(slow, list[Tensor](self.head.parameters()), rate)
