"""The variational bound on empowerment against enumeration, Blahut-Arimoto and closed forms."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from builders import generator
from torch.nn import functional

from dreamer.intrinsic.empowerment import SequenceBound
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec

SIDE, ACTIONS = 7, 5
CELLS = SIDE * SIDE
FIVE = ActionSpec(kind="discrete", sizes=(ACTIONS,))
CENTRE, EDGE, CORNER, BOXED = 24, 3, 0, 36  # row * 7 + column; (5, 1) has walls on every side


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
    some = functional.one_hot(sequences, ACTIONS).to(starts.dtype).expand(len(starts), -1, -1, -1)
    log_w = bound.source.log_prob(bound.source.embed(starts.unsqueeze(1)), some)
    total = -(log_w.exp() * log_w).sum(1)
    for end in torch.eye(outcomes, width).to(starts):
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


def train(bound, starts, outcome, *, updates, samples, rate=3e-3, before=None, parts=None):
    """Optimise all losses, or only some modules, with the agent's own optimiser."""
    before = starts if before is None else before
    optimizer = LaProp({"empowerment": list((parts or bound).parameters())})
    source = generator(1)
    spec = bound.source.spec
    draw = torch.rand if spec.kind == "discrete" else torch.randn
    shape = (len(starts), samples, bound.source.steps, spec.noise_dim)
    for _ in range(updates):
        noise = draw(shape, generator=source)
        losses, _ = bound.losses(starts, before, noise, outcome)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step({"empowerment": rate})


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
    assert error[boxed].min() >= -0.15
    assert error.max() <= 1e-4  # never above the truth


def test_one_action_on_the_grid():
    cells = list(range(CELLS))
    bound, starts, error, true = train_on_grid(1, cells, updates=900, samples=8, units=64)
    check_errors(cells, error)
    # A uniform source would get 0.9503 in the corner: the source has learned to balance outcomes.
    assert error[CORNER] + true[CORNER] > 0.9503 + 0.1
    value = bound.value(starts).detach()
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


# Any decoder, any source.


def randomise(module, scale, seed):
    source = generator(seed)
    for param in module.parameters():
        torch.nn.init.normal_(param, 0.0, scale, generator=source)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_no_decoder_and_no_source_exceed_the_information(seed, scale):
    outcomes, steps, channels = 6, 2, 8
    bound = SequenceBound(outcomes, outcomes, FIVE, steps, 16, seed).double()
    randomise(bound, scale, seed)
    starts = torch.randn(channels, outcomes, generator=generator(seed)).double()
    logits = 3.0 * torch.randn(channels, ACTIONS**steps, outcomes, generator=generator(seed))
    channel = functional.softmax(logits.double(), -1)
    every = functional.one_hot(all_sequences(steps), ACTIONS).double().expand(channels, -1, -1, -1)
    with torch.no_grad():
        weight = bound.source.log_prob(bound.source.embed(starts.unsqueeze(1)), every).exp()
    bounds = exact_bound(bound, starts, channel)
    for one, w, got in zip(channel, weight, bounds, strict=True):
        assert got <= information(one, w) + 1e-6
        assert information(one, w) <= capacity(one, 200) + 1e-6


# Numbers as actions: y = a + noise.

TWO_NUMBERS = ActionSpec(kind="continuous", sizes=(2,))
NOISE_STD = 0.3


def gaussian_information(std, dims):
    return dims * 0.5 * math.log1p((std / NOISE_STD) ** 2)


@torch.no_grad()
def measured(bound, starts, samples=4000):
    """(starts,) estimate of the bound, and outcomes drawn from another stream than training."""
    context = bound.source.embed(starts.unsqueeze(1))
    noise = torch.randn(len(starts), samples, 1, bound.source.spec.dim, generator=generator(7))
    sequence = bound.source.sample(context, noise)
    after = add_noise(generator(8))(sequence.flatten(0, 1)).unflatten(0, (len(starts), samples))
    known = bound.decoder.embed(starts.unsqueeze(1), after)
    log_q = bound.decoder.log_prob(known, sequence)
    return (log_q - bound.source.log_prob(context, sequence)).mean(1)


def add_noise(source):
    def outcome(sequence):
        action = sequence.sum(1)
        return action + NOISE_STD * torch.randn(action.shape, generator=source)

    return outcome


def test_a_gaussian_channel_has_its_closed_form():
    starts = torch.eye(2)
    bound = SequenceBound(2, 2, TWO_NUMBERS, 1, 32, 0)
    for layer in (bound.source.out, bound.source.std):
        torch.nn.init.zeros_(layer.weight)
    std = 0.9 * torch.sigmoid(torch.tensor(2.0)).item() + 0.1  # of a source that knows nothing
    true = gaussian_information(std, 2)
    outcome = add_noise(generator(5))
    train(bound, starts, outcome, updates=400, samples=64, parts=bound.decoder)
    got = measured(bound, starts)
    assert (got - true).abs().max() < 0.08
    train(bound, starts, outcome, updates=300, samples=64, rate=1e-2, parts=bound.source)
    train(bound, starts, outcome, updates=100, samples=64, parts=bound.decoder)
    # Standard deviations of a source reach 1 at most: that is its capacity.
    widest = gaussian_information(1.0, 2)
    assert (measured(bound, starts) > true + 0.25 * (widest - true)).all()
    assert (measured(bound, starts) < widest + 0.05).all()
