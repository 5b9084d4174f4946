"""Exact returns of a whole episode by backward induction, and distances to a reward.

A task small enough to write down as tables needs no estimate of what random play earns and what is
the most that can be earned: both follow from the last step to the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Choose = Callable[[np.ndarray], np.ndarray]  # (S, A) values of actions -> (S,) value of the state


class Tables(NamedTuple):
    """A task of S states, A actions and at most K outcomes of an action.

    Attributes:
        successor: (S, A, K) int; `S` (see `fresh`) is a state drawn from `start` within the same
            step, `S + 1` (see `over`) the end of the episode.
        probability: (S, A, K) float64, sums to 1 over the outcomes.
        reward: (S, A, K) float64, received with the outcome.
        start: (S,) float64 distribution of the first state.
        steps: Steps after which an episode is cut.
    """

    successor: np.ndarray
    probability: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    steps: int

    @property
    def fresh(self) -> int:
        """Successor that stands for a draw from `start`."""
        return len(self.start)

    @property
    def over(self) -> int:
        """Successor that stands for the end of the episode."""
        return len(self.start) + 1


def empty(states: int, actions: int, outcomes: int, steps: int) -> Tables:
    """Tables in which every action ends the episode for nothing, to be filled in place."""
    shape = (states, actions, outcomes)
    probability = np.zeros(shape)
    probability[..., 0] = 1.0
    over = np.full(shape, states + 1)
    return Tables(over, probability, np.zeros(shape), np.zeros(states), steps)


def optimal(tables: Tables) -> float:
    """Expected undiscounted return of the best policy, which may look at the clock."""
    return _induce(tables, lambda action_values: action_values.max(1))


def uniform(tables: Tables) -> float:
    """Expected undiscounted return of choosing every action with the same probability."""
    return _induce(tables, lambda action_values: action_values.mean(1))


def steps_to_reward(tables: Tables) -> np.ndarray:
    """Fewest steps until a positive reward can be received: (S,) float64, infinite if never.

    Breadth-first: round n of the loop settles every state n steps away. An outcome counts as
    possible if its probability is positive.
    """
    states = len(tables.start)
    possible = tables.probability > 0
    paid = possible & (tables.reward > 0)
    inside = possible & (tables.successor < states)
    distance = np.full(states, np.inf)
    for n in range(1, states + 1):
        near = inside & (distance == n - 1)[np.minimum(tables.successor, states - 1)]
        settled = (paid if n == 1 else near).any((1, 2)) & np.isinf(distance)
        if not settled.any():
            break
        distance[settled] = n
    return distance


def _induce(tables: Tables, choose: Choose) -> float:
    immediate = (tables.probability * tables.reward).sum(-1)
    value = np.zeros(tables.over + 1)
    for _ in range(tables.steps):
        later = (tables.probability * value[tables.successor]).sum(-1)
        value[: tables.fresh] = choose(immediate + later)
        value[tables.fresh] = tables.start @ value[: tables.fresh]
    return float(value[tables.fresh])
