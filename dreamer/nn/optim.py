"""LaProp with adaptive gradient clipping; the learning rate stays outside the momentum.

Keeping the rate outside makes the step `-rate * direction` linear in the rate, which the
meta-gradient relies on, and lets warm-up and decay act at once.

Source: Ziyin et al. 2020 (arXiv 2002.04839, LaProp), Brock et al. 2021 (arXiv 2102.06171, AGC,
here per tensor), constants of the official DreamerV3 code.
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

Tensors = list[Tensor] | tuple[Tensor, ...]  # what the foreach functions take


def clip_gradients(params: Tensors, grads: Tensors) -> list[Tensor]:
    """Scale each gradient tensor to a norm of at most 0.3 * max(1e-3, norm of its parameter)."""
    return _clip(params, grads, torch.stack(torch._foreach_norm(grads)))


def _clip(params: Tensors, grads: Tensors, norms: Tensor) -> list[Tensor]:
    limits = CLIP * torch.stack(torch._foreach_norm(params)).clamp_min_(CLIP_FLOOR)
    excess = (norms / limits).clamp_min_(1.0)
    return list(torch._foreach_div(grads, list(excess.unbind())))


class LaProp:
    """One optimiser with named parameter groups that may step at different times.

    The statistics of a group are one flat vector: a step is a dozen operations on it, and not on
    each of many small tensors.

    Args:
        groups: name -> parameters; a parameter belongs to one group only.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.params: dict[str, list[Tensor]] = {k: list(params) for k, params in groups.items()}
        self.square = {name: _zeros(params) for name, params in self.params.items()}
        self.momentum = {name: _zeros(params) for name, params in self.params.items()}
        # On the device, since a shut gate does not count: the bias corrections must know how many
        # gradients the averages have really seen.
        self.steps = {name: _no_steps(params) for name, params in self.params.items()}

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
        norms = torch.stack(torch._foreach_norm(grads))
        clipped = torch.cat([grad.flatten() for grad in _clip(params, grads, norms)])
        share = 1.0 if gate is None else gate
        move = self._direction(name, clipped, share).mul_(-rate * share)
        torch._foreach_add_(params, _split(move, params))
        return norms.norm()

    def _direction(self, name: str, grad: Tensor, share: float | Tensor) -> Tensor:
        square, momentum = self.square[name], self.momentum[name]
        self.steps[name] += share
        step = self.steps[name].clamp_min(1.0)
        square.lerp_(grad.square(), (1.0 - BETA_RMS) * share)
        root = (square / (1.0 - BETA_RMS**step)).sqrt_().add_(EPS)
        momentum.lerp_(grad.div_(root), (1.0 - BETA_MOMENTUM) * share)
        return momentum / (1.0 - BETA_MOMENTUM**step)

    def state_dict(self) -> dict[str, Any]:
        """Statistics per parameter and step counts per group; tensors are the live ones."""
        return {
            name: {
                "square": _numbered(_split(self.square[name], params)),
                "momentum": _numbered(_split(self.momentum[name], params)),
                "steps": self.steps[name],
            }
            for name, params in self.params.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy statistics of the groups named in `state`; other groups stay as they are."""
        own = self.state_dict()
        for name, group in state.items():
            for statistic in ("square", "momentum"):
                for index, tensor in own[name][statistic].items():
                    tensor.copy_(group[statistic][index])
            self.steps[name].copy_(group["steps"])


def _zeros(params: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros_like(param).flatten() for param in params])


def _no_steps(params: Sequence[Tensor]) -> Tensor:
    """() float64, which counts any number of steps exactly, beside the parameters."""
    return torch.zeros((), dtype=torch.float64, device=params[0].device)


def _split(flat: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat vector, shaped like the parameters."""
    parts = flat.split([param.numel() for param in params])
    return [part.view_as(param) for part, param in zip(parts, params, strict=True)]


def _numbered(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(index): tensor for index, tensor in enumerate(tensors)}
