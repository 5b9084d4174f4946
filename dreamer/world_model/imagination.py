"""The only imagination loop: roll the prior forward under any policy, from replayed posteriors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dreamer.types import ConfigError, Imagined, Policy, check_range
from dreamer.world_model.model import MultimodalWorldModel

CHUNK = 1024


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
        # The replay value of a step needs the imagined return of the step after it.
        if self.starts != "all" and self.starts < 2:
            raise ConfigError("starts", self.starts, "all, or 2 and more steps")


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
    horizon, width = len(latent_noise), deter.shape[-1]
    feat = deter.new_empty(horizon + 1, len(deter), width + stoch.shape[-1])
    # Through `data` each step counts its versions apart: autograd keeps earlier steps for the
    # policy's gradient, and would take the writing of later ones for a change of the same tensor.
    states = [feat.data[step] for step in range(horizon + 1)]
    torch.cat([deter.detach(), stoch.detach()], -1, out=states[0])
    actions, log_probs, entropies, carries = [], [], [], []
    imagine_step = model.rssm.imaginer(len(deter))
    starting = torch.zeros(len(deter), dtype=torch.bool, device=deter.device)
    for step in range(horizon):
        now, after = states[step], states[step + 1]
        acted = policy.act(now, carry, starting, action_noise[step])
        carry, noise = acted.carry, latent_noise[step]
        deter, stoch = now[:, :width], now[:, width:]
        imagine_step(deter, stoch, acted.action, noise, after)
        actions.append(acted.action)
        log_probs.append(acted.log_prob)
        entropies.append(acted.entropy)
        carries.append(carry)
    with torch.no_grad():
        heads = (model.reward, model.cont)
        reward, cont = in_chunks(lambda x: torch.stack([head(x).mean() for head in heads]), feat)
    return Imagined(
        feat=feat,
        action=torch.stack(actions),
        log_prob=torch.stack(log_probs),
        entropy=torch.stack(entropies),
        reward=reward,
        cont=cont,
        carries=tuple(carries),
    )


def in_chunks(head: Callable[[Tensor], Tensor], feat: Tensor) -> Tensor:
    """Apply a head (M, F) -> (..., M) to (H, N, F) about a thousand rows at a time, which keeps its
    activations in the cache; returns (..., H, N).
    """
    parts = [head(rows) for rows in feat.flatten(0, 1).split(CHUNK)]
    return torch.cat(parts, -1).unflatten(-1, feat.shape[:2])
