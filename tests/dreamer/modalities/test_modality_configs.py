"""Every modality keeps the contract, and keys find the modality that serves their kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import (
    SMALL,
    audio,
    categorical,
    generator,
    grid,
    image,
    random_obs,
    text,
    vector,
    vector_spec,
    world_config,
)

from dreamer.modalities import MODALITY_CONFIGS, ModalityConfig, by_modality
from dreamer.modalities.image import ImageDecoder
from dreamer.modalities.vector import VectorDecoder, VectorEncoder
from dreamer.types import ConfigError, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel

EXAMPLES = {
    "audio": {"b": audio(40), "a": audio(20, "uint8")},
    "grid": {"b": grid(7, 6, 4, 3), "a": grid(7, 6, 2)},
    "image": {"b": image(8, 8), "a": image(8, 8, 1)},
    "text": {"b": text(12), "a": text(5)},
    "vector": {"c": vector(3), "b": categorical(2, classes=4), "a": vector(2, 2)},
}


OWN = {"text": (world_config().text,)}  # sections of the configuration
HEARD = OWN | {"audio": (world_config().audio,)}


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


TOUCH = ObsSpec(shape=(2, 3), dtype="float32", kind="touch")


def touch(**changes):
    values = {"name": "touch", "encoder_type": VectorEncoder, "decoder_type": VectorDecoder}
    return ModalityConfig(**values | changes)


@pytest.fixture
def enter(monkeypatch):
    def entered(**changes):
        monkeypatch.setitem(MODALITY_CONFIGS, "touch", touch(**changes))

    return entered


def test_one_that_is_not_built_in_stands_beside_the_others(enter):
    enter()
    assert by_modality({"hand": TOUCH, "v": vector(1)}) == {
        "touch": {"hand": TOUCH},
        "vector": {"v": vector(1)},
    }


def test_its_module_is_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "senses_of_mine.py").write_text(
        "from dreamer.modalities import MODALITY_CONFIGS, ModalityConfig\n"
        "from dreamer.modalities.vector import VectorDecoder as D, VectorEncoder as E\n"
        "MODALITY_CONFIGS['smell'] = ModalityConfig(name='smell', encoder_type=E, decoder_type=D)\n"
    )
    monkeypatch.delitem(MODALITY_CONFIGS, "smell", raising=False)
    smell = ObsSpec(shape=(1,), dtype="float32", kind="smell", module="senses_of_mine")
    assert list(by_modality({"nose": smell})) == ["smell"]
    del MODALITY_CONFIGS["smell"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_such", r"observation nose: found \"no_such:smell \(No module named 'no_such'\)\""),
        (
            "builders",
            "observation nose: found 'builders:smell'; allowed: one of .*, or module:name",
        ),
        ("", "observation nose: found 'smell'; allowed: one of .*, or module:name"),
    ],
)
def test_a_module_that_does_not_enter_it_is_one_line(module, message):
    smell = ObsSpec(shape=(1,), dtype="float32", kind="smell", module=module)
    with pytest.raises(ConfigError, match=message) as caught:
        by_modality({"nose": smell})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "feel"}, r"MODALITY_CONFIGS\['touch'\].name: found 'feel'; allowed: touch"),
        (
            {"input_shape": (3, 2)},
            r"hand: found 'shape \(2, 3\) of float32'; .* shape \(3, 2\) of any",
        ),
        ({"dtype": "uint8"}, r"found 'shape \(2, 3\) of float32'; allowed: any shape of uint8"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, enter):
    enter(**changes)
    with pytest.raises(ConfigError, match=message):
        by_modality({"hand": TOUCH})


def test_built_in_ones_are_not_replaced(monkeypatch):
    monkeypatch.setitem(MODALITY_CONFIGS, "image", touch(name="image"))
    with pytest.raises(ConfigError, match=r"observation eye: modality image: .* another name"):
        by_modality({"eye": image(8, 8)})


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "two words", "letters"),
        ("dtype", "float64", "uint8, float32"),
        ("embed_dim", 0, "1 to"),
        ("weight", -1.0, "0 to"),
    ],
)
def test_ranges(field, value, allowed):
    with pytest.raises(ConfigError, match=f"^{field}: found .*; allowed: {allowed}"):
        touch(**{field: value})


def world(**more):
    return MultimodalWorldModel(vector_spec(2, continuous=1, hand=TOUCH, **more), world_config(), 0)


def test_embed_dim_projects_the_code_to_one_token(enter):
    enter()
    whole = world()
    enter(embed_dim=5)
    model = world()
    assert model.embed_dim == whole.embed_dim - whole.encoders["touch"].out_dim + 5
    obs = random_obs(model.spec, (3,))
    encoder = model.encoders["touch"]
    assert encoder.tokens == 1
    assert torch.equal(encoder(obs), encoder.project(encoder.encoder(obs)))
    # The parts beside it are what they are without the projection.
    other = whole.decoders["vector"].out.weight
    assert torch.equal(model.decoders["vector"].out.weight, other)


def test_weight_multiplies_its_reconstruction_alone(enter):
    enter(weight=0.25)
    scales = MultimodalWorldModel(
        vector_spec(2, continuous=1, hand=TOUCH), world_config(recon_scale=8.0), 0
    ).loss_scales()
    assert scales["recon/hand"] == 2.0
    assert scales["recon/v0"] == 8.0


def test_a_loss_takes_the_place_of_the_decoders(enter):
    enter(loss=lambda decoded, observed: (decoded - observed).abs().sum((-2, -1)))
    decoder = world().decoders["touch"]
    feat = torch.randn(4, 128 + 64, requires_grad=True)
    obs = random_obs(vector_spec(continuous=1, hand=TOUCH), (4,))
    expected = (decoder.decode(feat)["hand"] - obs["hand"]).abs().sum((-2, -1))
    loss = decoder.loss(feat, obs)["hand"]
    assert torch.equal(loss, expected)
    loss.sum().backward()
    assert feat.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("decoder", "spec", "loss", "message"),
    [
        (ImageDecoder, image(8, 8), lambda a, b: (a.float() - b).sum((-3, -2, -1)), "no gradient"),
        (VectorDecoder, vector(3), lambda a, b: (a - b).square(), r"shape \(4, 3\)'; allowed: \(4"),
    ],
)
def test_a_loss_that_teaches_nothing_is_refused(decoder, spec, loss, message, enter):
    enter(decoder_type=decoder, loss=loss)
    felt = replace(spec, kind="touch")
    model = MultimodalWorldModel(vector_spec(2, continuous=1, hand=felt), world_config(), 0)
    feat = torch.randn(4, 128 + 64, requires_grad=True)
    with pytest.raises(ConfigError, match=f"modality touch: loss of hand: found '{message}"):
        model.decoders["touch"].loss(feat, random_obs(model.spec, (4,)))


class Silent(torch.nn.Module):
    out_dim, tokens = 6, 4

    def __init__(self, specs, size, generator):
        super().__init__()


def test_an_encoder_that_cannot_be_cut_into_tokens_is_refused(enter):
    enter(encoder_type=Silent)
    with pytest.raises(ConfigError, match="touch: encoder_type: found 'out_dim 6, tokens 4'"):
        world()


@pytest.mark.parametrize("name", sorted(MODALITY_CONFIGS))
@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_contract(name, lead):
    specs, config = EXAMPLES[name], MODALITY_CONFIGS[name]
    obs = random_obs(vector_spec(continuous=1, **specs), lead)
    encoder = config.encoder_type(specs, SMALL, generator(), *HEARD.get(name, ()))
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
        config.encoder_type(each, SMALL, generator(), *HEARD.get(name, ()))
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
