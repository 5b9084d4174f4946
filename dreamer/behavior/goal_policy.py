"""Manager and worker as one policy: in environments with a clock per row, in imagination with one.

Source: Hafner et al. 2022 (arXiv 2206.04114). Unlike its code, the clock starts anew with every
episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dreamer.behavior.actor_critic import Actor
from dreamer.behavior.goals import GoalAutoencoder
from dreamer.types import Acted, NoiseSource


class GoalCarry(NamedTuple):
    """clock (N,) int64 steps since the goal was chosen, wrapped at K; code (N, C * L) and goal
    (N, D) that are pursued.
    """

    clock: Tensor
    code: Tensor
    goal: Tensor


class GoalPolicy:
    """A manager chooses a goal code every K steps, a worker pursues the decoded goal. Satisfies
    `Policy`; owns no weights.

    The worker reads the code and is paid for the goal that it decodes to: the code says as much,
    and is several times narrower.

    Args:
        manager, worker: Actors on (N, F) and on (N, F + C * L). goals: Decodes codes.
        every: K. deter: D.
    """

    def __init__(
        self, manager: Actor, worker: Actor, goals: GoalAutoencoder, every: int, deter: int
    ) -> None:
        self.manager, self.worker, self.goals = manager, worker, goals
        self.every, self.deter = every, deter

    def initial(self, batch: int) -> GoalCarry:
        """Carry of `batch` fresh episodes, whose goals are chosen at their first step."""
        like = self.manager.out.bias
        return GoalCarry(
            torch.zeros(batch, dtype=torch.int64, device=like.device),
            like.new_zeros(batch, self.manager.spec.dim),
            like.new_zeros(batch, self.deter),
        )

    def draw(self, noise: NoiseSource, stream: str, index: int, lead: tuple[int, ...]) -> Tensor:
        """(*lead, K + L): the worker's noise, then the manager's, each from a stream of its own."""
        own = self.worker.draw(noise, stream, index, lead)
        return torch.cat([own, self.manager.draw(noise, f"{stream}/goal", index, lead)], -1)

    def act(self, feat: Tensor, carry: GoalCarry, is_first: Tensor, noise: Tensor) -> Acted:
        """See `Policy.act`; the log-probability and entropy are the worker's."""
        own, choice = split_noise(self.worker, noise)
        carry = self._pursue(carry, is_first, lambda: self.manager(feat).sample(choice))
        acted = self.worker.act(torch.cat([feat, carry.code], -1), (), is_first, own)
        return acted._replace(carry=self._tick(carry))

    def mode(self, feat: Tensor, carry: GoalCarry, is_first: Tensor) -> tuple[Tensor, GoalCarry]:
        """Most probable goal and action."""
        carry = self._pursue(carry, is_first, lambda: self.manager(feat).mode())
        action, _ = self.worker.mode(torch.cat([feat, carry.code], -1), (), is_first)
        return action, self._tick(carry)

    def _pursue(
        self, carry: GoalCarry, is_first: Tensor, choose: Callable[[], Tensor]
    ) -> GoalCarry:
        """Exchange the goals of rows whose time is up."""
        clock = torch.where(is_first, 0, carry.clock)
        due = (clock == 0).unsqueeze(-1)
        code = torch.where(due, choose(), carry.code)
        return GoalCarry(clock, code, torch.where(due, self.goals.decode(code), carry.goal))

    def _tick(self, carry: GoalCarry) -> GoalCarry:
        return carry._replace(clock=(carry.clock + 1) % self.every)


class Pursuit(NamedTuple):
    """Carry in imagination: steps made, and of the goal that is pursued the code (N, C * L), the
    goal (N, D), and the manager's log-probability and entropy (N,) when it chose.
    """

    step: int
    code: Tensor
    goal: Tensor
    log_prob: Tensor
    entropy: Tensor


class ImaginedGoalPolicy:
    """The same policy where all rows start together: one clock on the host, and the manager is
    asked at every K-th step only. Satisfies `Policy`.

    Args:
        policy: The policy. act: `worker.act`, or a compiled form of it.
    """

    def __init__(self, policy: GoalPolicy, act: Callable[..., Acted] | None = None) -> None:
        self.policy, self._act = policy, act or policy.worker.act
        self.draw, self.mode = policy.draw, policy.mode

    def initial(self, batch: int) -> Pursuit:
        """No step was made, nothing is pursued."""
        nothing = self.policy.manager.out.bias.new_zeros(batch, 0)
        return Pursuit(0, nothing, nothing, nothing, nothing)

    def act(self, feat: Tensor, carry: Pursuit, is_first: Tensor, noise: Tensor) -> Acted:
        """See `Policy.act`."""
        own, choice = split_noise(self.policy.worker, noise)
        if carry.step % self.policy.every == 0:
            carry = self._choose(feat, carry.step, choice)
        acted = self._act(torch.cat([feat, carry.code], -1), (), is_first, own)
        return acted._replace(carry=carry._replace(step=carry.step + 1))

    @torch.no_grad()
    def _choose(self, feat: Tensor, step: int, noise: Tensor) -> Pursuit:
        dist = self.policy.manager(feat)
        code = dist.sample(noise)
        goal = self.policy.goals.decode(code)
        return Pursuit(step, code, goal, dist.log_prob(code), dist.entropy())


def split_noise(worker: Actor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What `GoalPolicy.draw` put together: the worker's noise and the manager's."""
    width = worker.spec.noise_dim
    return noise[..., :width], noise[..., width:]
