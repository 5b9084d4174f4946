"""LaProp and adaptive gradient clipping: golden numbers, a plain twin, and the gate."""

from __future__ import annotations

import math

import pytest
import torch
from builders import assert_same, snapshot
from torch import nn

from dreamer.nn.optim import LaProp, clip_gradients


def scalar(value):
    return nn.Parameter(torch.tensor([value]))


def test_clipping_golden_numbers():
    p, clipped = torch.tensor([2.0]), []
    for g in (1.0, -0.5, 0.1):
        (out,) = clip_gradients([p], [torch.tensor([g])])
        clipped.append(out.item())
    assert clipped == pytest.approx([0.6, -0.5, 0.1])


def test_clipping_is_per_tensor_and_has_a_floor():
    params = [torch.full((2, 8), 0.5), torch.zeros(3)]
    grads = [torch.randn(2, 8) * 9, torch.randn(3)]
    big, bias = clip_gradients(params, grads)
    torch.testing.assert_close(big.norm(), torch.tensor(0.3 * 2.0))
    torch.testing.assert_close(big / big.norm(), grads[0] / grads[0].norm())
    # Biases start at zero: their gradient may have norm 0.3 * 1e-3.
    assert bias.norm().item() == pytest.approx(3e-4)


def test_laprop_golden_numbers():
    p, positions, clipped = scalar(2.0), [], []
    optimizer = LaProp({"all": [p]})
    for g in (1.0, -0.5, 0.1, 5.0):
        p.grad = torch.tensor([g])
        clipped.append(clip_gradients([p.detach()], [p.grad])[0].item())
        optimizer.step({"all": 1e-3})
        positions.append(p.item())
    assert clipped == pytest.approx([0.6, -0.5, 0.1, 0.599677], abs=1e-6)
    assert positions == pytest.approx([1.999, 1.99900284, 1.99892344, 1.99851475], abs=2e-7)


class PlainLaProp:
    """One parameter in float64, straight from the definition."""

    def __init__(self):
        self.square, self.momentum, self.steps = 0.0, 0.0, 0

    def step(self, p, grad, rate):
        limit = 0.3 * max(1e-3, p.norm().item())
        grad = grad / max(1.0, grad.norm().item() / limit)
        self.steps += 1
        self.square = 0.999 * self.square + 0.001 * grad**2
        unit = grad / (torch.sqrt(self.square / (1 - 0.999**self.steps)) + 1e-20)
        self.momentum = 0.9 * self.momentum + 0.1 * unit
        return p - rate * self.momentum / (1 - 0.9**self.steps)


def test_laprop_equals_its_plain_twin_while_the_rate_changes():
    params = [nn.Parameter(torch.randn(3, 4, dtype=torch.float64)), scalar(0.0).double()]
    params = [nn.Parameter(p.detach()) for p in params]
    twins, plain = [PlainLaProp() for _ in params], [p.detach().clone() for p in params]
    optimizer = LaProp({"all": params})
    for step in range(30):
        rate = 1e-2 * (step % 7) / 7
        for i, p in enumerate(params):
            p.grad = torch.randn_like(p) * 10.0 ** (step % 5 - 2)
            plain[i] = twins[i].step(plain[i], p.grad, rate)
        optimizer.step({"all": rate})
    for p, want in zip(params, plain, strict=True):
        torch.testing.assert_close(p.detach(), want, rtol=1e-10, atol=1e-13)


def test_the_step_is_linear_in_the_rate():
    ends = []
    for rate in (1e-3, 2e-3):
        p = nn.Parameter(torch.ones(4, dtype=torch.float64))
        optimizer = LaProp({"all": [p]})
        for _ in range(3):
            p.data.fill_(1.0)
            p.grad = torch.arange(1.0, 5.0, dtype=torch.float64)
            optimizer.step({"all": rate})
        ends.append(1.0 - p.detach())
    torch.testing.assert_close(ends[1], 2 * ends[0])


