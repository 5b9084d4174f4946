"""LaProp with adaptive gradient clipping; the learning rate stays outside the momentum.

Keeping the rate outside makes the step `-rate * direction` linear in the rate, which the
meta-gradient relies on, and lets warm-up and decay act at once.

Source: Ziyin et al. 2020 (arXiv 2002.04839, LaProp), Brock et al. 2021 (arXiv 2102.06171, AGC, here per
tensor), constants of the official DreamerV3 code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CLIP = 0.3
CLIP_FLOOR = 1e-3
BETA_RMS = 0.999
BETA_MOMENTUM = 0.9
EPS = 1e-20


def clip_gradients(params: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
    """Scale each gradient tensor so that its norm is at most 0.3 * max(1e-3, norm of its parameter)."""
    norms = torch._foreach_norm(grads)
    limits = torch._foreach_norm(params)
    torch._foreach_clamp_min_(limits, CLIP_FLOOR)
    torch._foreach_mul_(limits, CLIP)
    torch._foreach_div_(norms, limits)
    torch._foreach_clamp_min_(norms, 1.0)
    return list(torch._foreach_div(grads, norms))


class LaProp:
    """One optimiser with named parameter groups that may step at different times.

    Args:
        groups: name -> parameters; a parameter belongs to one group only.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.params = {name: list(params) for name, params in groups.items()}
        self.square = {k: [torch.zeros_like(p) for p in v] for k, v in self.params.items()}
        self.momentum = {k: [torch.zeros_like(p) for p in v] for k, v in self.params.items()}
        self.steps = dict.fromkeys(self.params, 0)

    def zero_grad(self) -> None:
        """Forget the gradients of every group."""
        for params in self.params.values():
            for param in params:
                param.grad = None

    @torch.no_grad()
    def step(self, rates: Mapping[str, float | Tensor], gate: Tensor | None = None) -> Tensor:
        """Step the named groups once with their gradients; missing gradients count as zero.

        Args:
            rates: group name -> learning rate.
            gate: () 0 or 1 on the device; 0 leaves parameters and statistics as they were without
                waiting for the host.

        Returns:
            () global norm of the unclipped gradients.
        """
        norms = [self._step_group(name, rate, gate) for name, rate in rates.items()]
        return torch.stack(norms).norm()

    def _step_group(self, name: str, rate: float | Tensor, gate: Tensor | None) -> Tensor:
        params = self.params[name]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        clipped = clip_gradients(params, grads)
        share = 1.0 if gate is None else gate
        direction = self._direction(name, clipped, share)
        torch._foreach_mul_(direction, -rate * share)
        torch._foreach_add_(params, direction)
        return norm

    def _direction(self, name: str, grads: list[Tensor], share: float | Tensor) -> list[Tensor]:
        square, momentum = self.square[name], self.momentum[name]
        self.steps[name] += 1
        step = self.steps[name]
        _move(square, torch._foreach_mul(grads, grads), (1.0 - BETA_RMS) * share)
        root = torch._foreach_div(square, 1.0 - BETA_RMS**step)
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, EPS)
        _move(momentum, torch._foreach_div(grads, root), (1.0 - BETA_MOMENTUM) * share)
        return list(torch._foreach_div(momentum, 1.0 - BETA_MOMENTUM**step))

    def state_dict(self) -> dict[str, Any]:
        """Statistics and step counts per group; tensors are the live ones."""
        return {
            name: {
                "square": {str(i): t for i, t in enumerate(self.square[name])},
                "momentum": {str(i): t for i, t in enumerate(self.momentum[name])},
                "steps": self.steps[name],
            }
            for name in self.params
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy statistics of the groups named in `state`; other groups stay as they are."""
        for name, group in state.items():
            for own, saved in ((self.square, "square"), (self.momentum, "momentum")):
                for index, tensor in enumerate(own[name]):
                    tensor.copy_(group[saved][str(index)])
            self.steps[name] = group["steps"]


def _move(values: list[Tensor], targets: Sequence[Tensor], share: float | Tensor) -> None:
    """values += share * (targets - values), in place; `share` may be a tensor on the device."""
    delta = torch._foreach_sub(targets, values)
    torch._foreach_mul_(delta, share)
    torch._foreach_add_(values, delta)
