"""Empowerment against enumeration, Blahut-Arimoto and closed forms; blind to what `deter` knows."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from builders import CPU, SMALL, generator, random_latents
from torch.nn import functional

from dreamer.intrinsic.action_sequence import ActionSequence
from dreamer.intrinsic.empowerment import (
    Empowerment,
    EmpowermentConfig,
    SequenceBound,
    play_prior,
)
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec, ConfigError, Imagined, Replayed
from dreamer.world_model.rssm import RSSM

SIDE, ACTIONS = 7, 5
CELLS = SIDE * SIDE
FIVE = ActionSpec(kind="discrete", sizes=(ACTIONS,))
CENTRE, EDGE, CORNER, BOXED = 24, 3, 0, 36  # row * 7 + column; (5, 1) has walls on every side
EMBED = 7


def choices(*sizes):
    return ActionSpec(kind="discrete", sizes=sizes)


def real(dim):
    return ActionSpec(kind="continuous", sizes=(dim,))


def config(**changes):
    values = {
        "enabled": True,
        "weight": 1.0,
        "kind": "action",
        "steps": 2,
        "every": 2,
        "lr": 3e-3,
    }
    return EmpowermentConfig(**values | changes)


# The grid: stay, north, south, east, west; a move against a wall stays.


def grid(boxed=BOXED):
    after = torch.empty(CELLS, ACTIONS, dtype=torch.long)
    for cell, action in product(range(CELLS), range(ACTIONS)):
        dy, dx = [(0, 0), (-1, 0), (1, 0), (0, 1), (0, -1)][action]
        y, x = cell // SIDE + dy, cell % SIDE + dx
        target = y * SIDE + x if 0 <= y < SIDE and 0 <= x < SIDE else cell
        after[cell, action] = cell if boxed in (cell, target) else target
    return after


def all_sequences(steps):
    return torch.tensor(list(product(range(ACTIONS), repeat=steps)))


def ends_of(after, steps):
    """(CELLS, sequences) where each sequence leads."""
    cells = torch.arange(CELLS).unsqueeze(1).expand(-1, ACTIONS**steps)
    for action in all_sequences(steps).unbind(1):
        cells = after[cells, action]
    return cells


def true_empowerment(after, steps):
    """Nats: deterministic outcomes carry the logarithm of how many there are."""
    return [math.log(len(set(ends))) for ends in ends_of(after, steps).tolist()]


def capacity(channel, iterations=2000):
    """Nats of (inputs, outcomes) transition probabilities, by Blahut and Arimoto; an upper bound
    that is tight in the limit.
    """
    channel = channel.double()
    weight = torch.full((len(channel),), 1.0 / len(channel), dtype=torch.float64)
    for _ in range(iterations):
        divergence = torch.xlogy(channel, channel / (weight @ channel)).nan_to_num(0.0).sum(1)
        weight = functional.softmax(weight.log() + divergence, 0)
    return divergence.max().item()


def information(channel, weight):
    """Nats of mutual information between an input of the given distribution and its outcome."""
    joint = channel.double() * weight.double().unsqueeze(1)
    independent = joint.sum(1, keepdim=True) * joint.sum(0)
    return torch.xlogy(joint, joint / independent).nan_to_num(0.0).sum().item()


def noisy_channel(success=0.8):
    return success * torch.eye(ACTIONS) + (1.0 - success) / ACTIONS


def table(steps, starts, after):
    """(starts, sequences, CELLS) transition probabilities of the deterministic grid."""
    return functional.one_hot(ends_of(after, steps)[starts], CELLS).float()


@torch.no_grad()
def exact_bound(bound, starts, channel):
    """Expectation of log q - log w per start over every sequence and outcome."""
    outcomes, width = channel.shape[-1], bound.decoder.contexts[0].weight.shape[1]
    sequences = all_sequences(bound.source.steps)
    some = functional.one_hot(sequences, ACTIONS).float().expand(len(starts), -1, -1, -1)
    log_w = bound.source.log_prob(bound.source.embed(starts.unsqueeze(1)), some)
    total = -(log_w.exp() * log_w).sum(1)
    for end in torch.eye(outcomes, width):
        context = bound.decoder.embed(starts.unsqueeze(1), end.expand(len(starts), 1, -1))
        log_q = bound.decoder.log_prob(context, some)
        chance = channel[..., int(end.argmax())]
        total += (log_w.exp() * chance * log_q).sum(1)
    return total


def test_exact_values_of_the_grid():
    free = grid(boxed=-1)
    for steps, centre, edge, corner in ((1, 5, 4, 3), (2, 13, 9, 6), (3, 25, 16, 10)):
        true = true_empowerment(free, steps)
        assert [true[c] for c in (CENTRE, EDGE, CORNER)] == [*map(math.log, (centre, edge, corner))]
        assert true_empowerment(grid(), steps)[BOXED] == 0.0
        for cell in (CENTRE, EDGE, CORNER):
            channel = table(steps, [cell], free)[0]
            assert capacity(channel) == pytest.approx(true[cell], abs=2e-3)


def test_exact_values_of_the_noisy_channel():
    formula = math.log(5) + 0.84 * math.log(0.84) + 4 * 0.04 * math.log(0.04)
    assert formula == pytest.approx(0.94796, abs=1e-5)
    assert capacity(noisy_channel()) == pytest.approx(formula, abs=1e-7)
    corner = table(1, [CORNER], grid())[0]
    assert information(corner, torch.full((5,), 0.2)) == pytest.approx(0.9503, abs=1e-4)
    assert capacity(corner) == pytest.approx(math.log(3), abs=1e-6)


def train(bound, starts, outcome, *, updates, samples, rate=3e-3, before=None):
    """Optimise all three losses with the agent's own optimiser; returns the last metrics."""
    before = starts if before is None else before
    optimizer = LaProp({"empowerment": list(bound.parameters())})
    source = generator(1)
    spec = bound.source.spec
    draw = torch.rand if spec.kind == "discrete" else torch.randn
    shape = (len(starts), samples, bound.source.steps, spec.noise_dim)
    for _ in range(updates):
        noise = draw(shape, generator=source)
        losses, metrics = bound.losses(starts, before, noise, outcome)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step({"empowerment": rate})
    return metrics


