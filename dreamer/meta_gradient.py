"""Learning rates that tune themselves: descent of a held-out loss along what the rates did.

A step of the optimiser moves parameters in proportion to the rate, so that the move itself is the
derivative of the parameters with respect to the logarithm of the rate, and its inner product with
the gradient of a held-out loss after the step is that loss's derivative: one backward pass, no
second derivatives. With `LaProp.trace` in the place of the last move the same product looks several
steps back, which counters the bias of one-step objectives towards small rates.

Source: Xu et al. 2018 (arXiv 1805.09801), online cross-validation and traces; Baydin et al. 2018
(arXiv 1703.04782), hypergradients; Wu et al. 2018 (arXiv 1803.02021), short-horizon bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dreamer.nn.optim import split_flat
from dreamer.types import ConfigError, Metrics, check_range

LIMIT = 0.05  # a step changes the logarithm of a rate by no more
MEMORY = 0.95  # of the mean size of hypergradients: 20 meta steps
TINY = 1e-12
SPREAD = 10.0  # how far a weight may go from where it started, as a factor
ACTING = "actor"  # the group whose rate is `meta/lr`


@dataclass(frozen=True, kw_only=True)
class MetaConfig:
    """What is tuned about the tuning of rates.

    Attributes:
        enabled: Whether rates move at all.
        every: Updates from one meta step to the next.
        warmup: Updates before the first.
        step: Change of the logarithm of a rate at a hypergradient of the usual size; 0 leaves the
            rates as they are, to the bit.
        trace: Decay of the trace of moves: 0 examines the last optimiser step alone, 0.9 the last
            ten or so together.
        check: Every so many meta steps are compared with finite differences; 0 is never.
        weights: Whether the weights of entropy and of intrinsic streams in the acting policy's loss
            tune themselves too.
    """

    enabled: bool
    every: int
    warmup: int
    step: float
    trace: float
    check: int
    weights: bool

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_range("every", self.every, 1, 10**9)
        check_range("warmup", self.warmup, 0, 10**9)
        check_range("step", self.step, 0.0, LIMIT)
        check_range("trace", self.trace, 0.0, 0.999)
        check_range("check", self.check, 0, 10**9)


class Tuned(NamedTuple):
    """A positive number under tuning; all are () float64.

    Attributes:
        value: The number, such as a learning rate.
        size: Moving average of the absolute hypergradient, from 0. seen: How many of them.
    """

    value: Tensor
    size: Tensor
    seen: Tensor

    @classmethod
    def start(cls, value: float, device: torch.device) -> Tuned:
        """Before the first hypergradient."""
        numbers = (value, 0.0, 0.0)
        return cls(*(torch.tensor(x, dtype=torch.float64, device=device) for x in numbers))


def tune(tuned: Tuned, slope: Tensor, step: float, low: float, high: float) -> Tuned:
    """Descend in the logarithm, by `step` where the slope has its usual size.

    Args:
        tuned: As it is. slope: () derivative of the loss with respect to the logarithm.
        step: Size of the step. low, high: Bounds of the value.

    Returns:
        As it is afterwards; NaN if the slope is not finite, so that the run can be ended.
    """
    seen = tuned.seen + 1.0
    size = tuned.size.lerp(slope.abs(), 1.0 - MEMORY)
    usual = size / (1.0 - MEMORY**seen)
    change = (step * slope / (usual + TINY)).clamp(-LIMIT, LIMIT)
    # A factor, not a sum of logarithms: at step 0 the value keeps its bits.
    return Tuned((tuned.value * (-change).exp()).clamp(low, high), size, seen)


def hypergradient(gradients: Sequence[Tensor], tangents: Sequence[Tensor]) -> Tensor:
    """Derivative of a held-out loss with respect to what moved the parameters.

    Args:
        gradients: One flat vector per optimiser group: of the held-out loss, at the parameters
            after the step.
        tangents: One per group: derivative of the parameters, which is `LaProp.trace` for the
            logarithm of their rate and `LaProp.response` for the weight of a part of their loss.

    Returns:
        () float64, summed over groups.
    """
    # Not a dot product, whose order of summation may depend on where the vectors lie in memory.
    pairs = zip(gradients, tangents, strict=True)
    return torch.stack([(g * t).sum(dtype=torch.float64) for g, t in pairs]).sum()


@torch.no_grad()
def finite_difference(
    objective: Callable[[], Tensor], params: Sequence[Tensor], direction: Tensor
) -> Tensor:
    """Central difference of an objective along a direction of its parameters.

    The step is the cube root of the precision, relative to the norm of the parameters, where
    rounding and curvature spoil the result equally little. Afterwards the parameters have their old
    bits.

    Args:
        objective: () loss with the same noise at every call. Its gradient must be that of its
            value: straight-through samples and stop-gradients, such as KL balancing, make the two
            differ.
        params: Of one or several groups. direction: Flat, in their order.

    Returns:
        () float64 derivative along `direction`.
    """
    saved = [param.clone() for param in params]
    length = torch.stack(torch._foreach_norm(saved)).norm().double()
    relative = torch.finfo(direction.dtype).eps ** (1 / 3)
    step = relative * length.clamp_min(1e-3) / direction.norm().double().clamp_min(TINY)
    moves = split_flat(direction * step, params)
    values = []
    try:
        for sign in (1.0, -1.0):
            for param, old, move in zip(params, saved, moves, strict=True):
                param.copy_(old + sign * move)
            values.append(objective().double())
    finally:
        for param, old in zip(params, saved, strict=True):
            param.copy_(old)
    return (values[0] - values[1]) / (2.0 * step)


class MetaGradient:
    """Owns the learning rates: what multiplies each optimiser group's direction.

    Several groups may share one rate; their hypergradients add. Everything stays on the device.
    Nothing here is random, and at `step` 0 training is that with fixed rates, to the bit.

    Args:
        rates: name -> learning rate to start from. config: What is tuned. device: Of the trainer.

    Raises:
        ConfigError: If a rate lies outside of LOWEST and HIGHEST.
    """

    LOWEST = 1e-6
    HIGHEST = 1e-2

    def __init__(
        self, rates: Mapping[str, float], config: MetaConfig, device: torch.device
    ) -> None:
        for name, rate in rates.items():
            if not self.LOWEST <= rate <= self.HIGHEST:
                allowed = f"{self.LOWEST:g} to {self.HIGHEST:g} while meta.enabled"
                raise ConfigError(f"{name}_lr", rate, allowed)
        self.config = config
        self.tuned = {name: Tuned.start(rate, device) for name, rate in rates.items()}
        self.weights: dict[str, Tuned] = {}
        self._bounds: dict[str, tuple[float, float]] = {}

    def follow_weights(self, weights: Mapping[str, float], device: torch.device) -> None:
        """Tune these weights of parts of the acting policy's loss from now on, to within SPREAD
        times where they start: judged one step later, a bonus for entropy always looks too high.
        """
        self.weights = {name: Tuned.start(weight, device) for name, weight in weights.items()}
        self._bounds = {name: (w / SPREAD, w * SPREAD) for name, w in weights.items()}

    def weight(self, name: str) -> Tensor:
        """() float32 weight as it is now."""
        return self.weights[name].value.float()

    def step_weight(self, name: str, gradients: Tensor, response: Tensor) -> Metrics:
        """Move one weight.

        Args:
            gradients: Flat, of the held-out loss after the step.
            response: Flat derivative of the step with respect to the weight, `LaProp.response`.

        Returns:
            `meta/gradient_<name>_weight`.
        """
        own = self.weights[name]
        slope = hypergradient([gradients], [own.value.to(response.dtype) * response])
        self.weights[name] = tune(own, slope, self.config.step, *self._bounds[name])
        return {f"meta/gradient_{name}_weight": slope}

    def rate(self, name: str) -> Tensor:
        """() float64 learning rate as it is now."""
        return self.tuned[name].value

    def due(self, update: int) -> bool:
        """Whether a meta step follows this update (counted from 0)."""
        since = update - self.config.warmup
        return self.config.enabled and since >= 0 and since % self.config.every == 0

    def check_due(self, update: int) -> bool:
        """Whether that meta step is compared with finite differences."""
        number = (update - self.config.warmup) // self.config.every
        return self.due(update) and self.config.check > 0 and number % self.config.check == 0

    def step(self, name: str, gradients: Sequence[Tensor], tangents: Sequence[Tensor]) -> Metrics:
        """Move one rate.

        Args:
            name: Of the rate. gradients, tangents: Of the groups that share it, as `hypergradient`
                takes them; the tangents are traces.

        Returns:
            `meta/gradient_<name>`, which is not finite exactly if the rate is lost to NaN.
        """
        slope = hypergradient(gradients, tangents)
        self.tuned[name] = tune(
            self.tuned[name], slope, self.config.step, self.LOWEST, self.HIGHEST
        )
        return {f"meta/gradient_{name}": slope}

    def check(
        self,
        name: str,
        objective: Callable[[], Tensor],
        params: Sequence[Tensor],
        gradients: Sequence[Tensor],
        tangents: Sequence[Tensor],
    ) -> Metrics:
        """Compare a hypergradient with a finite difference; see `finite_difference`.

        Args:
            name: Of the rate. objective: The held-out loss whose gradients are given.
            params: Of all groups that share the rate, in the order of the vectors.
            gradients, tangents: As for `step`.
        """
        slope = hypergradient(gradients, tangents)
        measured = finite_difference(objective, params, torch.cat(list(tangents)))
        larger = torch.maximum(slope.abs(), measured.abs()).clamp_min(TINY)
        return {f"meta/fd_error_{name}": (measured - slope).abs() / larger}

    def metrics(self) -> Metrics:
        """`meta/lr` of the acting policy, `meta/lr_<name>` of the others."""
        names = {name: "meta/lr" if name == ACTING else f"meta/lr_{name}" for name in self.tuned}
        rates = {label: self.tuned[name].value for name, label in names.items()}
        return rates | {f"meta/{name}_weight": own.value for name, own in self.weights.items()}

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Value, mean size of hypergradients and their number, per rate and weight."""
        return {name: tuned._asdict() for name, tuned in self._all().items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            KeyError: If the names are not the same.
        """
        own = self._all()
        if state.keys() != own.keys():
            raise KeyError(f"rates of {sorted(state)} instead of {sorted(own)}")
        for name, tuned in own.items():
            restored = (state[name][key].to(tuned.value.device, copy=True) for key in Tuned._fields)
            holder, key = self._place(name)
            holder[key] = Tuned(*restored)

    def _all(self) -> dict[str, Tuned]:
        return self.tuned | {f"weight/{name}": own for name, own in self.weights.items()}

    def _place(self, name: str) -> tuple[dict[str, Tuned], str]:
        weight = name.removeprefix("weight/")
        return (self.tuned, name) if weight == name else (self.weights, weight)
