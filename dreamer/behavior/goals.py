"""GoalAutoencoder: recurrent states as discrete codes that a manager can choose, and back.

Source: Hafner et al. 2022 (arXiv 2206.04114), "Goal autoencoder": goals are points of the space of
recurrent states, the code is a vector of categoricals, a divergence from the uniform code that is
held at a target keeps every code meaningful.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dreamer.nn.distributions import OneHotCode, straight_through
from dreamer.nn.layers import MLP, Linear
from dreamer.types import Metrics
from dreamer.world_model.model import init

LAYERS = 2
UNIMIX = 0.01
TARGET = 0.6  # of the largest possible divergence, L ln C
TOLERANCE, FACTOR = 0.1, 1.1
LEAST, MOST = 1e-6, 10.0


class GoalAutoencoder(nn.Module):
    """deter (..., D) -> goal code (..., C * L) class-major one-hots -> goal (..., D).

    Args:
        deter: D. units: Width of the MLPs. groups, classes: L, C. seed: Of the initial weights.
    """

    scale: Tensor

    def __init__(self, deter: int, units: int, groups: int, classes: int, seed: int) -> None:
        super().__init__()
        self.groups, self.classes = groups, classes
        code = groups * classes
        encoder, decoder = init(seed, "goals/encoder"), init(seed, "goals/decoder")
        self.encoder = MLP(deter, units, LAYERS, encoder)
        self.logit = Linear(units, code, encoder)
        self.decoder = MLP(code, units, LAYERS, decoder)
        self.out = Linear(units, deter, decoder)
        self.register_buffer("scale", torch.ones(()))

    @property
    def max_divergence(self) -> float:
        """L ln C, in nats."""
        return self.groups * math.log(self.classes)

    def encode(self, deter: Tensor) -> OneHotCode:
        """(..., D) -> distribution over (..., C * L)."""
        return OneHotCode(self.logit(self.encoder(deter)), self.classes, UNIMIX)

    def decode(self, code: Tensor) -> Tensor:
        """(..., C * L) -> goals (..., D)."""
        return self.out(self.decoder(code))

    def loss(self, deter: Tensor, noise: Tensor) -> tuple[Tensor, Metrics]:
        """Squared error of the reconstruction plus the weighted divergence from the uniform code.

        Args:
            deter: (T, B, D) replayed states, detached here. noise: (T, B, L) uniform.

        Returns:
            () loss and metrics; the weight of the divergence has been adapted.
        """
        deter = deter.detach()
        dist = self.encode(deter)
        code = straight_through(dist.sample(noise), dist.probs.flatten(-2))
        error = (self.decode(code) - deter).square().sum(-1).mean()
        divergence = (self.max_divergence - dist.entropy()).mean()
        loss = error + self.scale.clone() * divergence
        self.adapt(divergence.detach())
        # Of the most probable codes: the noise that the divergence demands would look like use.
        usage = dist.mode().detach().unflatten(-1, dist.probs.shape[-2:]).flatten(0, -3).mean(0)
        perplexity = torch.special.entr(usage).sum(0).exp().mean()
        return loss, {
            "goal/reconstruction": error.detach(),
            "goal/divergence": divergence.detach(),
            "goal/scale": self.scale.clone(),
            "goal/code_perplexity": perplexity,
        }

    @torch.no_grad()
    def adapt(self, divergence: Tensor) -> None:
        """Multiply the divergence's weight by 1.1 where it is 10 % above its target, divide where
        it is 10 % below.
        """
        target = TARGET * self.max_divergence
        up = (divergence > (1.0 + TOLERANCE) * target).float()
        down = (divergence < (1.0 - TOLERANCE) * target).float()
        self.scale.mul_(FACTOR ** (up - down)).clamp_(LEAST, MOST)


def goal_reward(goal: Tensor, deter: Tensor) -> Tensor:
    """Cosine similarity that also wants the length: <g, h> / max(|g|, |h|)^2, in [-1, 1].

    Args:
        goal, deter: (..., D).

    Source: arXiv 2206.04114, equation 5 (max-cosine).
    """
    longest = torch.maximum(goal.norm(dim=-1), deter.norm(dim=-1)).clamp_min(1e-6)
    return (goal * deter).sum(-1) / longest.square()
