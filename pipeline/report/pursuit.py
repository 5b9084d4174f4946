"""What the manager asks for while an agent acts: which goal when, and what it stands for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamer.agent import Agent
from dreamer.behavior.goal_policy import GoalCarry
from dreamer.behavior.goals import goal_reward
from dreamer.types import Rows
from dreamer.world_model.model import MultimodalWorldModel


class Pursuit(NamedTuple):
    """What was pursued on n steps of an episode.

    Attributes:
        start: (G,) int, the step at which each goal was chosen; `ends` says until when.
        code: (G, L) int, its choices. classes: C. goal: (G, D).
        likeness: (n,) of state and goal on arriving, as the worker is paid for it.
    """

    start: np.ndarray
    code: np.ndarray
    classes: int
    goal: Tensor
    likeness: np.ndarray

    @property
    def steps(self) -> int:
        """Length n."""
        return len(self.likeness)

    @property
    def ends(self) -> np.ndarray:
        """(G,) int, the row at which each goal was given up."""
        return np.append(self.start[1:], self.steps)


class GoalLog:
    """Watches an agent act and keeps what it pursues; of an agent without goals nothing.

    Args:
        groups: L, choices of a code.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.deters: list[Tensor] = []
        self.carries: list[GoalCarry] = []

    def __call__(self, rows: Rows, action: np.ndarray, agent: Agent) -> None:
        """Take one row of one environment into the log."""
        del rows, action
        if isinstance(agent.carry, GoalCarry):
            self.deters.append(agent.state.deter[0])
            self.carries.append(GoalCarry(*(part[0] for part in agent.carry)))

    def pursuit(self, every: int) -> Pursuit | None:
        """What was pursued on the way to the last row; None if nothing was.

        Args:
            every: K. The clock has gone on by the time it is seen.
        """
        if len(self.carries) < 2:
            return None
        carries = self.carries[:-1]  # what was chosen at the last row led nowhere
        start = [t for t, carry in enumerate(carries) if int(carry.clock) == 1 % every]
        code = torch.stack([carries[t].code for t in start]).unflatten(-1, (-1, self.groups))
        goal = torch.stack([carry.goal for carry in carries])
        likeness = goal_reward(goal, torch.stack(self.deters[1:]))
        return Pursuit(
            np.array(start),
            code.argmax(1).cpu().numpy(),
            code.shape[1],
            goal[start],
            likeness.cpu().numpy(),
        )


@torch.no_grad()
def decode_goals(model: MultimodalWorldModel, goal: Tensor) -> dict[str, np.ndarray]:
    """Observations (G, *) that goals (G, D) stand for, by the most probable stoch of the prior."""
    probs = model.rssm.prior(goal)
    likeliest = torch.zeros_like(probs).scatter_(-2, probs.argmax(-2, keepdim=True), 1.0)
    decoded = model.decode(torch.cat([goal, likeliest.flatten(-2)], -1))
    return {key: value.cpu().numpy() for key, value in decoded.items()}