def test_tiny_gradients_move_as_far_as_large_ones():
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([1e-12, 1e-6, 1e-1])
    LaProp({"all": [p]}).step({"all": 1e-3})
    assert (1 - p).tolist() == pytest.approx([1e-3] * 3, rel=1e-3)


def test_rate_zero_moves_nothing_but_learns_the_statistics():
    p = scalar(2.0)
    optimizer = LaProp({"all": [p]})
    p.grad = torch.tensor([1.0])
    optimizer.step({"all": 0.0})
    assert p.item() == 2.0
    assert optimizer.state_dict()["all"]["square"]["0"].item() > 0


def test_missing_gradients_count_as_zero():
    p, q = scalar(2.0), scalar(3.0)
    optimizer = LaProp({"all": [p, q]})
    p.grad = torch.tensor([0.1])
    norm = optimizer.step({"all": 1e-3})
    assert q.item() == 3.0
    assert p.item() == pytest.approx(1.999)
    assert norm.item() == pytest.approx(0.1)


def test_only_the_named_groups_step():
    p, q = scalar(2.0), scalar(2.0)
    optimizer = LaProp({"one": [p], "two": [q]})
    p.grad, q.grad = torch.tensor([0.3]), torch.tensor([0.4])
    before = snapshot(optimizer.state_dict()["two"])
    norm = optimizer.step({"one": 1e-3})
    assert (p.item() < 2.0, q.item()) == (True, 2.0)
    assert_same(optimizer.state_dict()["two"], before)
    assert norm.item() == pytest.approx(0.3)
    assert optimizer.step({"one": 0.0, "two": 0.0}).item() == pytest.approx(math.hypot(0.3, 0.4))


def test_norm_is_that_of_the_unclipped_gradients():
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.full((4,), 50.0)
    assert LaProp({"all": [p]}).step({"all": 1e-3}).item() == pytest.approx(100.0)


def run(gates):
    """Ten fixed gradients, those with gate 0 shut out; returns the optimiser and its parameter."""
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))
    optimizer = LaProp({"all": [p]})
    source = torch.Generator().manual_seed(0)
    for gate in gates:
        grad = torch.randn(3, generator=source)
        p.grad = grad if gate is None or gate else grad * 100
        optimizer.step({"all": 1e-2}, None if gate is None else torch.tensor(float(gate)))
    return optimizer, p


def test_an_open_gate_is_no_gate():
    (_, p), (_, q) = run([1] * 10), run([None] * 10)
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def test_a_shut_gate_leaves_parameters_and_statistics_as_they_were():
    optimizer, p = run([1, 1, 1])
    before, where = snapshot(optimizer.state_dict()), p.detach().clone()
    p.grad = torch.randn(3)
    optimizer.step({"all": 1e-2}, torch.zeros(()))
    assert torch.equal(p, where)
    assert_same(snapshot(optimizer.state_dict()), before)


def test_shut_steps_do_not_change_later_ones():
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))
    q = nn.Parameter(p.detach().clone())
    gated, plain = LaProp({"all": [p]}), LaProp({"all": [q]})
    for step in range(12):
        grad = torch.randn(3)
        p.grad, q.grad = grad, grad.clone()
        gate = float(step % 3 == 0)
        gated.step({"all": 1e-2}, torch.tensor(gate))
        if gate:
            plain.step({"all": 1e-2}, torch.tensor(1.0))
    assert torch.equal(p, q)


def test_restored_state_continues_to_the_bit():
    optimizer, p = run([None] * 4)
    q = nn.Parameter(p.detach().clone())
    other = LaProp({"all": [q]})
    other.load_state_dict(snapshot(optimizer.state_dict()))
    for _ in range(3):
        grad = torch.randn(3)
        for each, param in ((optimizer, p), (other, q)):
            param.grad = grad.clone()
            each.step({"all": 1e-2})
    assert torch.equal(p, q)
    assert_same(optimizer.state_dict(), other.state_dict())


def test_zero_grad_forgets_gradients():
    p = scalar(1.0)
    p.grad = torch.ones(1)
    LaProp({"all": [p]}).zero_grad()
    assert p.grad is None
