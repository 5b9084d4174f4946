"""Segments as steps: closed forms, brute force, and the flat return that they have to add up to."""

from __future__ import annotations

import math

import pytest
import torch
from builders import generator

from dreamer.behavior.hierarchy import arrive
from dreamer.behavior.segments import (
    cut_steps,
    join_arrivals,
    join_states,
    join_steps,
    smdp_cont,
    smdp_reward,
    split_states,
    split_steps,
)
from dreamer.nn.math import lambda_return

GAMMA, K = 0.99, 4
# Two segments of four steps; the step to the sixth state ends half of the episodes.
REWARD = torch.tensor([0, 0, 1, 0, 0, 2, 0, 0], dtype=torch.float64)[:, None]
CONT = GAMMA * torch.tensor([1, 1, 1, 1, 1, 1, 0.5, 1, 1], dtype=torch.float64)[:, None]
END = 7.0


def random_steps(segments, every, streams=2, rows=3, seed=0):
    """reward (H, S, N), cont (H + 1, N), value (M + 1, S, N)."""
    source, steps = generator(seed), segments * every
    reward = torch.randn(steps, streams, rows, generator=source, dtype=torch.float64)
    cont = torch.rand(steps + 1, rows, generator=source, dtype=torch.float64)
    value = torch.randn(segments + 1, streams, rows, generator=source, dtype=torch.float64)
    return reward, cont, value


def test_golden_numbers():
    reward, cont = smdp_reward(REWARD, CONT, K), smdp_cont(CONT, K)
    assert reward.flatten().tolist() == pytest.approx([0.9801, 1.98], rel=1e-12)
    assert cont.flatten().tolist() == pytest.approx([0.99, 0.96059601, 0.480298005], rel=1e-12)


def test_a_managers_return_is_the_flat_return():
    value = torch.tensor([0.0, 0.0, END], dtype=torch.float64)[:, None]
    reward = arrive(smdp_reward(REWARD, CONT, K)[:, None])[:, 0]
    segments = lambda_return(reward, value, smdp_cont(CONT, K), 1.0)
    want = GAMMA**2 * 1 + GAMMA**5 * 2 + GAMMA**8 * 0.5 * END
    assert want == pytest.approx(2.8820801 + 0.46137235 * END, rel=1e-7)
    assert segments[0].item() == pytest.approx(want, rel=1e-12)
    flat_value = torch.full((9, 1), END, dtype=torch.float64)
    flat = lambda_return(torch.cat([REWARD[:1], REWARD]), flat_value, CONT, 1.0)
    assert flat[0].item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("segments", "every"), [(1, 1), (5, 1), (1, 6), (3, 4), (2, 5)])
def test_rewards_and_discounts_by_brute_force(segments, every):
    reward, cont, _ = random_steps(segments, every)
    got, over = smdp_reward(reward, cont, every), smdp_cont(cont, every)
    assert got.shape == (segments, 2, 3)
    assert torch.equal(over[0], cont[0])
    for i in range(segments):
        total, chance = torch.zeros(2, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        for k in range(every):
            total += chance * reward[i * every + k]  # earned by the step that leaves state k
            chance = chance * cont[i * every + k + 1]
        torch.testing.assert_close(got[i], total)
        torch.testing.assert_close(over[i + 1], chance)


@pytest.mark.parametrize("every", [1, 2, 3, 6, 12])
def test_without_bootstrapping_in_between_segments_of_any_length_agree(every):
    """With lambda 1 only the last value counts, and it does not matter where decisions are made."""
    reward, cont, _ = random_steps(12, 1)
    end = torch.randn(2, 3, generator=generator(1), dtype=torch.float64)

    def first_return(k):
        steps = arrive(smdp_reward(reward, cont, k))
        value = end.expand(len(steps), 2, 3)
        return lambda_return(steps, value, smdp_cont(cont, k).unsqueeze(1), 1.0)[0]

    torch.testing.assert_close(first_return(every), first_return(1))


def test_one_step_per_segment_is_the_flat_agent():
    reward, cont, _ = random_steps(7, 1)
    assert torch.equal(smdp_reward(reward, cont, 1), reward)
    assert torch.equal(smdp_cont(cont, 1), cont)


def test_an_end_inside_a_segment_stops_what_comes_later():
    reward, cont = torch.ones(6, 1), torch.ones(7, 1)
    cont[2] = 0.0  # the second state of the first segment is terminal
    assert smdp_reward(reward, cont, 3).flatten().tolist() == [2.0, 3.0]
    assert smdp_cont(cont, 3).flatten().tolist() == [1.0, 0.0, 1.0]
    cont[0] = 0.0  # of the first state it is none of the segment's business
    assert smdp_reward(reward, cont, 3).flatten().tolist() == [2.0, 3.0]


@pytest.mark.parametrize("more", [(), (5,), (2, 3)])
def test_splitting_by_brute_force(more):
    segments, every, rows = 3, 4, 2
    x = torch.arange((segments * every + 1) * rows * math.prod(more)).view(-1, rows, *more)
    steps, states = split_steps(x[:-1], every), split_states(x, every)
    assert steps.shape == (every, segments * rows, *more)
    assert states.shape == (every + 1, segments * rows, *more)
    for i in range(segments):
        for row in range(rows):
            for k in range(every):
                assert torch.equal(steps[k, i * rows + row], x[i * every + k, row])
            for k in range(every + 1):
                assert torch.equal(states[k, i * rows + row], x[i * every + k, row])


@pytest.mark.parametrize("more", [(), (2,)])
def test_joining_puts_steps_in_the_order_in_which_they_were_made(more):
    """Rows come last where streams lie between time and rows."""
    segments, every, rows = 3, 4, 2
    whole = torch.arange((segments * every + 1) * math.prod(more) * rows).view(-1, *more, rows)
    rows_first = whole.movedim(-1, 1)
    steps = split_steps(rows_first[:-1], every).movedim(1, -1)
    states = split_states(rows_first, every).movedim(1, -1)
    assert torch.equal(join_steps(steps, segments), whole[:-1])
    assert torch.equal(join_states(states, segments), whole)
    assert torch.equal(cut_steps(whole[:-1], segments), steps)


def test_where_two_segments_meet_the_later_one_is_asked():
    value = torch.tensor([[1.0, 3.0], [2.0, 4.0], [-1.0, 5.0]])  # two segments of two steps
    assert join_states(value, 2).flatten().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_where_two_segments_meet_the_earlier_one_was_paid():
    reward = torch.tensor([[0.0, 0.0], [1.0, 3.0], [2.0, 4.0]])  # entry 0 is not used
    assert join_arrivals(reward, 2).flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
