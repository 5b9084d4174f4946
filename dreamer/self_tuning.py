"""SelfTuning: which learning rates and loss weights of a trainer MetaGradient owns, and what they
are judged by.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamer.behavior.hierarchy import HierarchicalPPO, Lesson
from dreamer.meta_gradient import MetaConfig, MetaGradient
from dreamer.nn.optim import LaProp
from dreamer.types import ConfigError, Metrics, Rate


class SelfTuning:
    """The rates of world model, actor, manager and critics, and on request weights of the acting
    policy's loss.

    Args:
        behavior, optimizer: Of the trainer. rates: Optimiser group -> rate to start from.
        config: What is tuned. device: Of the trainer.

    Raises:
        ConfigError: If weights are to be tuned where no PPO step can be examined.
    """

    def __init__(
        self,
        behavior: HierarchicalPPO,
        optimizer: LaProp,
        rates: dict[str, float],
        config: MetaConfig,
        device: torch.device,
    ) -> None:
        self.behavior, self.optimizer = behavior, optimizer
        self.names = {"world": "world"} | behavior.rate_names()
        start = {name: rates[group] for group, name in self.names.items()}
        self.meta = MetaGradient(start, config, device)
        optimizer.follow(self.names, config.trace)
        if config.weights:
            if behavior.config.actor == "reinforce":
                raise ConfigError("meta.weights", True, "false, or policy.actor: ppo")
            self.meta.follow_weights(tunable_weights(behavior), device)
            optimizer.remember_gradients([behavior.acting.actor_group])

    def due(self, index: int) -> bool:
        """Whether a meta step follows update `index`."""
        return self.meta.due(index)

    def rates(self) -> dict[str, Tensor]:
        """Optimiser group -> () learning rate."""
        return {group: self.meta.rate(name) for group, name in self.names.items()}

    def examined(self, index: int) -> tuple[str, ...]:
        """Parts of the acting policy's loss whose gradients update `index` must keep."""
        return tuple(self.meta.weights) if self.due(index) else ()

    def apply_weights(self) -> None:
        """Let the acting policy learn with the weights as they are now."""
        acting = self.behavior.acting
        for name in self.meta.weights:
            if name == "entropy":
                acting.entropy_scale = self.meta.weight(name)
            else:
                acting.streams.weights[name] = self.meta.weight(name)

    def step(self, lessons: list[Lesson], index: int, share: float) -> Metrics:
        """Move rates and weights; the parameters hold the gradients of the held-out losses.

        Args:
            lessons: What behaviour was judged by. index: Of the update that has just been made.
            share: Multiplier that its learning rates had.
        """
        metrics = self._step_weights(share)
        for name in self.meta.tuned:
            gradients, traces, _ = self._of(name)
            metrics |= self.meta.step(name, gradients, traces)
        if self.meta.check_due(index):
            metrics |= self._check(lessons)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Rates and weights with their statistics."""
        return self.meta.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            KeyError: If the names are not the same.
        """
        self.meta.load_state_dict(state)

    def _step_weights(self, share: float) -> Metrics:
        acting, metrics = self.behavior.acting, Metrics()
        group = acting.actor_group
        rate: Rate = self.rates()[group] * share
        for name in self.meta.weights:
            response = self.optimizer.response(group, rate, acting.parts[name])
            metrics |= self.meta.step_weight(name, self.optimizer.gradient(group), response)
        return metrics

    def _check(self, lessons: list[Lesson]) -> Metrics:
        """Behaviour's hypergradients against finite differences; the world model's losses hold
        stop-gradients, whose finite differences are something else.
        """

        def objective() -> Tensor:
            losses = [x.level.held_out_loss(x.rollout, x.targets) for x in lessons]
            return torch.stack(losses).sum()

        metrics: Metrics = {}
        for name in self.meta.tuned:
            if name != "world":
                gradients, traces, params = self._of(name)
                metrics |= self.meta.check(name, objective, params, gradients, traces)
        return metrics

    def _of(self, name: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Gradients, traces and parameters of the groups that share a rate."""
        groups = [group for group, own in self.names.items() if own == name]
        return (
            [self.optimizer.gradient(group) for group in groups],
            [self.optimizer.trace[group] for group in groups],
            [param for group in groups for param in self.optimizer.params[group]],
        )


def tunable_weights(behavior: HierarchicalPPO) -> dict[str, float]:
    """Weights of entropy and of the intrinsic streams that the acting policy has."""
    level = behavior.acting.level
    streams = {k: w for k, w in level.weights.items() if k in ("icm", "empowerment")}
    return {k: w for k, w in ({"entropy": level.entropy_scale} | streams).items() if w > 0.0}
