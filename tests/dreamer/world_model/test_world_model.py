"""The world model: losses, labels, gradient flow and what it does not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from builders import (
    categorical,
    generator,
    image,
    random_batch,
    random_obs,
    small_model,
    vector_spec,
    world_config,
)

from dreamer.types import ConfigError, LatentState, ObsSpec
from dreamer.world_model.model import MultimodalWorldModel, total_loss

MIXED = vector_spec(3, discrete=(4, 2), eye=image(8, 8), kind=categorical(classes=3))
PLAIN = vector_spec(3, discrete=(4,))


def noise_for(model, batch):
    B, T = batch.reward.shape
    return torch.rand(T, B, model.rssm.size.groups, generator=generator(9))


def run(model, batch):
    return model(batch, noise_for(model, batch))


def total(model, batch):
    return total_loss(run(model, batch).losses, model.loss_scales())


@pytest.fixture(name="model")
def _model(monkeypatch):
    return small_model(PLAIN, monkeypatch)


def test_every_loss_has_a_weight_and_a_place_for_every_step(monkeypatch):
    model = small_model(MIXED, monkeypatch, kl_scale=0.5, recon_scale=2.0, reward_scale=3.0)
    batch = random_batch(MIXED, 2, 5, model=model)
    out = run(model, batch)
    assert out.losses.keys() == model.loss_scales().keys()
    assert {k: v.shape for k, v in out.losses.items()} == dict.fromkeys(out.losses, (5, 2))
    assert out.feat.shape == (5, 2, model.feat_dim)
    assert model.loss_scales() == {
        "recon/eye": 2.0,
        "recon/kind": 2.0,
        "recon/v0": 2.0,
        "dyn": 0.5,
        "rep": 0.05,
        "reward": 3.0,
        "cont": 1.0,
    }


def test_a_loss_without_weight_is_refused():
    with pytest.raises(ValueError, match="differ in \\['b'\\]"):
        total_loss({"a": torch.ones(1), "b": torch.ones(1)}, {"a": 1.0})


def test_total_is_the_weighted_sum_of_means():
    losses = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[10.0]])}
    assert total_loss(losses, {"a": 0.5, "b": 0.1}).item() == pytest.approx(2.0)


def test_rewards_are_predicted_at_their_own_rows(model):
    batch = random_batch(PLAIN, model=model)
    losses = run(model, batch).losses
    # A fresh head is uniform, so that every row costs the same, whatever its reward.
    torch.testing.assert_close(losses["reward"], torch.full((5, 2), math.log(255)))
    torch.nn.init.normal_(model.reward.out.weight)
    before = run(model, batch).losses["reward"]
    batch.reward[1, 3] += 5.0
    changed = (run(model, batch).losses["reward"] != before).nonzero().tolist()
    assert changed == [[3, 1]]


def test_the_label_of_going_on_carries_the_discount(model):
    torch.nn.init.zeros_(model.cont.out.weight)
    torch.nn.init.constant_(model.cont.out.bias, 2.0)
    batch = random_batch(PLAIN, model=model)
    batch.is_last[0, 1] = True  # truncated
    batch.is_last[1, 2] = batch.is_terminal[1, 2] = True
    got = run(model, batch).losses["cont"].t()
    on, off = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    label = 1 - 1 / 333
    assert label == pytest.approx(0.996997, abs=1e-6)
    want = torch.full((2, 5), label * on + (1 - label) * off)
    want[1, 2] = off
    torch.testing.assert_close(got, want)


def test_no_row_is_left_out_of_the_losses(model):
    flags = torch.ones(2, 5, dtype=torch.bool)
    batch = random_batch(PLAIN, model=model, is_first=flags)
    losses = run(model, batch).losses
    assert all(bool((losses[name] > 0).all()) for name in ("recon/v0", "reward", "cont"))


def grads(model, loss):
    model.zero_grad()
    loss.backward()
    parts = {
        "encoder": model.encoders,
        "decoder": model.decoders,
        "core": model.rssm.core,
        "post": model.rssm.post_logit,
        "prior": model.rssm.prior_logit,
        "reward": model.reward,
        "cont": model.cont,
    }
    return {
        name
        for name, part in parts.items()
        if any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
    }


@pytest.mark.parametrize(
    ("loss", "reached"),
    [
        ("recon/v0", {"encoder", "core", "post", "decoder"}),
        ("cont", {"encoder", "core", "post", "cont"}),
        ("dyn", {"encoder", "core", "post", "prior"}),
        ("rep", {"encoder", "core", "post"}),
    ],
)
def test_which_parts_each_loss_trains(monkeypatch, loss, reached):
    # Without free nats, since a fresh model may be below them. Both KL losses reach encoder and
    # posterior, `dyn` through the sampled latents of earlier steps only.
    model = small_model(PLAIN, monkeypatch, free_nats=0.0)
    batch = random_batch(PLAIN, model=model)
    assert grads(model, run(model, batch).losses[loss].sum()) == reached


def test_dyn_of_the_first_step_trains_no_posterior(monkeypatch):
    model = small_model(PLAIN, monkeypatch, free_nats=0.0)
    batch = random_batch(PLAIN, model=model)
    assert grads(model, run(model, batch).losses["dyn"][0].sum()) == {"core", "prior"}
    assert grads(model, run(model, batch).losses["rep"][0].sum()) == {"encoder", "core", "post"}


def test_reward_gradient_reaches_the_encoder_once_the_head_is_not_zero(model):
    batch = random_batch(PLAIN, model=model)
    assert grads(model, run(model, batch).losses["reward"].sum()) == {"reward"}
    torch.nn.init.normal_(model.reward.out.weight)
    reached = grads(model, run(model, batch).losses["reward"].sum())
    assert reached == {"reward", "encoder", "core", "post"}


def test_free_nats_stop_the_kl_gradient(monkeypatch):
    model = small_model(PLAIN, monkeypatch, free_nats=1e2)
    out = run(model, random_batch(PLAIN, model=model))
    assert bool((out.losses["dyn"] == 1e2).all())
    assert grads(model, out.losses["dyn"].sum() + out.losses["rep"].sum()) == set()
    assert 0 < out.metrics["world/kl_loss"] < 1e2  # the metric is not clipped


def test_order_of_observation_keys_changes_nothing(monkeypatch):
    turned = MIXED._replace(obs=dict(reversed(MIXED.obs.items())))
    models = [small_model(spec, monkeypatch) for spec in (MIXED, turned)]
    batch = random_batch(MIXED, model=models[0])
    flipped = random_batch(
        MIXED, model=models[0], obs=dict(reversed(random_obs(MIXED, (2, 5)).items()))
    )
    assert torch.equal(total(models[0], batch), total(models[1], flipped))


def test_parts_draw_their_weights_from_streams_of_their_own(monkeypatch):
    one = small_model(PLAIN, monkeypatch, seed=3).state_dict()
    more = small_model(MIXED, monkeypatch, seed=3).state_dict()
    other = small_model(PLAIN, monkeypatch, seed=4).state_dict()
    heads = [name for name in one if name.startswith(("reward.", "cont."))]
    assert all(torch.equal(one[name], more[name]) for name in heads)
    assert any(not torch.equal(one[name], other[name]) for name in heads)


def test_one_step_at_a_time_equals_the_scan(monkeypatch):
    model = small_model(MIXED, monkeypatch)
    batch = random_batch(MIXED, 2, 6, model=model)
    batch.is_first[0, 2] = True
    noise = noise_for(model, batch)
    with torch.no_grad():
        scan = model(batch, noise).observed
        state = batch.state
        for t in range(6):
            obs = {key: value[:, t] for key, value in batch.obs.items()}
            state = model.observe_step(
                obs, state, batch.prev_action[:, t], batch.is_first[:, t], noise[t]
            )
            torch.testing.assert_close(state.deter, scan.deter[t], rtol=1e-5, atol=1e-6)
            want = model.rssm.latent(scan.deter[t], scan.stoch[t]).stoch
            torch.testing.assert_close(state.stoch, want)


def test_features_are_deter_then_class_major_stoch(model):
    size = model.rssm.size
    stoch = torch.zeros(1, size.groups, size.classes)
    stoch[0, 1, 2] = 1.0
    feat = model.feat(LatentState(torch.full((1, size.deter), 7.0), stoch))
    assert feat.shape == (1, model.feat_dim)
    assert bool((feat[0, : size.deter] == 7.0).all())
    assert feat[0, size.deter + 2 * size.groups + 1] == 1.0
    assert feat[0, size.deter :].sum() == 1.0


def test_decoded_observations_have_their_own_shapes(monkeypatch):
    model = small_model(MIXED, monkeypatch)
    decoded = model.decode(torch.randn(2, 3, model.feat_dim))
    shapes = {key: tuple(value.shape) for key, value in decoded.items()}
    assert shapes == {key: (2, 3, *spec.shape) for key, spec in MIXED.obs.items()}


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", "huge"), ("kl_scale", -1.0), ("free_nats", math.nan), ("embed_dim", 0)],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError) as caught:
        world_config(**{key: value})
    assert caught.value.key == key


def test_losses_fall_on_a_fixed_batch(monkeypatch):
    model = small_model(MIXED, monkeypatch)
    batch = random_batch(MIXED, 2, 5, model=model)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = run(model, batch).losses
    for _ in range(60):
        optimizer.zero_grad()
        total(model, batch).backward()
        optimizer.step()
    last = run(model, batch).losses
    for name in ("recon/v0", "recon/kind", "reward", "cont"):
        assert last[name].mean() < 0.7 * first[name].mean(), name
    assert last["recon/eye"].mean() < first["recon/eye"].mean()


def test_a_world_with_projection_runs(monkeypatch):
    model = small_model(MIXED, monkeypatch, embed_dim=9)
    assert model.encode(random_obs(MIXED, (2,))).shape == (2, 9)
    assert bool(torch.isfinite(total(model, random_batch(MIXED, model=model))))


def test_a_model_of_an_unknown_sense_is_refused():
    odd = PLAIN.obs["v0"].__class__(shape=(1,), dtype="float32", kind="smell")
    with pytest.raises(ConfigError, match="smell"):
        MultimodalWorldModel(PLAIN._replace(obs={"nose": odd}), world_config(), 0)


PATCHY = MIXED._replace(
    obs=dict(
        sorted(
            (MIXED.obs | {"present/eye": ObsSpec(shape=(1,), dtype="uint8", kind="flag")}).items()
        )
    )
)


def test_a_missing_sensor_is_neither_heard_nor_reconstructed(monkeypatch):
    model = small_model(PATCHY, monkeypatch)
    batch = random_batch(PATCHY, 2, 5, model=model)
    batch.obs["present/eye"][:] = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 1, 0]])[..., None]
    missing = batch.obs["present/eye"].squeeze(-1).T == 0
    before = run(model, batch)
    assert (before.losses["recon/eye"][missing] == 0).all()
    assert (before.losses["recon/eye"][~missing] > 0).all()
    eye = batch.obs["eye"].clone()
    batch.obs["eye"][missing.T] = 255 - eye[missing.T]
    after = run(model, batch)
    assert torch.equal(after.embed, before.embed)
    assert "recon/present/eye" not in model.loss_scales()


def test_a_modality_that_is_taken_away_is_not_heard_but_predicted(monkeypatch):
    model = small_model(MIXED, monkeypatch)
    batch = random_batch(MIXED, 2, 5, model=model)
    noise, none = noise_for(model, batch), torch.tensor([True, True])
    allowed = {"image": torch.tensor([True, False]), "vector": none}
    before = model(batch, noise, allowed)
    batch.obs["eye"][:] = 255 - batch.obs["eye"]
    after = model(batch, noise, allowed)
    assert torch.equal(after.embed[:, 1], before.embed[:, 1])
    assert not torch.equal(after.embed[:, 0], before.embed[:, 0])
    assert not torch.equal(after.losses["recon/eye"][:, 1], before.losses["recon/eye"][:, 1])


def test_all_allowed_is_as_nothing_said(monkeypatch):
    model = small_model(MIXED, monkeypatch)
    batch = random_batch(MIXED, 2, 5, model=model)
    noise, every = noise_for(model, batch), torch.tensor([True, True])
    plain, allowed = model(batch, noise), model(batch, noise, {"image": every, "vector": every})
    assert torch.equal(plain.feat, allowed.feat)


def test_the_scale_of_a_modality_multiplies_the_reconstruction_of_its_keys_alone(monkeypatch):
    plain = small_model(MIXED, monkeypatch, recon_scale=2.0).loss_scales()
    scaled = small_model(MIXED, monkeypatch, recon_scale=2.0, modality_scales={"vector": 5.0})
    assert scaled.loss_scales() == plain | {"recon/kind": 10.0, "recon/v0": 10.0}


def test_a_scale_of_a_modality_that_is_not_there_is_refused(monkeypatch):
    message = "world_model.modality_scales: found 'smell'; allowed: .*: image, vector"
    with pytest.raises(ConfigError, match=message):
        small_model(MIXED, monkeypatch, modality_scales={"smell": 1.0})
