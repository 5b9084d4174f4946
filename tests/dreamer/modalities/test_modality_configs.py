"""Every modality keeps the contract, and keys find the modality that serves their kind."""

from __future__ import annotations

import pytest
import torch
from builders import (
    SMALL,
    audio,
    categorical,
    generator,
    image,
    random_obs,
    text,
    vector,
    vector_spec,
    world_config,
)

from dreamer.modalities import MODALITY_CONFIGS, by_modality
from dreamer.types import ConfigError, ObsSpec

EXAMPLES = {
    "audio": {"b": audio(40), "a": audio(20, "uint8")},
    "image": {"b": image(8, 8), "a": image(8, 8, 1)},
    "text": {"b": text(12), "a": text(5)},
    "vector": {"c": vector(3), "b": categorical(2, classes=4), "a": vector(2, 2)},
}


OWN = {"text": (world_config().text,)}  # sections of the configuration


def test_there_is_an_example_of_every_modality():
    assert EXAMPLES.keys() == MODALITY_CONFIGS.keys()


def test_keys_are_grouped_and_sorted():
    mixed = {"z": vector(1), "eye": image(8, 8), "a": categorical(classes=3)}
    grouped = by_modality(mixed)
    assert {name: list(keys) for name, keys in grouped.items()} == {
        "image": ["eye"],
        "vector": ["a", "z"],
    }
    assert list(grouped) == ["image", "vector"]


def test_an_unknown_kind_is_refused_by_name():
    smell = ObsSpec(shape=(1,), dtype="float32", kind="smell")
    with pytest.raises(ConfigError, match=r"observation nose: found 'smell'; allowed: .*image"):
        by_modality({"nose": smell})


@pytest.mark.parametrize("name", sorted(MODALITY_CONFIGS))
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_contract(name, lead):
    specs, config = EXAMPLES[name], MODALITY_CONFIGS[name]
    obs = random_obs(vector_spec(continuous=1, **specs), lead)
    encoder = config.encoder_type(specs, SMALL, generator(), *OWN.get(name, ()))
    embed = encoder(obs)
    assert embed.shape == (*lead, encoder.out_dim)
    assert embed.dtype == torch.float32
    decoder = config.decoder_type(specs, SMALL, SMALL.deter + 6, generator(), *OWN.get(name, ()))
    feat = torch.randn(*lead, SMALL.deter + 6)
    losses, decoded = decoder.loss(feat, obs), decoder.decode(feat)
    assert losses.keys() == decoded.keys() == specs.keys()
    for key, spec in specs.items():
        assert losses[key].shape == lead
        assert decoded[key].shape == (*lead, *spec.shape)


@pytest.mark.parametrize("name", sorted(MODALITY_CONFIGS))
def test_order_of_keys_changes_nothing(name):
    specs, config = EXAMPLES[name], MODALITY_CONFIGS[name]
    turned = dict(reversed(specs.items()))
    obs = random_obs(vector_spec(continuous=1, **specs), (2,))
    one, other = (
        config.encoder_type(each, SMALL, generator(), *OWN.get(name, ()))
        for each in (specs, turned)
    )
    assert torch.equal(one(obs), other(dict(reversed(obs.items()))))
    feat = torch.randn(2, SMALL.deter + 6)
    a, b = (
        config.decoder_type(e, SMALL, SMALL.deter + 6, generator(), *OWN.get(name, ()))
        for e in (specs, turned)
    )
    left, right = a.loss(feat, obs), b.loss(feat, dict(reversed(obs.items())))
    assert all(torch.equal(left[key], right[key]) for key in specs)


@pytest.mark.parametrize("name", sorted(MODALITY_CONFIGS))
def test_decoder_learns_one_observation_by_heart(name):
    specs, config = EXAMPLES[name], MODALITY_CONFIGS[name]
    obs = random_obs(vector_spec(continuous=1, **specs), (2,))
    decoder = config.decoder_type(specs, SMALL, SMALL.deter + 6, generator(), *OWN.get(name, ()))
    feat = torch.randn(2, SMALL.deter + 6)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.02)
    first = last = None
    for _ in range(150):
        loss = sum(each.mean() for each in decoder.loss(feat, obs).values())
        first = loss.item() if first is None else first
        last = loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < 0.2 * first