def play_channel(channel, samples):
    """Outcome function that draws from (starts, sequences, outcomes) probabilities."""
    source = generator(2)

    def outcome(sequence):
        digits = sequence.argmax(-1)
        index = torch.zeros(len(digits), dtype=torch.long)
        for digit in digits.unbind(1):
            index = index * ACTIONS + digit
        probs = channel.repeat_interleave(samples, 0)[torch.arange(len(digits)), index]
        drawn = torch.multinomial(probs, 1, generator=source).squeeze(1)
        return functional.one_hot(drawn, channel.shape[-1]).float()

    return outcome


def train_on_grid(steps, cells, *, updates, samples, units):
    channel, starts = table(steps, cells, grid()), torch.eye(CELLS)[cells]
    bound = SequenceBound(CELLS, CELLS, FIVE, steps, units, 0)
    train(bound, starts, play_channel(channel, samples), updates=updates, samples=samples)
    true = torch.tensor(true_empowerment(grid(), steps))[cells]
    return bound, starts, exact_bound(bound, starts, channel) - true, true


def check_errors(cells, error):
    boxed = torch.tensor(cells) == BOXED
    assert error[~boxed].abs().max() <= 0.05, error
    assert -0.15 <= error[boxed].min()
    assert error.max() <= 1e-4  # never above the truth


def test_one_action_on_the_grid():
    cells = list(range(CELLS))
    bound, starts, error, true = train_on_grid(1, cells, updates=900, samples=8, units=64)
    check_errors(cells, error)
    # A uniform source would get 0.9503 in the corner: the source has learned to balance outcomes.
    assert error[CORNER] + true[CORNER] > 0.9503 + 0.1
    value = bound.value(starts).mean().detach()
    assert (value - true).abs().max() < 0.1


def test_two_actions_on_the_grid():
    cells = [CENTRE, EDGE, CORNER, BOXED, 10, 22, 6, 46]
    _, _, error, true = train_on_grid(2, cells, updates=1200, samples=16, units=64)
    torch.testing.assert_close(true[:4].exp(), torch.tensor([13.0, 9.0, 6.0, 1.0]))
    check_errors(cells, error)


@pytest.mark.slow
def test_two_actions_on_the_whole_grid():
    cells = list(range(CELLS))
    *_, error, _ = train_on_grid(2, cells, updates=2500, samples=16, units=128)
    check_errors(cells, error)


def test_a_noisy_channel_carries_its_capacity_and_no_more():
    channel, starts = noisy_channel().unsqueeze(0), torch.ones(1, ACTIONS)
    bound = SequenceBound(ACTIONS, ACTIONS, FIVE, 1, 32, 0)
    train(bound, starts, play_channel(channel, 64), updates=400, samples=64)
    got = exact_bound(bound, starts, channel).item()
    assert 0.94796 - 0.02 < got <= 0.94796 + 1e-5
