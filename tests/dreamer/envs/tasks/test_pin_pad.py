"""PinPad: the order counts, a sequence pays once, and the best player is as good as promised."""

from collections import deque

import numpy as np
import pytest

from dreamer.envs.tasks import exact
from dreamer.envs.tasks.pin_pad import (
    COLUMNS,
    MOVES,
    PADS,
    REWARD,
    ROWS,
    PinPad,
    optimal_return,
    random_return,
)


def pad_at(cell, pads):
    for number, (top, left, height, width) in enumerate(PADS[pads], 1):
        if top <= cell[0] < top + height and left <= cell[1] < left + width:
            return number
    return 0


def read(obs, pads):
    cell = int(obs[:ROWS].argmax()), int(obs[ROWS : ROWS + COLUMNS].argmax())
    slots = obs[ROWS + COLUMNS :].reshape(pads, pads)
    assert obs[:ROWS].sum() == obs[ROWS : ROWS + COLUMNS].sum() == 1
    return cell, [int(slot.argmax()) + 1 for slot in slots if slot.any()]


def distances(pads, starts):
    """Fewest steps from each cell and empty list to a full sequence, over real lists of pads."""
    target = tuple(range(1, pads + 1))
    answer = {}
    for start in starts:
        queue, seen = deque([(start, (), 0)]), {(start, ())}
        while queue:
            cell, history, steps = queue.popleft()
            if history == target:
                answer[start] = steps
                break
            for down, right in MOVES:
                to = (
                    min(max(cell[0] + down, 0), ROWS - 1),
                    min(max(cell[1] + right, 0), COLUMNS - 1),
                )
                pad, then = pad_at(to, pads), history
                if pad and history[-1:] != (pad,):
                    then = (*history, pad)[-pads:]
                if (to, then) not in seen:
                    seen.add((to, then))
                    queue.append((to, then, steps + 1))
    return answer


def test_pads_do_not_overlap_and_lie_inside():
    for pads, places in PADS.items():
        floor = np.zeros((ROWS, COLUMNS), int)
        for top, left, height, width in places:
            floor[top : top + height, left : left + width] += 1
        assert floor.max() == 1
        assert floor.sum() == sum(height * width for *_, height, width in places)
        assert len(places) == pads


@pytest.mark.parametrize("pads", [3, 4, 5, 6])
def test_rules_against_a_plain_list(pads):
    env = PinPad(pads=pads, steps=3000)
    obs, _ = env.reset(seed=pads)
    history, (cell, _) = [], read(obs, pads)
    for step, action in enumerate(np.random.default_rng(pads).integers(5, size=3000), 1):
        obs, reward, terminated, truncated, _ = env.step(action)
        assert (terminated, truncated) == (False, step == 3000)
        after, listed = read(obs, pads)
        if history == list(range(1, pads + 1)):
            assert (listed, reward) == ([], 0.0)
            history, cell = [], after
            continue
        down, right = MOVES[action]
        assert after == (np.clip(cell[0] + down, 0, 11), np.clip(cell[1] + right, 0, 13))
        pad = pad_at(after, pads)
        before = list(history)
        if pad and history[-1:] != [pad]:
            history = [*history, pad][-pads:]
        assert listed == history
        done = history == list(range(1, pads + 1)) != before
        assert reward == (REWARD if done else 0.0)
        cell = after


def test_the_shortest_way_by_two_searches():
    env = PinPad(pads=3)
    table = exact.steps_to_reward(env.tables()).reshape(ROWS, COLUMNS, 4)[..., 0]
    slow = distances(3, [(0, 0), (0, 13), (3, 4), (5, 7), (11, 0), (11, 13)])
    assert all(table[cell] == steps for cell, steps in slow.items())
    assert (
        slow[0, 0] == 13 + 10
    )  # from pad 1 to the nearest of 2, whose first step counts 1, and to 3


@pytest.mark.parametrize("pads", [3, 6])
def test_optimal_return_is_a_renewal_sum(pads):
    """V(t) = mean over start cells of 10 + V(t - distance - 1), 0 if there is no time left."""
    steps, env = 500, PinPad(pads=pads)
    away = exact.steps_to_reward(env.tables()).reshape(ROWS * COLUMNS, -1)[:, 0].astype(int)
    value = np.zeros(steps + 1)
    for t in range(1, steps + 1):
        left = t - away
        value[t] = np.where(left >= 0, REWARD + value[np.maximum(left - 1, 0)], 0.0).mean()
    assert optimal_return(pads=pads, steps=steps) == pytest.approx(value[steps], rel=1e-12)


@pytest.mark.parametrize("pads", [3, 4, 5, 6])
def test_a_player_who_follows_the_distances_needs_just_as_many_steps(pads):
    env = PinPad(pads=pads)
    tables = env.tables()
    away = exact.steps_to_reward(tables)
    cell, _ = read(env.reset(seed=0)[0], pads)
    done, due, total = 0, None, 0.0
    for step in range(2000):
        state = (cell[0] * COLUMNS + cell[1]) * (pads + 1) + done
        if done == pads:
            action = 0
        else:
            if due is None:
                due = step + away[state]
            paid = tables.reward[state, :, 0] > 0
            action = int(
                np.where(paid, 0, away[tables.successor[state, :, 0] % len(away)]).argmin()
            )
        obs, reward, *_ = env.step(action)
        total += reward
        cell, listed = read(obs, pads)
        done = next(
            n for n in range(pads, -1, -1) if listed[len(listed) - n :] == list(range(1, n + 1))
        )
        assert (reward > 0) == (step + 1 == due)
        due = None if reward else due
    assert total == pytest.approx(optimal_return(pads=pads), rel=0.05)


def test_random_return_by_simulation():
    env = PinPad(pads=3)
    generator, returns = np.random.default_rng(0), []
    for seed in range(120):
        env.reset(seed=seed)
        returns.append(sum(env.step(action)[1] for action in generator.integers(5, size=2000)))
    error = np.std(returns) / len(returns) ** 0.5
    assert abs(np.mean(returns) - random_return(pads=3)) < 3 * error
    assert error < 1.5


def test_random_completions_in_an_episode_of_the_paper():
    # A simulation of the published game gave 5.8 and 0.10; it waits ten steps after each.
    assert random_return(pads=3, steps=10_000) / REWARD == pytest.approx(5.39, abs=0.005)
    assert random_return(pads=4, steps=10_000) / REWARD == pytest.approx(0.106, abs=0.0005)
