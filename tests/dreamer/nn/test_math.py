"""Squashing, two-hot codes and returns: golden numbers and slow loops."""

from __future__ import annotations

import math

import pytest
import torch

from dreamer.nn.math import (
    NUM_BINS,
    lambda_return,
    replay_return,
    symexp,
    symexp_bins,
    symlog,
    two_hot,
)

CPU = torch.device("cpu")


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def flags(*values):
    return torch.tensor(values, dtype=torch.bool)[:, None]


def test_symlog_of_known_numbers():
    x = torch.tensor([0.0, 1.0, -1.0, 10.0, -1e6])
    want = [0.0, math.log(2), -math.log(2), math.log(11), -math.log(1e6 + 1)]
    assert symlog(x).tolist() == pytest.approx(want, rel=1e-6)


def test_symexp_inverts_symlog():
    x = torch.cat([torch.logspace(-12, 8, 101, dtype=torch.float64), torch.zeros(1)])
    x = torch.cat([x, -x])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-12, atol=1e-20)
    torch.testing.assert_close(symlog(symexp(x.clamp(-20, 20))), x.clamp(-20, 20))


def test_symlog_has_slope_one_at_zero():
    x = torch.tensor([-1e-9, 1e-9], requires_grad=True)
    symlog(x).sum().backward()
    assert x.grad.tolist() == pytest.approx([1.0, 1.0])


def test_bins_are_exactly_symmetric_with_known_values():
    bins = symexp_bins(CPU)
    assert bins.shape == (NUM_BINS,)
    assert bins[127] == 0.0
    assert torch.equal(bins, -bins.flip(0))
    assert bins[128:130].tolist() == pytest.approx([0.17056, 0.37021], abs=1e-5)
    assert bins[-1].item() == pytest.approx(4.852e8, rel=1e-3)
    assert bool((bins.diff() > 0).all())


@pytest.mark.parametrize(
    ("target", "lower", "weight"),
    [(1.0, 131, 0.382671), (1000.0, 170, 0.861551), (0.0, 127, 0.0)],
)
def test_two_hot_golden_numbers(target, lower, weight):
    low, high, share = two_hot(torch.tensor(target))
    assert (low.item(), high.item()) == (lower, lower + 1)
    assert share.item() == pytest.approx(weight, abs=2e-6)


def test_two_hot_beyond_the_bins_is_all_on_the_end():
    low, high, share = two_hot(torch.tensor([1e9, -1e9]))
    mass = torch.zeros(2, NUM_BINS)
    mass.scatter_add_(-1, torch.stack([low, high], -1), torch.stack([1 - share, share], -1))
    assert mass[0, 254] == 1.0
    assert mass[1, 0] == 1.0


def test_two_hot_decodes_to_its_target():
    target = torch.tensor([0.0, 0.1, 1.0, 17.0, 1000.0, 3e7])
    target = torch.cat([target, -target])
    low, high, share = two_hot(target)
    bins = symexp_bins(CPU).double()
    decoded = (1 - share.double()) * bins[low] + share.double() * bins[high]
    torch.testing.assert_close(decoded, target.double(), rtol=1e-5, atol=1e-7)
    assert bool(((share >= 0) & (share <= 1)).all())


def test_two_hot_of_a_bin_puts_all_mass_there():
    bins = symexp_bins(CPU)
    low, _, share = two_hot(bins[1:-1])
    assert low.tolist() == list(range(1, 254))
    assert not share.any()


HALF = column(0.5, 0.5, 0.5, 0.5)


def test_lambda_return_golden_numbers():
    ret = lambda_return(column(9, 1, 2, 3), column(100, 10, 20, 30), HALF, 0.5)
    assert ret.flatten().tolist() == [6.375, 11.5, 18.0]


def test_lambda_return_ignores_reward_and_value_of_the_first_state():
    one = lambda_return(column(9, 1, 2, 3), column(100, 10, 20, 30), HALF, 0.5)
    other = lambda_return(column(-7, 1, 2, 3), column(3, 10, 20, 30), HALF.clone(), 0.5)
    assert torch.equal(one, other)


def test_lambda_return_with_the_discount_in_the_continuation():
    ret = lambda_return(column(9, 1, 2, 3), column(0, 4, 5, 6), column(1, 0.9, 0.8, 0.7), 0.95)
    assert ret.flatten().tolist() == pytest.approx([7.73956, 7.672, 7.2], abs=1e-12)


