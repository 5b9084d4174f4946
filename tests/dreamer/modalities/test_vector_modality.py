"""Vectors: symlog in, symlog out; categorical numbers: one-hot in, cross-entropy out."""

from __future__ import annotations

import math

import pytest
import torch
from builders import SMALL, categorical, generator, vector

from dreamer.modalities.vector import VectorDecoder, VectorEncoder
from dreamer.nn.math import symexp, symlog

FEAT = SMALL.deter + 6


def decoder_of(specs, output=0.0):
    """A decoder that predicts `output` whatever the features."""
    decoder = VectorDecoder(specs, SMALL, FEAT, generator())
    torch.nn.init.zeros_(decoder.out.weight)
    torch.nn.init.constant_(decoder.out.bias, output)
    return decoder


def test_squared_error_is_taken_in_symlog_space():
    loss = decoder_of({"x": vector(1)}).loss(torch.randn(4, FEAT), {"x": torch.full((4, 1), 10.0)})
    assert loss["x"].tolist() == pytest.approx([math.log(11) ** 2] * 4)
    assert math.log(11) ** 2 == pytest.approx(5.7499, abs=1e-4)


def test_squared_error_is_summed_over_entries():
    obs = {"x": torch.randn(5, 2, 3) * 100}
    loss = decoder_of({"x": vector(2, 3)}, 0.5).loss(torch.randn(5, FEAT), obs)["x"]
    torch.testing.assert_close(loss, (0.5 - symlog(obs["x"])).square().sum((1, 2)))


def test_decoded_vectors_are_in_the_units_of_the_observation():
    decoded = decoder_of({"x": vector(2)}, 3.0).decode(torch.randn(4, FEAT))["x"]
    torch.testing.assert_close(decoded, torch.full((4, 2), math.exp(3) - 1))


def test_targets_get_no_gradient():
    x = torch.randn(4, 2, requires_grad=True)
    decoder_of({"x": vector(2)}).loss(torch.randn(4, FEAT), {"x": x})["x"].sum().backward()
    assert x.grad is None


def test_encoder_sees_symlog_of_sorted_keys():
    specs = {"b": vector(2), "a": vector(1)}
    encoder = VectorEncoder(specs, SMALL, generator())
    obs = {"b": torch.randn(3, 2) * 50, "a": torch.randn(3, 1)}
    want = encoder.mlp(symlog(torch.cat([obs["a"], obs["b"]], -1)))
    assert torch.equal(encoder(obs), want)


def test_huge_observations_stay_small_and_finite():
    encoder = VectorEncoder({"x": vector(2)}, SMALL, generator())
    out = encoder({"x": torch.tensor([[1e30, -1e30]])})
    assert bool(torch.isfinite(out).all())


def test_categories_enter_as_one_hot_without_symlog():
    encoder = VectorEncoder({"x": categorical(2, classes=3)}, SMALL, generator())
    obs = torch.tensor([[0, 2], [1, 1]], dtype=torch.int32)
    one_hot = torch.tensor([[1.0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]])
    assert torch.equal(encoder({"x": obs}), encoder.mlp(one_hot))


def test_categories_cost_the_cross_entropy_of_every_entry():
    loss = decoder_of({"x": categorical(2, classes=3)}).loss(
        torch.randn(4, FEAT), {"x": torch.zeros(4, 2, dtype=torch.int32)}
    )
    assert loss["x"].tolist() == pytest.approx([2 * math.log(3)] * 4)
    decoder = decoder_of({"x": categorical(2, classes=3)})
    decoder.out.bias.data = torch.tensor([1.0, 2.0, 3.0, 0.0, -1.0, 5.0])
    obs = torch.tensor([[2, 0]], dtype=torch.int32)
    rows = decoder.out.bias.detach().view(2, 3).log_softmax(-1)
    got = decoder.loss(torch.randn(1, FEAT), {"x": obs})["x"]
    assert got.item() == pytest.approx(-(rows[0, 2] + rows[1, 0]).item(), rel=1e-6)
    assert decoder.decode(torch.randn(1, FEAT))["x"].tolist() == [[2, 2]]


def test_each_key_is_predicted_by_its_own_outputs():
    specs = {"b": vector(2), "a": categorical(1, classes=3), "c": vector(1)}
    decoder = decoder_of(specs)
    # Keys in the order of their names take 3, 2 and 1 outputs.
    decoder.out.bias.data = torch.tensor([0.0, 9.0, 0.0, 1.0, 2.0, 3.0])
    decoded = decoder.decode(torch.randn(1, FEAT))
    assert decoded["a"].tolist() == [[1]]
    torch.testing.assert_close(symlog(decoded["b"]), torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(decoded["c"], symexp(torch.tensor([[3.0]])))
