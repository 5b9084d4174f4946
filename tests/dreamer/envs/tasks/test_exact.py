"""Backward induction on tables whose values a hand can work out."""

import itertools

import numpy as np
import pytest

from dreamer.envs.tasks import exact


def corridor(steps):
    """Three states in a row; action 1 goes right, 0 stays; leaving at the right earns 2."""
    tables = exact.empty(3, 2, 1, steps=steps)
    tables.start[0] = 1.0
    for state in range(3):
        tables.successor[state, 0, 0] = state
        tables.successor[state, 1, 0] = state + 1 if state < 2 else tables.over
    tables.reward[2, 1, 0] = 2.0
    return tables


@pytest.mark.parametrize(("steps", "best"), [(2, 0.0), (3, 2.0), (9, 2.0)])
def test_the_best_needs_three_steps(steps, best):
    assert exact.optimal(corridor(steps)) == best


def test_random_play_is_the_mean_over_all_action_sequences():
    returns = [2.0 * (sum(actions) >= 3) for actions in itertools.product((0, 1), repeat=5)]
    assert exact.uniform(corridor(5)) == np.mean(returns) == 1.0


def test_a_fresh_start_can_be_earned_again():
    # One state: action 0 earns 1 and draws a new start, action 1 earns 4 and ends.
    tables = exact.empty(1, 2, 1, steps=3)
    tables.start[0] = 1.0
    tables.successor[0, 0, 0] = tables.fresh
    tables.reward[0, :, 0] = 1.0, 4.0
    assert exact.optimal(tables) == 6.0
    assert exact.uniform(tables) == 2.5 + 0.5 * (2.5 + 0.5 * 2.5)


def test_outcomes_are_weighted():
    tables = exact.empty(2, 1, 2, steps=2)
    tables.start[:] = 0.25, 0.75
    tables.probability[:] = 0.1, 0.9
    tables.reward[0, 0] = 10.0, 0.0  # and the end
    tables.successor[1, 0] = 0, tables.over
    assert exact.uniform(tables) == pytest.approx(0.25 * 1.0 + 0.75 * 0.1 * 1.0)


def test_distances_are_breadth_first():
    tables = corridor(1)
    assert exact.steps_to_reward(tables).tolist() == [3, 2, 1]
    tables.successor[0, 1, 0] = 0
    assert exact.steps_to_reward(tables).tolist() == [np.inf, 2, 1]
    tables.probability[2, 1, 0] = 0.0
    assert np.isinf(exact.steps_to_reward(tables)).all()
