"""Abstract time: an imagined rollout of H = M * K steps as M segments of K, one goal in each.

A manager's step is a segment, with the discounted reward inside it and the discount over it (a
semi-Markov decision process). A worker's rollout is one segment, evaluated up to the segment's last
state under the goal that was active while acting.

Source: Sutton, Precup, Singh 1999 (options as a semi-Markov process); Hafner et al. 2022 (arXiv
2206.04114) for two levels in one imagined rollout.
"""

from __future__ import annotations

import torch
from torch import Tensor


def smdp_reward(reward: Tensor, cont: Tensor, every: int) -> Tensor:
    """Discounted reward inside each segment.

    R_i = sum_k (prod_{1 <= j <= k} cont_{iK + j}) * reward of the step that leaves state iK + k.

    Args:
        reward: (H, *, N) of steps 0 .. H - 1. cont: (H + 1, N), the discount included.
        every: K.

    Returns:
        (M, *, N).
    """
    # within[:, k] is the probability of getting from the segment's first state to its k-th.
    steps = cont[:-1].unflatten(0, (-1, every)).clone()
    steps[:, 0] = 1.0
    within = steps.cumprod(1)
    within = within.view(*within.shape[:2], *[1] * (reward.dim() - 2), within.shape[-1])
    return (within * reward.unflatten(0, (-1, every))).sum(1)


def smdp_cont(cont: Tensor, every: int) -> Tensor:
    """(H + 1, N) -> (M + 1, N) probability and discount of getting over each segment; entry 0 is
    that of the first state.
    """
    over = cont[1:].unflatten(0, (-1, every)).prod(1)
    return torch.cat([cont[:1], over])


def split_steps(x: Tensor, every: int) -> Tensor:
    """(H, N, *) -> (K, M * N, *): what belongs to steps."""
    return x.unflatten(0, (-1, every)).transpose(0, 1).flatten(1, 2)


def split_states(x: Tensor, every: int) -> Tensor:
    """(H + 1, N, *) -> (K + 1, M * N, *): what belongs to states; where two segments meet, the
    state is the last of one and the first of the other.
    """
    first = split_steps(x[:-1], every)
    last = x[every::every].flatten(0, 1)
    return torch.cat([first, last[None]])


def join_steps(x: Tensor, segments: int) -> Tensor:
    """(K, *, M * N) -> (H, *, N): steps in the order in which they were made."""
    parts = x.unflatten(-1, (segments, -1)).movedim(-2, 0)
    return parts.flatten(0, 1)


def join_states(x: Tensor, segments: int) -> Tensor:
    """(K + 1, *, M * N) -> (H + 1, *, N): where two segments meet, the state as the later one sees
    it.
    """
    last = x[-1].unflatten(-1, (segments, -1)).select(-2, -1)
    return torch.cat([join_steps(x[:-1], segments), last[None]])


def join_arrivals(x: Tensor, segments: int) -> Tensor:
    """(K + 1, *, M * N) -> (H + 1, *, N): where two segments meet, what the earlier one received on
    arriving there.
    """
    first = x[0].unflatten(-1, (segments, -1)).select(-2, 0)
    return torch.cat([first[None], join_steps(x[1:], segments)])


def cut_steps(x: Tensor, segments: int) -> Tensor:
    """Inverse of `join_steps`."""
    parts = x.unflatten(0, (segments, -1)).movedim(0, -2)
    return parts.flatten(-2, -1)
