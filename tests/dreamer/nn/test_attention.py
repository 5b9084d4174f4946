"""The weights of attention, recomputed for onlookers, are those that the block acts by."""

import pytest
import torch
from builders import generator

from dreamer.nn.attention import AttentionBlock

MASK = torch.tensor([[True, True, False, True, True], [True, False, False, False, False]])


@pytest.fixture
def block():
    return AttentionBlock(12, generator())


def tokens():
    return torch.randn(2, 5, 12, generator=generator(1))


@pytest.mark.parametrize("mask", [None, MASK[:, None, None]])
def test_what_the_weights_take_from_the_values_is_what_the_block_computes(block, mask):
    x = tokens()
    weights = block.weights(x, mask)
    assert weights.shape == (2, 4, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
    values = block.qkv(block.norms[0](x))[..., 24:].unflatten(-1, (4, 3))
    heard = torch.einsum("mhqk,mkhd->mqhd", weights, values).flatten(-2)
    after = x + block.out(heard)
    after = after + block.back(block.hidden(block.norms[1](after)))
    torch.testing.assert_close(after, block(x, mask), rtol=1e-5, atol=1e-6)


def test_what_is_not_heard_has_no_weight(block):
    weights = block.weights(tokens(), MASK[:, None, None])
    assert (weights[0, :, :, 2] == 0).all()
    assert (weights[1, :, :, 0] == 1).all()


def test_equal_tokens_are_heard_alike_and_nothing_is_kept_for_gradients(block):
    weights = block.weights(torch.ones(1, 4, 12))
    torch.testing.assert_close(weights, torch.full((1, 4, 4, 4), 0.25))
    assert not weights.requires_grad
