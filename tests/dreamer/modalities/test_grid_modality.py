"""Grids: one-hots per layer, classes per cell, and no measure between numbers."""

from __future__ import annotations

import math

import pytest
import torch
from builders import SMALL, generator, grid, random_obs, vector_spec

from dreamer.modalities.grid import GridDecoder, GridEncoder, one_hots
from dreamer.types import ConfigError

FEAT = SMALL.deter + 6


def test_one_hots_stand_layer_beside_layer():
    specs = {"b": grid(1, 2, 2), "a": grid(1, 2, 3, 2)}
    obs = {"a": torch.tensor([[[2, 0], [1, 1]]]), "b": torch.tensor([[[1], [0]]])}
    expected = [[[0, 0, 1, 1, 0, 0, 1], [0, 1, 0, 0, 1, 1, 0]]]
    assert one_hots(specs, obs).tolist() == expected


@pytest.mark.parametrize(
    ("height", "width", "tokens"), [(1, 1, 1), (5, 4, 20), (7, 7, 16), (12, 7, 24), (60, 50, 56)]
)
def test_every_size_is_encoded_and_decoded(height, width, tokens):
    specs = {"g": grid(height, width, 4, 2)}
    encoder = GridEncoder(specs, SMALL, generator())
    obs = random_obs(vector_spec(continuous=1, **specs), (2, 3))
    assert encoder.tokens == tokens
    assert encoder(obs).shape == (2, 3, encoder.out_dim)
    assert encoder.out_dim % tokens == 0
    decoded = GridDecoder(specs, SMALL, FEAT, generator()).decode(torch.randn(2, 3, FEAT))["g"]
    assert decoded.shape == (2, 3, height, width, 2)
    assert decoded.dtype == torch.uint8
    assert decoded[..., 0].max() <= 3
    assert decoded[..., 1].max() <= 1


def test_without_knowledge_the_loss_is_the_logarithm_of_the_classes():
    specs = {"b": grid(3, 2, 5, 4), "a": grid(3, 2, 3)}
    decoder = GridDecoder(specs, SMALL, FEAT, generator())
    torch.nn.init.zeros_(decoder.out.weight)
    losses = decoder.loss(
        torch.randn(4, FEAT), random_obs(vector_spec(continuous=1, **specs), (4,))
    )
    torch.testing.assert_close(losses["a"], torch.full((4,), 6 * math.log(3)))
    torch.testing.assert_close(losses["b"], torch.full((4,), 6 * math.log(20)))


def test_the_loss_is_the_cross_entropy_of_every_cell_and_layer():
    specs = {"g": grid(7, 6, 4, 3)}
    decoder = GridDecoder(specs, SMALL, FEAT, generator())
    feat, obs = torch.randn(2, FEAT), random_obs(vector_spec(continuous=1, **specs), (2,))
    expected = torch.zeros(2)
    for layer, logits in enumerate(decoder(feat)):
        for row in range(7):
            for column in range(6):
                wanted = obs["g"][:, row, column, layer].long()
                cell = logits[:, row, column]
                expected += torch.nn.functional.cross_entropy(cell, wanted, reduction="none")
    torch.testing.assert_close(decoder.loss(feat, obs)["g"], expected)


def test_decoding_takes_the_most_probable_class_of_each_layer():
    specs = {"g": grid(2, 2, 4, 3)}
    decoder = GridDecoder(specs, SMALL, FEAT, generator())
    torch.nn.init.zeros_(decoder.out.weight)
    decoder.out.bias.data = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0])
    assert decoder.decode(torch.randn(1, FEAT))["g"].tolist() == [[[[2, 1]] * 2] * 2]


def test_renaming_the_classes_renames_columns_and_nothing_else():
    """What a number means is one column of weights: no number is nearer to one than another."""
    specs = {"g": grid(7, 7, 4)}
    encoder, other = (GridEncoder(specs, SMALL, generator()) for _ in range(2))
    order = torch.tensor([2, 0, 3, 1])
    other.embed.linear.weight.data = encoder.embed.linear.weight.data[:, order.argsort()]
    obs = random_obs(vector_spec(continuous=1, **specs), (3,))
    renamed = {"g": order[obs["g"].long()]}
    torch.testing.assert_close(other(renamed), encoder(obs))


def test_grids_of_different_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"grids \['a', 'b'\]: found \[\(2, 2\), \(3, 3\)\]"):
        GridEncoder({"a": grid(3, 3, 2), "b": grid(2, 2, 2)}, SMALL, generator())
