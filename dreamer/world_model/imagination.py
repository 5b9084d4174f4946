"""The only imagination loop: roll the prior forward under any policy, from replayed posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dreamer.types import ConfigError, Imagined, Policy, check_range
from dreamer.world_model.model import MultimodalWorldModel


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig:
    """How much is imagined per update.

    Attributes:
        horizon: H steps.
        starts: `all` replayed steps, or the last so many of each sequence.
    """

    horizon: int
    starts: int | Literal["all"]

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("horizon", self.horizon, 1, 1000)
        if self.starts != "all" and self.starts < 1:
            raise ConfigError("starts", self.starts, "all, or a positive number of steps")


def imagine(
    model: MultimodalWorldModel,
    policy: Policy,
    carry: Any,  # noqa: ANN401  (each policy has a carry of its own)
    deter: Tensor,
    stoch: Tensor,
    latent_noise: Tensor,
    action_noise: Tensor,
) -> Imagined:
    """Imagine H steps from N states. The model never receives a gradient; the policy's
    log-probabilities and entropies carry one if the caller has gradients enabled.

    Args:
        deter: (N, D). stoch: (N, C * S) flat class-major one-hots.
        latent_noise: (H, N, S) uniform. action_noise: (H, N, K) as the policy wants it.

    Source: arXiv 2301.04104, "Actor learning"; H + 1 states, an action at each but the last.
    """
    feats = [torch.cat([deter, stoch], -1).detach()]
    actions, log_probs, entropies = [], [], []
    starting = torch.zeros(len(deter), dtype=torch.bool, device=deter.device)
    for step in range(len(latent_noise)):
        acted = policy.act(feats[-1], carry, starting, action_noise[step])
        carry = acted.carry
        with torch.no_grad():
            deter, stoch = model.rssm.imagine_step(deter, stoch, acted.action, latent_noise[step])
            feats.append(torch.cat([deter, stoch], -1))
        actions.append(acted.action)
        log_probs.append(acted.log_prob)
        entropies.append(acted.entropy)
    with torch.no_grad():
        reward = torch.stack([model.reward(feat).mean() for feat in feats])
        cont = torch.stack([model.cont(feat).mean() for feat in feats])
    return Imagined(
        feat=feats,
        action=torch.stack(actions),
        log_prob=torch.stack(log_probs),
        entropy=torch.stack(entropies),
        reward=reward,
        cont=cont,
    )