def slow_lambda_return(reward, value, cont, lam):
    """The sum over all n-step returns, each bootstrapped on its own, by definition."""
    H = len(reward) - 1

    def n_step(t, n):
        ret, discount = 0.0, 1.0
        for k in range(1, n + 1):
            ret, discount = ret + discount * reward[t + k], discount * cont[t + k]
        return ret + discount * value[t + n]

    returns = []
    for t in range(H):
        most = H - t
        mixed = sum((1 - lam) * lam ** (n - 1) * n_step(t, n) for n in range(1, most))
        returns.append(mixed + lam ** (most - 1) * n_step(t, most))
    return returns


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("horizon", [1, 2, 7])
def test_lambda_return_is_the_mixture_of_n_step_returns(lam, horizon):
    reward, value, cont = torch.rand(3, horizon + 1, 4, dtype=torch.float64).unbind()
    got = lambda_return(reward * 4 - 2, value * 9, cont, lam)
    assert got.shape == (horizon, 4)
    for n in range(4):
        want = slow_lambda_return(
            (reward[:, n] * 4 - 2).tolist(), (value[:, n] * 9).tolist(), cont[:, n].tolist(), lam
        )
        assert got[:, n].tolist() == pytest.approx(want, rel=1e-12)


def test_a_continuation_of_zero_stops_the_return():
    reward, value = torch.randn(2, 5, 3, dtype=torch.float64).unbind()
    cont = torch.ones(5, 3, dtype=torch.float64)
    cont[2] = 0.0
    ret = lambda_return(reward, value, cont, 0.95)
    torch.testing.assert_close(ret[1], reward[2])
    later = value.clone()
    later[2:] += 100.0
    assert torch.equal(lambda_return(reward, later, cont, 0.95)[:2], ret[:2])


def test_constant_reward_without_bootstrap_is_a_geometric_sum():
    H, g = 12, 0.9
    ones, zeros = torch.ones(H + 1, 1, dtype=torch.float64), torch.zeros(H + 1, 1)
    ret = lambda_return(ones, zeros.double(), g * ones, 1.0)
    assert ret[0].item() == pytest.approx((1 - g**H) / (1 - g))


def test_constant_reward_that_never_ends_is_worth_333():
    ones = torch.ones(16, 1, dtype=torch.float64)
    cont = ones * (1.0 - 1.0 / 333.0)
    value = 0.0
    for _ in range(800):
        value = lambda_return(ones, value * ones, cont, 0.95)[0].item()
    assert value == pytest.approx(333.0, abs=1e-6)
    torch.testing.assert_close(lambda_return(ones, 333 * ones, cont, 0.95), 333 * ones[1:])


BOOT, NONE = column(100, 10, 20, 30), flags(0, 0, 0, 0)
AT_ONE = flags(0, 1, 0, 0)


@pytest.mark.parametrize(
    ("is_last", "is_terminal", "first"),
    [(NONE, NONE, 6.375), (AT_ONE, NONE, 6.0), (AT_ONE, AT_ONE, 1.0)],
)
def test_replay_return_ends_and_truncations(is_last, is_terminal, first):
    ret = replay_return(column(9, 1, 2, 3), BOOT, is_last, is_terminal, 0.5, 0.5)
    assert ret.flatten().tolist() == [first, 11.5, 18.0]


def test_replay_return_ignores_reward_and_bootstrap_of_the_first_step():
    one = replay_return(column(9, 1, 2, 3), BOOT, AT_ONE, NONE, 0.5, 0.5)
    other = replay_return(column(0, 1, 2, 3), column(-5, 10, 20, 30), AT_ONE, NONE, 0.5, 0.5)
    assert torch.equal(one, other)


def slow_replay_return(reward, boot, is_last, is_terminal, discount, lam, t):
    """One position by recursion in plain numbers."""
    if t == len(reward) - 1:
        return boot[t]
    ret = reward[t + 1]
    if is_terminal[t + 1]:
        return ret
    if is_last[t + 1]:
        return ret + discount * boot[t + 1]
    rest = slow_replay_return(reward, boot, is_last, is_terminal, discount, lam, t + 1)
    return ret + discount * ((1 - lam) * boot[t + 1] + lam * rest)


def test_replay_return_equals_plain_recursion():
    T, B = 20, 6
    reward, boot = torch.randn(2, T, B, dtype=torch.float64).unbind()
    is_last = torch.rand(T, B) < 0.3
    is_terminal = is_last & (torch.rand(T, B) < 0.5)
    assert is_last.any()
    assert is_terminal.any()
    got = replay_return(reward, boot, is_last, is_terminal, 0.997, 0.95)
    assert got.shape == (T - 1, B)
    for b in range(B):
        lists = [x[:, b].tolist() for x in (reward, boot, is_last, is_terminal)]
        want = [slow_replay_return(*lists, 0.997, 0.95, t) for t in range(T - 1)]
        # The masks enter as float32, which rounds the two factors.
        assert got[:, b].tolist() == pytest.approx(want, rel=1e-6, abs=1e-6)


def test_replay_return_without_ends_is_the_lambda_return():
    reward, boot = torch.randn(2, 9, 4, dtype=torch.float64).unbind()
    none = torch.zeros(9, 4, dtype=torch.bool)
    got = replay_return(reward, boot, none, none, 0.9, 0.8)
    want = lambda_return(reward, boot, torch.full((9, 4), 0.9, dtype=torch.float64), 0.8)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
