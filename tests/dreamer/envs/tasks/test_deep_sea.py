"""DeepSea: one treasure, dear steps towards it, actions that mean something else everywhere."""

import itertools

import numpy as np
import pytest

from dreamer.envs.tasks.deep_sea import DeepSea, optimal_return, random_return


def play(env, actions):
    env.reset(seed=0)
    total = 0.0
    for steps, action in enumerate(actions, 1):
        obs, reward, terminated, truncated, _ = env.step(action)
        total += reward
        assert not truncated
        assert terminated == (steps == len(actions))
    assert not obs.any()  # below the sea
    return total


@pytest.mark.parametrize("size", [2, 5, 10, 15, 20])
def test_returns_in_closed_form(size):
    assert optimal_return(size=size) == pytest.approx(0.99, abs=1e-12)
    assert random_return(size=size) == pytest.approx(2.0**-size - 0.005, abs=1e-12)


def test_one_of_all_action_sequences_finds_the_treasure():
    env = DeepSea(size=6, layout=1)
    returns = [play(env, actions) for actions in itertools.product((0, 1), repeat=6)]
    assert sorted(returns)[-1] == pytest.approx(0.99)
    assert sum(ret > 0 for ret in returns) == 1
    assert np.mean(returns) == pytest.approx(random_return(size=6, layout=1), abs=1e-12)


def test_moves():
    env = DeepSea(size=4, layout=0)
    env.reset(seed=0)
    cell, walk = (0, 0), np.random.default_rng(2)
    for _ in range(200):
        obs, reward, terminated, _, _ = env.step(int(walk.integers(2)))
        if terminated:
            obs, _ = env.reset(seed=0)
            cell = (0, 0)
            assert obs[0] == 1
            continue
        row, column = divmod(int(obs.argmax()), 4)
        assert obs.sum() == 1
        assert row == cell[0] + 1
        right = reward < 0
        assert reward == (-0.0025 if right else 0.0)
        assert column == (cell[1] + 1 if right else max(cell[1] - 1, 0))
        cell = (row, column)


def test_the_layout_changes_what_actions_mean():
    def found(layout):
        env = DeepSea(size=8, layout=layout)
        return next(a for a in itertools.product((0, 1), repeat=8) if play(env, a) > 0)

    ways = [found(layout) for layout in range(4)]
    assert ways == [found(layout) for layout in range(4)]
    assert len(set(ways)) > 2
    assert all(0 < sum(way) < 8 for way in ways)  # no constant action gets there


def test_cells_are_those_that_play_reaches():
    env, reached = DeepSea(size=4), set()
    for actions in itertools.product((0, 1), repeat=3):
        obs = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in actions]
        reached |= {divmod(int(o.argmax()), 4) for o in obs}
    assert sorted(reached) == env.cells()
