"""LaProp and adaptive gradient clipping: golden numbers, a plain twin, and the gate."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from builders import assert_same, snapshot
from torch import nn

from dreamer.nn.optim import LaProp, clip_gradients, flat_gradient, split_flat


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


def descend(optimizer, params, rates, gates=None, seed=0):
    """Steps with random gradients; returns where the parameters were, first to last."""
    source, where = torch.Generator().manual_seed(seed), [flat(params)]
    for step, rate in enumerate(rates):
        for p in params:
            # Some are long enough to be clipped.
            size = 10.0 ** (step % 3 - 1)
            p.grad = size * torch.randn(p.shape, generator=source).to(p.dtype)
        gate = None if gates is None else torch.tensor(float(gates[step]), dtype=params[0].dtype)
        optimizer.step({"all": rate}, gate)
        where.append(flat(params))
    return where


def flat(params):
    return torch.cat([p.detach().flatten() for p in params])


def two_params(dtype=torch.float64):
    source = torch.Generator().manual_seed(5)
    return [
        nn.Parameter(torch.randn(shape, generator=source).to(dtype)) for shape in ((3, 4), (5,))
    ]


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_trace_is_the_decayed_sum_of_moves(decay):
    params = two_params()
    optimizer = LaProp({"all": params})
    optimizer.follow(["all"], decay)
    where = descend(optimizer, params, [1e-2, 3e-2, 2e-2, 5e-3])
    moves = [after - before for before, after in itertools.pairwise(where)]
    want = sum(decay**age * move for age, move in enumerate(reversed(moves)))
    torch.testing.assert_close(optimizer.trace["all"], want, rtol=1e-12, atol=1e-15)


def test_following_changes_no_bit():
    ends = []
    for follow in (False, True):
        params = two_params(torch.float32)
        optimizer = LaProp({"all": params})
        if follow:
            optimizer.follow(["all"], 0.9)
            optimizer.remember_gradients(["all"])
        descend(optimizer, params, [1e-2] * 6, gates=[1, 1, 0, 1, 0, 1])
        ends.append((flat(params), optimizer.square["all"], optimizer.momentum["all"]))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_only_followed_groups_have_a_trace_in_the_state():
    optimizer = LaProp({"one": [scalar(1.0)], "two": [scalar(1.0)]})
    optimizer.follow(["two"], 0.9)
    state = optimizer.state_dict()
    assert state["one"].keys() == {"square", "momentum", "steps"}
    assert state["two"].keys() == {"square", "momentum", "steps", "trace"}


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_shut_gate_makes_no_move_and_leaves_the_trace(decay):
    params = two_params(torch.float32)
    optimizer = LaProp({"all": params})
    optimizer.follow(["all"], decay)
    optimizer.remember_gradients(["all"])
    descend(optimizer, params, [1e-2] * 3)
    before, where = snapshot(optimizer.state_dict()), flat(params)
    descend(optimizer, params, [1e-2] * 2, gates=[0, 0], seed=1)
    assert torch.equal(flat(params), where)
    assert_same(snapshot(optimizer.state_dict()), before)


def test_rates_may_be_tensors_and_leave_the_same_bits():
    ends = []
    for rate in (3e-4, torch.tensor(3e-4, dtype=torch.float64)):
        params = two_params(torch.float32)
        optimizer = LaProp({"all": params})
        optimizer.follow(["all"], 0.9)
        descend(optimizer, params, [rate * share for share in (0.1, 0.7, 1.0)])
        descend(optimizer, params, [rate * 0.3] * 2, gates=[1, 0])
        ends.append((flat(params), optimizer.trace["all"]))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_followed_group_is_restored_and_continues_to_the_bit():
    params, others = two_params(torch.float32), two_params(torch.float32)
    pair = [LaProp({"all": each}) for each in (params, others)]
    for optimizer in pair:
        optimizer.follow(["all"], 0.9)
        optimizer.remember_gradients(["all"])
    descend(pair[0], params, [1e-2] * 3)
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    pair[1].load_state_dict(snapshot(pair[0].state_dict()))
    for optimizer, each in zip(pair, (params, others), strict=True):
        descend(optimizer, each, [1e-2] * 2, seed=1)
    assert_same(snapshot(pair[0].state_dict()), snapshot(pair[1].state_dict()))


def test_a_state_without_trace_leaves_it_and_a_trace_nobody_keeps_is_refused():
    plain, following = LaProp({"all": [scalar(1.0)]}), LaProp({"all": [scalar(1.0)]})
    following.follow(["all"], 0.9)
    following.load_state_dict(snapshot(plain.state_dict()))
    assert following.trace["all"].item() == 0.0
    with pytest.raises(KeyError, match="trace"):
        plain.load_state_dict(snapshot(following.state_dict()))
    state = plain.state_dict()
    del state["all"]["steps"]
    with pytest.raises(KeyError, match="steps"):
        plain.load_state_dict(state)


def test_flat_gradients_are_in_the_order_of_the_parameters():
    p, q, r = (nn.Parameter(torch.zeros(n)) for n in (2, 3, 1))
    optimizer = LaProp({"all": [p, q, r]})
    p.grad, r.grad = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    want = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 3.0])
    assert torch.equal(optimizer.gradient("all"), want)
    assert torch.equal(flat_gradient([p, q, r], [p.grad, None, r.grad]), want)
    assert [x.shape for x in split_flat(want, [p, q, r])] == [p.shape, q.shape, r.shape]


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("size", [1e-2, 1e2], ids=["free", "clipped"])
def test_response_is_the_derivative_of_the_move_along_the_gradient(size, steps):
    source = torch.Generator().manual_seed(3)
    tangent = [torch.randn(shape, generator=source).double() * size for shape in ((3, 4), (5,))]

    def end(shift):
        params = two_params()
        optimizer = LaProp({"all": params})
        optimizer.remember_gradients(["all"])
        descend(optimizer, params, [1e-2] * (steps - 1))
        last = torch.Generator().manual_seed(9)
        for p, v in zip(params, tangent, strict=True):
            p.grad = size * torch.randn(p.shape, generator=last).double() + shift * v
        optimizer.step({"all": 1e-2})
        return flat(params), optimizer

    measured = (end(1e-5)[0] - end(-1e-5)[0]) / 2e-5
    response = end(0.0)[1].response("all", 1e-2, torch.cat([v.flatten() for v in tangent]))
    torch.testing.assert_close(response, measured, rtol=1e-6, atol=1e-9)
    # At the first step only signs matter.
    assert (response.abs().max().item() < 1e-12) == (steps == 1)


def test_response_of_a_parameter_without_gradients_is_zero():
    p = nn.Parameter(torch.ones(2))
    optimizer = LaProp({"all": [p]})
    optimizer.remember_gradients(["all"])
    for g in (0.1, 0.2):
        p.grad = torch.tensor([g, 0.0])
        optimizer.step({"all": 1e-2})
    response = optimizer.response("all", 1e-2, torch.ones(2))
    assert (response[0].item() < 0, response[1].item()) == (True, 0.0)
