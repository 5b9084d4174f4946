"""The objectives of behaviour learning as free functions of tensors.

Source: Schulman et al. 2017 (arXiv 1707.06347) for the clipped surrogate; arXiv 2301.04104, "Actor
learning" and "Critic learning" for weights, returns and the regularised critic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dreamer.types import Metrics

LOG_RATIO_LIMIT = 20.0


class Targets(NamedTuple):
    """What actor and critic learn from, without gradient.

    Attributes:
        ret, slow, value: (H, S, N) return, the slow critic's value and the old value, per stream.
        advs: (H, S, N) scaled advantage per stream. adv: (H, N) their mix.
        weight: (H, N) loss weight, the probability of having got that far.
    """

    ret: Tensor
    adv: Tensor
    weight: Tensor
    slow: Tensor
    value: Tensor
    advs: Tensor


def trajectory_weight(cont: Tensor) -> Tensor:
    """(H + 1, N) continuation -> (H, N) running product, the first state's own factor included."""
    return cont[:-1].cumprod(0)


def weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    """sum(weight * x) / sum(weight); all-zero weights give 0."""
    return (weight * x).sum() / weight.sum().clamp_min(1e-8)


def clipped_surrogate(
    log_prob: Tensor, log_prob_old: Tensor, adv: Tensor, clip_ratio: float
) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic objective, to be maximised.

    Args:
        log_prob: (M,) under the policy being trained. log_prob_old: (M,) under the acting one.
        adv: (M,) advantages. clip_ratio: Half-width of the trust interval.

    Returns:
        (M,) min(ratio * adv, clip(ratio) * adv), and the (M,) ratio.
    """
    ratio = torch.exp((log_prob - log_prob_old).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))
    clipped = ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio)
    return torch.minimum(ratio * adv, clipped * adv), ratio


def ppo_metrics(ratio: Tensor, clip_ratio: float, entropy: Tensor) -> Metrics:
    """Diagnostics of one minibatch: k3 estimate of the divergence, share clipped, entropy."""
    ratio = ratio.detach()
    return {
        "approx_kl": (ratio - 1.0 - ratio.log()).mean(),
        "clip_fraction": ((ratio - 1.0).abs() > clip_ratio).float().mean(),
        "entropy": entropy.detach().mean(),
    }
