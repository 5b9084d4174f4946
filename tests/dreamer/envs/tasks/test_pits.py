"""Pits: falling is for good, slips go sideways, and the safe streets lead nowhere."""

import numpy as np
import pytest

from dreamer.envs.tasks import exact
from dreamer.envs.tasks.pits import MOVES, Pits, is_pit, optimal_return, random_return

DOWN, UP, RIGHT, LEFT = 1, 2, 3, 4


def read(obs):
    row, column = np.split(obs, 2)
    assert row.sum() == column.sum() == 1
    return int(row.argmax()), int(column.argmax())


def walk(env, actions):
    env.reset(seed=0)
    return [env.step(action) for action in actions]


def test_a_pit_is_for_good_and_says_so_only_in_info():
    env = Pits(size=7)
    outcomes = walk(env, [RIGHT, UP] + [0, 1, 2, 3, 4] * 20)[:100]
    assert [read(o[0]) for o in outcomes] == [(6, 1)] + [(5, 1)] * 99
    assert [o[4]["stuck"] for o in outcomes] == [False] + [True] * 99
    assert [o[1] for o in outcomes] == [0.0] * 100
    assert [o[2:4] for o in outcomes] == [(False, False)] * 99 + [(False, True)]


def test_the_way_between_pits_earns_one():
    outcomes = walk(Pits(size=7), [UP] * 4 + [RIGHT] * 2 + [UP] * 2 + [RIGHT] * 4)
    assert [o[1] for o in outcomes] == [0.0] * 11 + [1.0]
    assert outcomes[-1][2:4] == (True, False)
    assert read(outcomes[-1][0]) == (0, 6)


def test_streets_along_the_edges_are_dead_ends():
    assert read(walk(Pits(size=7), [UP] * 6)[-1][0]) == (2, 0)
    assert read(walk(Pits(size=7), [RIGHT] * 6 + [UP])[-1][0]) == (6, 6)


@pytest.mark.parametrize("size", [5, 7, 9, 11])
def test_the_shortest_way(size):
    fewest = 2 * (size - 1)
    away = exact.steps_to_reward(Pits(size=size).tables())
    env = Pits(size=size)
    cells = env.cells()
    assert away[cells.index((size - 1, 0))] == fewest
    assert all(
        np.isinf(away[i]) == is_pit(cell) for i, cell in enumerate(cells) if cell != (0, size - 1)
    )
    assert optimal_return(size=size, steps=fewest) == 1.0
    assert optimal_return(size=size, steps=fewest - 1) == 0.0
    assert optimal_return(size=size, goal=False) == random_return(size=size, goal=False) == 0.0


def test_slips_do_not_change_random_play():
    """A random move that slips is still a random move."""
    expected = random_return(size=7)
    assert random_return(size=7, slip=0.3) == pytest.approx(expected, rel=1e-9)


def test_haste_is_dangerous():
    """Pressed against a wall, an agent slips along it and never into a pit; that takes time."""
    returns = [optimal_return(slip=0.1, steps=steps) for steps in (12, 30, 100, 1000)]
    assert returns == sorted(returns)
    assert returns[0] < 0.5 < returns[-1]


def test_more_slips_make_it_harder():
    best = [optimal_return(size=7, slip=slip) for slip in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert best == sorted(best, reverse=True)
    assert best[0] == 1.0
    assert 0.5 < best[3] < best[2] < 0.8


@pytest.mark.parametrize("action", [0, UP, RIGHT])
def test_slips_are_as_frequent_as_the_tables_say(action):
    env = Pits(size=7, slip=0.3, steps=10**6)
    tables, cells = env.tables(), env.cells()
    state = cells.index((6, 0))
    counts, tries = dict.fromkeys(cells, 0), 6000
    env.reset(seed=3)
    for _ in range(tries):
        env._cell = (6, 0)
        counts[read(env.step(action)[0])] += 1
    expected = dict.fromkeys(cells, 0.0)
    for to, chance in zip(
        tables.successor[state, action], tables.probability[state, action], strict=True
    ):
        expected[cells[to]] += chance
    assert all(abs(counts[cell] / tries - expected[cell]) < 0.025 for cell in cells)
    assert expected[6, 0] == pytest.approx({0: 1.0, UP: 0.15, RIGHT: 0.15}[action])


def test_the_best_policy_earns_what_is_promised():
    """With time enough the best policy needs no clock: value iteration here, and then play."""
    env = Pits(size=7, slip=0.1, steps=2000)
    cells, goal = env.cells(), (0, 6)
    value = dict.fromkeys(cells, 0.0) | {goal: 1.0}

    def move(cell, direction):
        to = cell[0] + MOVES[direction][0], cell[1] + MOVES[direction][1]
        return to if to in value else cell

    def worth(cell, action):
        sides = {0: (0, 0), DOWN: (3, 4), UP: (3, 4), RIGHT: (1, 2), LEFT: (1, 2)}[action]
        outcomes = ((0.9, action), (0.05, sides[0]), (0.05, sides[1]))
        return sum(chance * value[move(cell, way)] for chance, way in outcomes)

    free = [cell for cell in cells if cell != goal and not is_pit(cell)]
    for _ in range(1500):
        value |= {cell: max(worth(cell, action) for action in range(5)) for cell in free}
    best = {cell: max(range(5), key=lambda action: worth(cell, action)) for cell in free}
    assert value[6, 0] == pytest.approx(optimal_return(slip=0.1, steps=2000), abs=1e-4)

    wins, episodes = 0, 1500
    for seed in range(episodes):
        cell = read(env.reset(seed=seed)[0])
        while cell in best:
            obs, reward, *_ = env.step(best[cell])
            cell = read(obs)
        wins += reward > 0
    assert abs(wins / episodes - value[6, 0]) < 4 * 0.5 / episodes**0.5
