"""Actor and critic heads on features, and the parameters of behaviour learning."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dreamer.nn.distributions import ActionDist, BoundedNormal, OneHotActions, SymexpTwoHot
from dreamer.nn.layers import MLP, Linear
from dreamer.types import Acted, ActionSpec, ConfigError, check_range
from dreamer.world_model.heads import ScalarHead

LAYERS = 3
UNIMIX = 0.01
OUTSCALE = 0.01


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
        actor_lr, critic_lr: Learning rates.
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


class Actor(nn.Module):
    """Flat policy: categorical with 1 % uniform mixture, or bounded normal. Satisfies `Policy`.

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
        return OneHotActions(self.out(hidden), self.spec.sizes, UNIMIX)

    def initial(self, batch: int) -> tuple[()]:
        """No carry."""
        del batch
        return ()

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


class Critic(nn.Module):
    """Value head with a slow copy that regularises it.

    Source: arXiv 2301.04104, "Critic learning".
    """

    def __init__(self, feat_dim: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.head = ScalarHead(feat_dim, units, LAYERS, generator)
        self.slow = deepcopy(self.head).requires_grad_(False)

    def forward(self, feat: Tensor) -> SymexpTwoHot:
        """(..., F) -> distribution over the return (...)."""
        return self.head(feat)

    @torch.no_grad()
    def update_slow(self, rate: float) -> None:
        """slow += rate * (head - slow), after every update."""
        slow: list[Tensor] = list(self.slow.parameters())
        torch._foreach_lerp_(slow, list[Tensor](self.head.parameters()), rate)
