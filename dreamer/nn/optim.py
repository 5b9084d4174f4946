"""LaProp with adaptive gradient clipping; the learning rate stays outside the momentum.

Keeping the rate outside makes the step `-rate * direction` linear in the rate, which the
meta-gradient relies on, and lets warm-up and decay act at once. The derivatives of a step are here
too, for groups that ask: with respect to the logarithm of the rate it is the move itself (`trace`),
with respect to the gradient a closed form (`response`).

Source: Ziyin et al. 2020 (arXiv 2002.04839, LaProp), Brock et al. 2021 (arXiv 2102.06171, AGC,
here per tensor), constants of the official DreamerV3 code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    excess = _excess(params, torch.stack(torch._foreach_norm(grads)))
    return list(torch._foreach_div(grads, list(excess.unbind())))


def flat_gradient(params: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Tensor:
    """One vector in the order of `params`, as traces are; missing gradients count as zero.

    Args:
        params: Of one group. grads: Their gradients, as `torch.autograd.grad` gives them.
    """
    pairs = zip(params, grads, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def split_flat(flat: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat vector, shaped like the parameters."""
    parts = flat.split([param.numel() for param in params])
    return [part.view_as(param) for part, param in zip(parts, params, strict=True)]


class LaProp:
    """One optimiser with named parameter groups that may step at different times.

    The statistics of a group are one flat vector: a step is a dozen operations on it, and not on
    each of many small tensors.

    Args:
        groups: name -> parameters; a parameter belongs to one group only.

    Attributes:
        trace: Group -> decayed sum of its moves, for the groups that are followed.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.params: dict[str, list[Tensor]] = {k: list(params) for k, params in groups.items()}
        self.square = {name: _zeros(params) for name, params in self.params.items()}
        self.momentum = {name: _zeros(params) for name, params in self.params.items()}
        # On the device, since a shut gate does not count: the bias corrections must know how many
        # gradients the averages have really seen.
        self.steps = {name: _no_steps(params) for name, params in self.params.items()}
        self.trace: dict[str, Tensor] = {}
        self._decay: dict[str, float] = {}
        # Of the last step: gradient over root mean square, and by how much each tensor was clipped.
        self._unit: dict[str, Tensor] = {}
        self._excess: dict[str, Tensor] = {}

    def follow(self, names: Iterable[str], decay: float) -> None:
        """Keep `trace = decay * trace + move` of these groups from now on.

        The trace is the derivative of the parameters with respect to the logarithm of the rate:
        exactly that of the last step with decay 0, and with more that of the last 1 / (1 - decay)
        steps together, but for how a move changes the gradients after it. A step behind a shut gate
        does not count, so that the trace still belongs to the last one that was made.

        Args:
            names: Groups. decay: In [0, 1].

        Source: Baydin et al. 2018 (arXiv 1703.04782); Xu et al. 2018 (arXiv 1805.09801), the trace.
        """
        for name in names:
            self.trace[name] = _zeros(self.params[name])
            self._decay[name] = decay

    def remember_gradients(self, names: Iterable[str]) -> None:
        """Keep of every step of these groups what `response` needs."""
        for name in names:
            params = self.params[name]
            self._unit[name] = _zeros(params)
            self._excess[name] = params[0].new_ones(len(params))

    def gradient(self, name: str) -> Tensor:
        """The gradients that a group's parameters hold, as one vector."""
        return flat_gradient(self.params[name], [param.grad for param in self.params[name]])

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
        excess = _excess(params, norms)
        clipped = torch._foreach_div(grads, list(excess.unbind()))
        share = 1.0 if gate is None else gate
        flat = torch.cat([grad.flatten() for grad in clipped])
        move = self._direction(name, flat, share).mul_(-rate * share)
        torch._foreach_add_(params, split_flat(move, params))
        if name in self.trace:
            self.trace[name].mul_(1.0 - (1.0 - self._decay[name]) * share).add_(move)
        if name in self._excess:
            self._excess[name].lerp_(excess, share)
        return norms.norm()

    def _direction(self, name: str, grad: Tensor, share: float | Tensor) -> Tensor:
        square, momentum = self.square[name], self.momentum[name]
        self.steps[name] += share
        step = self.steps[name].clamp_min(1.0)
        square.lerp_(grad.square(), (1.0 - BETA_RMS) * share)
        unit = grad.div_(self._root(name))
        momentum.lerp_(unit, (1.0 - BETA_MOMENTUM) * share)
        if name in self._unit:
            self._unit[name].lerp_(unit, share)
        return momentum / (1.0 - BETA_MOMENTUM**step)

    def _root(self, name: str) -> Tensor:
        """Debiased root mean square of a group's clipped gradients."""
        step = self.steps[name].clamp_min(1.0)
        return (self.square[name] / (1.0 - BETA_RMS**step)).sqrt_().add_(EPS)

    @torch.no_grad()
    def response(self, name: str, rate: float | Tensor, tangent: Tensor) -> Tensor:
        """Derivative of a group's last move along a change of the gradient that it was given.

        For a loss that holds `eta * part`, with `part`'s gradient as `tangent`, this is the
        derivative of the stepped parameters with respect to eta. It is exact. The new gradient's
        share in the mean square counts, which cancels the whole response at the first step, where
        only signs matter; held constant, it would cost 2 % at the 20th step and 0.1 % at the 200th.
        So does clipping, after which a tensor's norm cannot change; a constant factor would be
        wrong by half and more. Where a parameter has had no gradient yet the derivative does not
        exist; 0 is given.

        Args:
            name: A group whose gradients are remembered. rate: That of the step.
            tangent: Flat, at the parameters before the step.

        Returns:
            Flat, like the trace.
        """
        step = self.steps[name].clamp_min(1.0)
        root, unit = self._root(name), self._unit[name]
        change = self._clipped_change(name, unit * root, tangent).div_(root)
        change.mul_(1.0 - unit.square().mul_((1.0 - BETA_RMS) / (1.0 - BETA_RMS**step)))
        change.mul_(-rate * (1.0 - BETA_MOMENTUM) / (1.0 - BETA_MOMENTUM**step))
        return change.masked_fill_(self.square[name] == 0, 0.0)

    def _clipped_change(self, name: str, clipped: Tensor, tangent: Tensor) -> Tensor:
        """Change of the clipped gradients; a tensor at its limit loses the part along itself."""
        params = self.params[name]
        changes = split_flat(tangent, params)
        grads = split_flat(clipped, params)
        along = torch.stack([(g * v).sum() for g, v in zip(grads, changes, strict=True)])
        square = torch.stack([g.square().sum() for g in grads])
        excess = self._excess[name]
        along = torch.where(excess > 1.0, along / square, 0.0)
        parts = zip(grads, changes, along.unbind(), excess.unbind(), strict=True)
        return torch.cat([((v - g * a) / e).flatten() for g, v, a, e in parts])

    def state_dict(self) -> dict[str, Any]:
        """Statistics per parameter and step counts per group; tensors are the live ones."""
        state: dict[str, Any] = {}
        for name, params in self.params.items():
            state[name] = {
                "square": _numbered(split_flat(self.square[name], params)),
                "momentum": _numbered(split_flat(self.momentum[name], params)),
                "steps": self.steps[name],
            }
            if name in self.trace:
                state[name]["trace"] = _numbered(split_flat(self.trace[name], params))
            if name in self._unit:
                state[name]["unit"] = _numbered(split_flat(self._unit[name], params))
                state[name]["excess"] = self._excess[name]
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy statistics of the groups named in `state`; other groups stay as they are.

        A trace that `state` does not have stays as it is, too: pretraining follows nothing.

        Raises:
            KeyError: If a group or statistic is missing, or is one that is not kept here.
        """
        own = self.state_dict()
        for name, group in state.items():
            for statistic in dict.fromkeys(("square", "momentum", "steps", *group)):
                target, source = own[name][statistic], group[statistic]
                if isinstance(target, Tensor):
                    target.copy_(source)
                    continue
                for index, tensor in target.items():
                    tensor.copy_(source[index])


def _excess(params: Tensors, norms: Tensor) -> Tensor:
    """(tensors,) by which factor each gradient is too long, at least 1."""
    limits = CLIP * torch.stack(torch._foreach_norm(params)).clamp_min_(CLIP_FLOOR)
    return (norms / limits).clamp_min_(1.0)


def _zeros(params: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros_like(param).flatten() for param in params])


def _no_steps(params: Sequence[Tensor]) -> Tensor:
    """() float64, which counts any number of steps exactly, beside the parameters."""
    return torch.zeros((), dtype=torch.float64, device=params[0].device)


def _numbered(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(index): tensor for index, tensor in enumerate(tensors)}
