"""KeyChain: keys open doors, one after the other, and nothing else does."""

import numpy as np
import pytest

from dreamer.envs.tasks import exact
from dreamer.envs.tasks.key_chain import (
    TAKE,
    KeyChain,
    optimal_return,
    optimal_steps,
    random_return,
)


def read(obs, rooms, size):
    row, column, room, keys = np.split(obs, np.cumsum([size, size + 1, rooms]))
    assert row.sum() == column.sum() == room.sum() == 1
    held = int(keys.sum())
    assert keys.tolist() == [1] * held + [0] * (rooms - 1 - held)  # in order
    return (int(row.argmax()), int(room.argmax()) * (size + 1) + int(column.argmax())), held


def shortest_play(env):
    """Actions that follow the distances, each judged on the tables."""
    tables = env.tables()
    away = exact.steps_to_reward(tables)
    state, actions = int(tables.start.argmax()), []
    while state < len(away):
        paid = tables.reward[state, :, 0] > 0
        nexts = np.where(paid, 0, away[np.minimum(tables.successor[state, :, 0], len(away) - 1)])
        actions.append(int(nexts.argmin()))
        state = int(tables.successor[state, actions[-1], 0])
    return actions


@pytest.mark.parametrize(("rooms", "size"), [(2, 3), (3, 5), (4, 5), (8, 4)])
@pytest.mark.parametrize("layout", [0, 1, 2])
def test_the_shortest_way_leads_to_the_goal(rooms, size, layout):
    env = KeyChain(rooms=rooms, size=size, layout=layout)
    actions = shortest_play(env)
    assert len(actions) == optimal_steps(rooms=rooms, size=size, layout=layout)
    assert actions.count(TAKE) == rooms - 1
    env.reset(seed=0)
    outcomes = [env.step(action) for action in actions]
    assert [o[1] for o in outcomes] == [0.0] * (len(actions) - 1) + [1.0]
    assert [o[2] for o in outcomes] == [False] * (len(actions) - 1) + [True]
    assert not any(o[3] for o in outcomes)
    cell, held = read(outcomes[-1][0], rooms, size)
    assert cell[1] // (size + 1) == held == rooms - 1


def test_without_the_take_action_nobody_leaves_the_first_room():
    env, size = KeyChain(rooms=3, size=5, steps=5000), 5
    env.reset(seed=0)
    generator, reached = np.random.default_rng(0), set()
    for action in generator.integers(TAKE, size=5000):
        cell, held = read(env.step(action)[0], 3, size)
        assert held == 0
        reached.add(cell)
    assert reached == {(row, column) for row in range(size) for column in range(size)}


def test_keys_lie_off_the_way_from_opening_to_opening():
    for layout in range(20):
        env = KeyChain(rooms=4, size=5, layout=layout)
        entrance = (2, 0)
        for key, door in zip(env._keys, env._doors, strict=True):
            assert np.abs(np.subtract(key, entrance)).sum() >= 4
            assert np.abs(np.subtract(key, door)).sum() >= 3
            entrance = (door[0], door[1] + 1)


def test_the_limit_decides():
    fewest = optimal_steps(rooms=3)
    assert optimal_return(rooms=3, steps=fewest) == 1.0
    assert optimal_return(rooms=3, steps=fewest - 1) == 0.0
    env = KeyChain(rooms=2, size=3, steps=7)
    env.reset(seed=0)
    ends = [env.step(TAKE)[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]


@pytest.mark.parametrize(("rooms", "most"), [(2, 0.03), (3, 2e-3), (4, 1e-4)])
def test_random_play_almost_never_arrives(rooms, most):
    assert 0 < max(random_return(rooms=rooms, layout=layout) for layout in range(4)) < most


def test_observations_of_cells_hold_as_few_keys_as_lead_there():
    env = KeyChain(rooms=3, size=5)
    for cell in env.cells():
        where, held = read(env.observation_at(cell), 3, 5)
        assert where == cell
        assert held == (cell[1] + 1) // 6
    assert read(env.observation_at((0, 0), 2), 3, 5) == ((0, 0), 2)
    assert len(env.cells()) == 3 * 25 + 2
