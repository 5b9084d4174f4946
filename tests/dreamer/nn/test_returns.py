"""Returns of a task and of other streams in one distribution."""

from __future__ import annotations

import pytest
import torch

from dreamer.nn.distributions import ReturnsCode, StreamReturns, SymexpTwoHot
from dreamer.nn.math import NUM_BINS, symexp, symlog


def raw(task, others, rows=6):
    width = task * NUM_BINS + others
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def test_the_task_is_two_hot_and_the_others_are_means_in_symlog_space():
    x = raw(1, 2)
    got = StreamReturns(x, 1).mean()
    torch.testing.assert_close(got[:, 0], SymexpTwoHot(x[:, :NUM_BINS]).mean())
    torch.testing.assert_close(got[:, 1:], symexp(x[:, NUM_BINS:]))
    torch.testing.assert_close(StreamReturns(raw(0, 2), 0).mean(), symexp(raw(0, 2)))


def test_nothing_is_expected_before_training():
    assert not StreamReturns(torch.zeros(3, NUM_BINS + 2), 1).mean().any()


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("others", [0, 1, 3])
def test_the_loss_is_cross_entropy_and_squared_error(task, others):
    if not task + others:
        pytest.skip("no stream at all")
    x = raw(task, others)
    ret, slow = 4.0 * torch.randn(2, 6, task + others, generator=torch.Generator().manual_seed(1))
    want = torch.zeros(6)
    if task:
        want += SymexpTwoHot(x[:, :NUM_BINS]).loss(ret[:, 0], slow[:, 0])
    for each in (ret, slow):
        want += 0.5 * (x[:, task * NUM_BINS :] - symlog(each[:, task:])).square().sum(-1)
    got = StreamReturns(x, task).loss(ReturnsCode.of(task, ret, slow))
    torch.testing.assert_close(got, want)


def test_targets_have_no_gradient():
    ret = torch.randn(6, 2, requires_grad=True)
    x = raw(1, 1).requires_grad_()
    StreamReturns(x, 1).loss(ReturnsCode.of(1, ret, ret)).sum().backward()
    assert ret.grad is None
    assert x.grad is not None
