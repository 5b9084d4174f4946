"""Hypergradients against autodiff, finite differences and quadratics whose best rate is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from builders import CPU, assert_same, generator, snapshot
from torch import nn

from dreamer.meta_gradient import (
    LIMIT,
    MetaConfig,
    MetaGradient,
    Tuned,
    finite_difference,
    hypergradient,
    tune,
)
from dreamer.nn.optim import LaProp, clip_gradients, flat_gradient
from dreamer.types import ConfigError

RATE = 3e-3
SIZES = {"free": 1e-3, "clipped": 1e3}  # factors of the loss: adaptive clipping off and on


def config(**changes):
    values = {"enabled": True, "every": 10, "warmup": 0, "step": 0.02, "trace": 0.0, "check": 0}
    values["weights"] = False
    return MetaConfig(**values | changes)


def meta(rates, **changes):
    return MetaGradient(rates, config(**changes), CPU)


def flat(tensors):
    return torch.cat([x.detach().flatten() for x in tensors])


class Problem:
    """Two layers and a fixed set of rows, half of them held out."""

    def __init__(self, scale=1.0, dtype=torch.float64):
        source = generator(1)
        shapes = ((6, 4), (6,), (1, 6))
        start = [torch.randn(shape, generator=source).to(dtype) * 0.5 for shape in shapes]
        self.params = [nn.Parameter(p) for p in start]
        rows, self.scale = torch.randn(64, 4, generator=source).to(dtype), scale
        self.target = rows[:, :1].sin() + 0.3 * torch.randn(64, 1, generator=source).to(dtype)
        self.rows = rows

    def fit(self, params, half):
        w, b, v = params
        error = torch.tanh(self.rows[half] @ w.T + b) @ v.T - self.target[half]
        return error.square().mean()

    def penalty(self, params):
        """A part of the training loss whose weight can be examined."""
        return sum(p.abs().pow(1.5).sum() for p in params)

    def loss(self, params, weight=0.1):
        return self.scale * (self.fit(params, slice(32)) + weight * self.penalty(params))

    def held_out(self, params):
        return self.fit(params, slice(32, None))

    def backward(self, weight=0.1):
        for p in self.params:
            p.grad = None
        self.loss(self.params, weight).backward()

    def held_out_gradient(self):
        grads = torch.autograd.grad(self.held_out(self.params), self.params)
        return flat_gradient(self.params, grads)


def train(scale, rates, weights=None, decay=0.0):
    """Real optimiser steps with the given rates and weights of the penalty."""
    problem = Problem(scale)
    optimizer = LaProp({"all": problem.params})
    optimizer.follow(["all"], decay)
    optimizer.remember_gradients(["all"])
    for rate, weight in zip(rates, weights or [0.1] * len(rates), strict=True):
        problem.backward(weight)
        optimizer.step({"all": rate})
    return problem, optimizer


def held_out_after(scale, rates, weights=None):
    problem, _ = train(scale, rates, weights)
    return problem.held_out(problem.params).item()


def central(function, eps=1e-5):
    return (function(eps) - function(-eps)) / (2 * eps)


def plain_steps(problem, logs):
    """LaProp as differentiable arithmetic; one logarithm of the rate per step."""
    params, square, momentum = problem.params, [0.0] * 3, [0.0] * 3
    for t, log in enumerate(logs, 1):
        loss = problem.loss(params)
        grads = torch.autograd.grad(loss, params, create_graph=True)
        limits = [0.3 * p.detach().norm().clamp_min(1e-3) for p in params]
        grads = [g / (g.norm() / m).clamp_min(1.0) for g, m in zip(grads, limits, strict=True)]
        square = [0.999 * s + 0.001 * g**2 for s, g in zip(square, grads, strict=True)]
        units = [g / (s / (1 - 0.999**t)).sqrt() for g, s in zip(grads, square, strict=True)]
        momentum = [0.9 * m + 0.1 * u for m, u in zip(momentum, units, strict=True)]
        moves = [-log.exp() * m / (1 - 0.9**t) for m in momentum]
        params = [p + move for p, move in zip(params, moves, strict=True)]
    return params


@pytest.mark.parametrize("size", SIZES)
def test_one_step_of_laprop_agrees_with_autodiff_and_finite_differences(size):
    scale, before = SIZES[size], 5
    problem, optimizer = train(scale, [RATE] * (before + 1))
    closed = hypergradient([problem.held_out_gradient()], [optimizer.trace["all"]]).item()

    log = torch.tensor(math.log(RATE), dtype=torch.float64, requires_grad=True)
    twin = Problem(scale)
    params = plain_steps(twin, [log.detach()] * before + [log])
    (autodiff,) = torch.autograd.grad(twin.held_out(params), log)
    measured = central(lambda e: held_out_after(scale, [RATE] * before + [RATE * math.exp(e)]))
    assert closed == pytest.approx(autodiff.item(), rel=1e-7)
    assert closed == pytest.approx(measured, rel=1e-6)

    twin.backward()
    clipped = clip_gradients([p.detach() for p in twin.params], [p.grad for p in twin.params])
    shorter = [
        bool(c.norm() < 0.999 * p.grad.norm()) for c, p in zip(clipped, twin.params, strict=True)
    ]
    assert shorter == [size == "clipped"] * 3


@pytest.mark.parametrize("size", SIZES)
def test_three_unrolled_steps_agree_and_the_trace_is_near(size):
    """The trace leaves out how moves change later gradients: at this rate a few percent."""
    scale = SIZES[size]
    log = torch.tensor(math.log(RATE), dtype=torch.float64, requires_grad=True)
    twin = Problem(scale)
    (unrolled,) = torch.autograd.grad(twin.held_out(plain_steps(twin, [log] * 3)), log)
    measured = central(lambda e: held_out_after(scale, [RATE * math.exp(e)] * 3))
    assert unrolled.item() == pytest.approx(measured, rel=1e-3)
    problem, optimizer = train(scale, [RATE] * 3, decay=1.0)
    trace = hypergradient([problem.held_out_gradient()], [optimizer.trace["all"]]).item()
    assert trace == pytest.approx(measured, rel=0.05)


def test_the_whole_trace_is_exact_where_gradients_do_not_depend_on_parameters():
    def run(shift):
        p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        optimizer = LaProp({"all": [p]})
        optimizer.follow(["all"], 1.0)
        for step in range(3):
            p.grad = torch.tensor([0.01, -0.02, 0.05], dtype=torch.float64) * (step + 1)
            optimizer.step({"all": RATE * math.exp(shift)})
        return p.detach(), optimizer.trace["all"]

    end, trace = run(0.0)
    measured = central(lambda e: run(e)[0].square().sum().item())
    assert hypergradient([2 * end], [trace]).item() == pytest.approx(measured, rel=1e-8)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_the_formula_holds_for_other_optimisers_with_the_rate_outside(kind):
    def run(shift):
        problem = Problem()
        plain = kind(problem.params, RATE)
        for step in range(4):
            problem.backward()
            before = flat(problem.params)
            plain.param_groups[0]["lr"] = RATE * (math.exp(shift) if step == 3 else 1.0)
            plain.step()
        return problem, flat(problem.params) - before

    problem, move = run(0.0)
    closed = hypergradient([problem.held_out_gradient()], [move]).item()
    measured = central(lambda e: (lambda p: p.held_out(p.params).item())(run(e)[0]))
    assert closed == pytest.approx(measured, rel=1e-6)


def test_first_step_by_hand_and_by_a_differentiable_adam():
    """w = (1, 1, 1), rate 0.1, positive gradients: d sum(w'^2) / d rate = 3 * 2 * 0.9 * -1."""
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    inner = w.clone()  # a leaf would be changed in place
    adam = torch.optim.Adam([inner], lr=rate, differentiable=True, foreach=False)
    inner.grad = torch.full((3,), 0.1, dtype=torch.float64)
    adam.step()
    (slope,) = torch.autograd.grad(inner.square().sum(), rate)
    assert slope.item() == pytest.approx(-5.4, abs=1e-4)  # its corrections are float32

    p = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = LaProp({"all": [p]})
    optimizer.follow(["all"], 0.0)
    p.grad = torch.full((3,), 0.1, dtype=torch.float64)
    optimizer.step({"all": 0.1})
    ours = hypergradient([2 * p.detach()], [optimizer.trace["all"]])
    assert ours.item() / 0.1 == pytest.approx(-5.4, abs=1e-9)


def test_isotropic_quadratic_reaches_the_inverse_curvature():
    h, w = 4.0, torch.ones(1, dtype=torch.float64)
    tuned = Tuned.start(0.01, CPU)
    for _ in range(600):
        move = -tuned.value * h * w
        tuned = tune(tuned, (h * (w + move) * move).sum(), 0.02, 1e-6, 10.0)
    assert tuned.value.item() == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("start", [1e-4, 9e-3])
def test_the_class_finds_the_same_optimum_within_its_bounds(start):
    h, w = 400.0, torch.ones(1)
    rates = meta({"actor": start})
    for _ in range(600):
        move = (-rates.rate("actor") * h * w).float()
        rates.step("actor", [h * (w + move)], [move])
    assert rates.metrics()["meta/lr"].item() == pytest.approx(1 / h, rel=0.02)


def test_anisotropic_quadratic_has_the_slopes_and_finds_the_line_search_optimum():
    curvature = torch.tensor([1.0, 4.0], dtype=torch.float64)
    start = torch.tensor([2.0, 1.0], dtype=torch.float64)
    gradient = curvature * start
    rows = []
    for rate in (0.1, 0.25, 0.5):
        end = start - rate * gradient
        slope = hypergradient([curvature * end], [-rate * gradient]).item() / rate
        rows.append(((curvature * end.square()).sum().item() / 2, slope))
    want = [(2.34, -13.2), (1.125, -3.0), (2.5, 14.0)]
    assert [x for row in rows for x in row] == pytest.approx([x for row in want for x in row])

    tuned = Tuned.start(0.01, CPU)
    for _ in range(600):
        move = -tuned.value * gradient
        tuned = tune(tuned, hypergradient([curvature * (start + move)], [move]), 0.02, 1e-6, 10.0)
    assert tuned.value.item() == pytest.approx(20 / 68, rel=0.02)


def test_gradient_noise_halves_the_greedy_optimum():
    """Short-horizon bias as a number: h w^2 / (h^2 w^2 + sigma^2) is 0.125 instead of 0.25."""
    h, w, sigma, source = 4.0, 1.0, 4.0, generator()
    tuned, logs = Tuned.start(0.25, CPU), []
    for _ in range(1500):
        noise = torch.randn(64, generator=source, dtype=torch.float64)
        move = -tuned.value * (h * w + sigma * noise)
        tuned = tune(tuned, (h * (w + move) * move).mean(), 0.02, 1e-6, 10.0)
        logs.append(tuned.value.log().item())
    assert math.exp(sum(logs[500:]) / 1000) == pytest.approx(0.125, rel=0.01)


def test_a_rate_stops_at_its_bounds_and_comes_back():
    rates = meta({"world": 2e-6, "actor": 9e-3}, step=0.05)
    trace = torch.ones(2)
    for _ in range(200):
        rates.step("world", [torch.ones(2)], [trace])
        rates.step("actor", [-torch.ones(2)], [trace])
    assert (rates.rate("world").item(), rates.rate("actor").item()) == (1e-6, 1e-2)
    rates.step("world", [-torch.ones(2)], [trace])
    assert rates.rate("world").item() == pytest.approx(1e-6 * math.exp(0.05))


def test_a_sudden_hypergradient_moves_a_rate_by_no_more_than_the_limit():
    rates = meta({"world": 1e-3})
    for size in [1e-3] * 50 + [1e6]:
        before = rates.rate("world").item()
        rates.step("world", [torch.full((1,), size)], [torch.ones(1)])
    assert rates.rate("world").item() == pytest.approx(before * math.exp(-LIMIT))


def test_the_first_step_has_its_full_size_whatever_the_scale():
    for size in (1e-9, 1e9):
        rates = meta({"world": 1e-3})
        rates.step("world", [torch.full((1,), size)], [torch.ones(1)])
        # A size of 1e-9 is a thousand times what is added against division by zero.
        assert rates.rate("world").item() == pytest.approx(1e-3 * math.exp(-0.02), rel=1e-4)


def test_groups_that_share_a_rate_add():
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    slope = meta({"critic": 1e-3}).step("critic", [one, two], [one, -two])
    assert slope["meta/gradient_critic"].item() == 1 + 4 - 9
    with pytest.raises(ValueError, match="shorter"):
        hypergradient([one, two], [one])


def test_a_hypergradient_that_is_not_finite_is_not_hidden():
    for bad in (math.nan, math.inf):
        rates = meta({"world": 1e-3})
        slope = rates.step("world", [torch.tensor([bad])], [torch.ones(1)])
        assert not math.isfinite(slope["meta/gradient_world"].item())
        assert math.isnan(rates.rate("world").item())


def learn(rates, updates=25, share=lambda update: min(1.0, update / 7)):
    """float32 training with a schedule and gates; `rates` is a number or a MetaGradient."""
    problem = Problem(dtype=torch.float32)
    optimizer = LaProp({"all": problem.params})
    if not isinstance(rates, float):
        optimizer.follow(["all"], rates.config.trace)
    for update in range(updates):
        problem.backward()
        rate = rates if isinstance(rates, float) else rates.rate("actor")
        gate = torch.tensor(float(update % 4 != 3)) if update > 10 else None
        optimizer.step({"all": rate * share(update)}, gate)
        if not isinstance(rates, float) and rates.due(update):
            gradient = problem.held_out_gradient()
            rates.step("actor", [gradient], [optimizer.trace["all"]])
    return flat(problem.params)


def test_step_zero_is_fixed_rates_to_the_bit():
    off = learn(RATE)
    still = meta({"actor": RATE}, every=2, step=0.0, trace=0.9)
    assert torch.equal(learn(still), off)
    assert still.rate("actor").item() == RATE
    assert not torch.equal(learn(meta({"actor": RATE}, every=2, trace=0.9)), off)


def test_a_rate_that_is_too_low_rises_and_training_gains():
    rates = meta({"actor": 1e-5}, every=1, trace=0.9, step=0.05)
    slow, tuned = Problem(dtype=torch.float32), Problem(dtype=torch.float32)
    for problem, end in ((slow, learn(1e-5, 150)), (tuned, learn(rates, 150))):
        nn.utils.vector_to_parameters(end, problem.params)
    assert rates.rate("actor").item() > 2e-4
    assert tuned.held_out(tuned.params) < 0.9 * slow.held_out(slow.params)


def test_a_restored_state_continues_to_the_bit():
    source = generator()
    slopes = [torch.randn(3, generator=source) for _ in range(20)]
    whole = meta({"world": 1e-3, "actor": 3e-4})
    parts = meta({"world": 1e-3, "actor": 3e-4})
    for index, slope in enumerate(slopes):
        if index == 11:
            saved = snapshot(parts.state_dict())
            parts = meta({"world": 5e-3, "actor": 5e-4})
            parts.load_state_dict(saved)
        for each in (whole, parts):
            each.step("world", [slope], [torch.ones(3)])
            each.step("actor", [slope], [-torch.ones(3)])
    assert_same(snapshot(whole.state_dict()), snapshot(parts.state_dict()))


def test_a_loaded_state_is_a_copy_and_of_the_same_rates():
    first, second = meta({"world": 1e-3}), meta({"world": 2e-3})
    second.load_state_dict(first.state_dict())
    second.tuned["world"].value.fill_(0.5)
    assert first.rate("world").item() == 1e-3
    with pytest.raises(KeyError, match="manager"):
        first.load_state_dict(meta({"world": 1e-3, "manager": 1e-3}).state_dict())


@pytest.mark.parametrize(
    ("dtype", "allowed"), [(torch.float64, 1e-6), (torch.float32, 1e-2)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_check_confirms_a_right_gradient_and_finds_a_wrong_one(dtype, allowed, decay):
    problem = Problem(dtype=dtype)
    optimizer = LaProp({"all": problem.params})
    optimizer.follow(["all"], decay)
    for _ in range(5):
        problem.backward()
        optimizer.step({"all": RATE})
    before, gradient = flat(problem.params), problem.held_out_gradient()
    trace, rates = optimizer.trace["all"], meta({"actor": RATE})

    def error(gradient):
        def objective():
            return problem.held_out(problem.params)

        metrics = rates.check("actor", objective, problem.params, [gradient], [trace])
        return metrics["meta/fd_error_actor"].item()

    assert error(gradient) < allowed
    assert error(1.1 * gradient) == pytest.approx(1 / 11, abs=allowed)
    assert torch.equal(flat(problem.params), before)


def test_the_check_restores_parameters_when_the_objective_fails():
    p = nn.Parameter(torch.randn(5, generator=generator()))
    before = p.detach().clone()

    def objective():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        finite_difference(objective, [p], torch.ones(5))
    assert torch.equal(p, before)


def test_the_check_of_parameters_that_did_not_move_is_zero():
    p = nn.Parameter(torch.zeros(3))
    still = torch.zeros(3)
    metrics = meta({"actor": 1e-3}).check("actor", p.square().sum, [p], [still], [still])
    assert metrics["meta/fd_error_actor"].item() == 0.0


def weight_slopes(size, steps):
    """Of the penalty in the last step: ours, with root and clip factor constant, measured."""
    scale = SIZES[size]
    before, _ = train(scale, [RATE] * (steps - 1))
    penalty = torch.autograd.grad(scale * before.penalty(before.params), before.params)
    tangent = flat_gradient(before.params, penalty)
    problem, optimizer = train(scale, [RATE] * steps)
    gradient = problem.held_out_gradient()
    exact = hypergradient([gradient], [optimizer.response("all", RATE, tangent)]).item()

    root = (optimizer.square["all"] / (1 - 0.999**steps)).sqrt()
    before.backward()
    full = flat([p.grad for p in before.params])
    params = [p.detach() for p in before.params]
    clipped = flat(clip_gradients(params, [p.grad for p in before.params]))
    held = -RATE * 0.1 / (1 - 0.9**steps) * (clipped / full) * tangent / root
    weights = [0.1] * (steps - 1)
    measured = central(
        # Closer than elsewhere: an early step bends sharply with the weight.
        lambda e: held_out_after(scale, [RATE] * steps, [*weights, 0.1 + e]),
        1e-6,
    )
    return exact, (gradient * held).sum().item(), measured


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", [2, 20, 200])
def test_weight_of_a_loss_agrees_with_finite_differences_of_a_whole_step(size, steps):
    exact, _, measured = weight_slopes(size, steps)
    assert exact == pytest.approx(measured, rel=5e-6)


def test_what_holding_root_and_clip_factor_constant_would_cost():
    """Why `response` differentiates both.

    Measured: unclipped, a constant root errs by 230 % at step 2, 2.2 % at step 20, 0.09 % at step
    200; with every tensor clipped a constant factor errs by 52 % at step 20 and 72 % at step 50.
    """
    errors = {
        (size, steps): abs(weight_slopes(size, steps)[1] / weight_slopes(size, steps)[0] - 1)
        for size, steps in (("free", 20), ("free", 200), ("clipped", 20), ("clipped", 50))
    }
    assert 0.01 < errors["free", 20] < 0.05
    assert errors["free", 200] < 1e-3
    assert min(errors["clipped", 20], errors["clipped", 50]) > 0.3


def test_meta_steps_are_due_after_the_warmup_at_their_interval():
    rates = meta({"actor": 1e-3}, warmup=5, every=3, check=2)
    assert [u for u in range(20) if rates.due(u)] == [5, 8, 11, 14, 17]
    assert [u for u in range(20) if rates.check_due(u)] == [5, 11, 17]
    assert not any(meta({"actor": 1e-3}, every=1).check_due(u) for u in range(9))
    assert not any(meta({"actor": 1e-3}, every=1, enabled=False).due(u) for u in range(9))


def test_metrics_name_the_acting_rate_and_the_others():
    metrics = meta({"world": 1e-3, "actor": 3e-4, "critic": 2e-3}).metrics()
    values = {name: value.item() for name, value in metrics.items()}
    assert values == {"meta/lr_world": 1e-3, "meta/lr": 3e-4, "meta/lr_critic": 2e-3}


@pytest.mark.parametrize("rate", [1e-7, 2e-2, 0.0])
def test_a_rate_to_start_from_outside_of_the_bounds_is_refused(rate):
    with pytest.raises(ConfigError, match=r"critic_lr: .* 1e-06 to 0.01 while meta.enabled"):
        meta({"world": 1e-3, "critic": rate})


@pytest.mark.parametrize(
    ("key", "value"),
    [("every", 0), ("warmup", -1), ("step", 0.06), ("step", -0.1), ("trace", 1.0), ("check", -1)],
)
def test_bad_values_are_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=key):
        config(**{key: value})
    assert {field.default for field in dataclasses.fields(MetaConfig)} == {dataclasses.MISSING}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_device():
    device = torch.device("cuda")
    p = nn.Parameter(torch.ones(8, device=device))
    optimizer, rates = LaProp({"all": [p]}), MetaGradient({"actor": 1e-3}, config(), device)
    optimizer.follow(["all"], 0.9)
    optimizer.remember_gradients(["all"])
    p.grad, gate = torch.ones(8, device=device), torch.ones((), device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step({"all": rates.rate("actor") * 0.5}, gate)
        rates.step("actor", [optimizer.gradient("all")], [optimizer.trace["all"]])
        optimizer.response("all", rates.rate("actor"), optimizer.gradient("all"))
        rates.check("actor", p.square().sum, [p], [2 * p.detach()], [optimizer.trace["all"]])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert p.max().item() < 1.0
