"""Empowerment of options: a code that shows in where it led is worth what its manager doubted."""

from __future__ import annotations

import math

import pytest
import torch
from builders import SMALL, generator
from torch.nn import functional

from dreamer.intrinsic.empowerment import EmpowermentConfig
from dreamer.intrinsic.option import OptionEmpowerment
from dreamer.nn.optim import LaProp

L, C, M = 2, 4, 256
WIDTH = SMALL.groups * SMALL.classes
UNIFORM = -L * math.log(C)


def build():
    config = EmpowermentConfig(enabled=True, weight=1.0, kind="option", steps=1, every=1, lr=3e-3)
    return OptionEmpowerment(SMALL, L, C, 16, config, 0)


def segments(seed, *, visible):
    """Ends that spell the code of their segment, or that have nothing to do with it."""
    source = generator(seed)
    index = torch.randint(0, C, (M, L), generator=source)
    start = torch.rand(M, WIDTH, generator=source).round()
    code = functional.one_hot(index, C).transpose(1, 2).flatten(1).float()  # class-major
    end = torch.rand(M, WIDTH, generator=source).round()
    if visible:
        end[:, : L * C] = (start[:, : L * C] - code).abs()  # readable by comparing both ends only
    return start, end, code


def train(module, *, visible, updates=300):
    optimizer = LaProp({"empowerment": list(module.parameters())})
    for seed in range(updates):
        losses, metrics = module.losses(*segments(seed, visible=visible), torch.ones(M))
        optimizer.zero_grad()
        losses["empowerment_q"].backward()
        optimizer.step({"empowerment": 3e-3})
    return metrics


def test_codes_that_show_earn_almost_everything():
    module = build()
    start, end, code = segments(1000, visible=True)
    uniform = torch.full((M,), UNIFORM)
    assert not module.reward(start, end, code, uniform).any()  # nothing is known before training
    metrics = train(module, visible=True, updates=600)
    reward = module.reward(start, end, code, uniform)
    assert reward.mean() > 0.8
    assert reward.max() <= 1.0
    assert metrics["empowerment/decoder_nll"] < 0.2 * module.ceiling()
    # A manager that is sure of its code can tell nobody anything.
    assert module.reward(start, end, code, torch.zeros(M)).max() <= 0.0


def test_codes_that_do_not_show_earn_nothing():
    module = build()
    train(module, visible=False)
    reward = module.reward(*segments(1000, visible=False), torch.full((M,), UNIFORM))
    assert abs(reward.mean().item()) < 0.05


def test_rewards_are_clipped_and_without_gradient():
    module = build()
    ends = segments(0, visible=True)
    # The decoder knows nothing: its code has UNIFORM nats whatever the manager thought.
    for log_prob, expected in ((0.0, -1.0), (2 * UNIFORM, 1.0), (5 * UNIFORM, 1.0), (UNIFORM, 0.0)):
        reward = module.reward(*ends, torch.full((M,), log_prob))
        assert not reward.requires_grad
        torch.testing.assert_close(reward, torch.full((M,), expected), atol=1e-5, rtol=0.0)


def test_segments_without_weight_do_not_count():
    module = build()
    start, end, code = segments(0, visible=True)
    torch.nn.init.normal_(module.out.weight, generator=generator(1))
    weight = (torch.arange(M) < M // 2).float()
    half, _ = module.losses(start, end, code, weight)
    alone, _ = module.losses(*(x[: M // 2] for x in (start, end, code)), torch.ones(M // 2))
    torch.testing.assert_close(half, alone)
    none, _ = module.losses(start, end, code, torch.zeros(M))
    assert none["empowerment_q"] == 0.0


def test_the_loss_trains_the_decoder_and_nothing_else():
    module = build()
    given = [x.requires_grad_() for x in (*segments(0, visible=True), torch.ones(M))]
    losses, metrics = module.losses(*given)
    losses["empowerment_q"].backward()
    assert all(x.grad is None for x in given)
    assert all(param.grad is not None for param in module.parameters())
    assert not metrics["empowerment/decoder_nll"].requires_grad


def test_the_ceiling_is_what_a_code_can_carry():
    assert build().ceiling() == pytest.approx(L * math.log(C))
