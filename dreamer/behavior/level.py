"""What one level of behaviour is told, and what it lived through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Level:
    """What tells one level from another.

    Attributes:
        name: `manager`, `worker`, or empty for a flat policy. metrics: Group of its metrics.
        entropy_scale, target_kl: See `PolicyConfig`.
        weights: Active reward stream -> weight.
    """

    name: str
    metrics: str
    entropy_scale: float
    target_kl: float
    weights: Mapping[str, float]

    @property
    def prefix(self) -> str:
        """Of its optimiser groups, initial weights and noise streams."""
        return f"{self.name}/" if self.name else ""


class Rollout(NamedTuple):
    """What one level lived through, in its own steps: those of a manager are K steps long.

    Attributes:
        feat: (H + 1, N, F). action: (H, N, A).
        log_prob, entropy: (H, N) of the acting policy.
        reward: (H + 1, S, N) on arriving; entry 0 is not used. cont: (H + 1, N).
        weight: (H, N) probability of having got that far.
        segments: M, if the N rollouts are M parts of N / M longer ones, part by part.
    """

    feat: Tensor
    action: Tensor
    log_prob: Tensor
    entropy: Tensor
    reward: Tensor
    cont: Tensor
    weight: Tensor
    segments: int = 1
