"""Distributions over action sequences: proper, causal, and sampled as they say."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from builders import generator
from torch.nn import functional

from dreamer.intrinsic.action_sequence import ActionSequence
from dreamer.types import ActionSpec

SPECS = {
    "one choice": ActionSpec(kind="discrete", sizes=(5,)),
    "choices": ActionSpec(kind="discrete", sizes=(3, 2)),
    "numbers": ActionSpec(kind="continuous", sizes=(2,)),
}


def randomise(module, scale, seed):
    source = generator(seed)
    for param in module.parameters():
        torch.nn.init.normal_(param, 0.0, scale, generator=source)


def random_sequences(spec, lead, seed=0):
    source = generator(seed)
    if spec.kind == "continuous":
        return torch.randn(*lead, spec.dim, generator=source)
    drawn = [torch.randint(0, size, lead, generator=source) for size in spec.sizes]
    hot = [functional.one_hot(d, size) for d, size in zip(drawn, spec.sizes, strict=True)]
    return torch.cat(hot, -1).float()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("role", ["source", "decoder"])
def test_an_action_is_judged_by_what_came_before_it(spec, role):
    net = ActionSequence((3,), spec, 4, 16, role, generator())
    randomise(net, 1.0, 0)
    context = net.embed(torch.randn(2, 1, 3))
    sequence = random_sequences(spec, (2, 5, 4))
    changed = sequence.clone()
    changed[..., 2, :] = random_sequences(spec, (2, 5), seed=1)
    probe = random_sequences(spec, (2, 5, 4), seed=2)  # the same actions judged by both
    moved = (net(context, sequence).log_prob(probe) != net(context, changed).log_prob(probe)).any(1)
    assert moved.any(0).tolist() == [False, False, False, True]


@pytest.mark.parametrize("role", ["source", "decoder"])
def test_probabilities_of_all_sequences_sum_to_one(role):
    spec = SPECS["choices"]
    net = ActionSequence((3, 2), spec, 2, 16, role, generator()).double()
    randomise(net, 1.0, 0)
    single = [torch.cat(pair) for pair in product(torch.eye(3), torch.eye(2))]
    every = torch.stack([torch.stack(pair) for pair in product(single, repeat=2)]).double()
    context = net.embed(torch.randn(4, 1, 3).double(), torch.randn(4, 1, 2).double())
    total = net.log_prob(context, every.expand(4, -1, -1, -1)).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64))


def test_samples_are_as_frequent_as_their_probability():
    net = ActionSequence((3,), SPECS["one choice"], 2, 16, "source", generator())
    randomise(net, 1.5, 3)
    context, count = net.embed(torch.randn(1, 1, 3)), 20000
    drawn = net.sample(context, torch.rand(1, count, 2, 1)).argmax(-1)[0]
    seen = torch.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25) / count
    every = functional.one_hot(torch.cartesian_prod(torch.arange(5), torch.arange(5)), 5).float()[
        None
    ]
    chance = net.log_prob(context, every)[0].exp()
    assert (seen - chance).abs().max() < 4.0 * 0.5 / math.sqrt(count)
