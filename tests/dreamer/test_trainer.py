"""One update: determinism, resuming, gradient flow, hard batches, what actor kinds share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from builders import (
    SMALL,
    assert_same,
    categorical,
    generator,
    image,
    make_trainer,
    random_batch,
    snapshot,
    vector_spec,
)

from dreamer.exchange import make_batch, write_back
from dreamer.replay import ReplayConfig, SequenceReplayBuffer
from dreamer.replay.rows import row_fields
from dreamer.schedule import OptimizerConfig
from dreamer.types import CheckpointError, ConfigError, DivergedError
from dreamer.world_model.imagination import imagine
from dreamer.world_model.model import total_loss
from dreamer.world_model.sizes import SIZES, latent_fields

PLAIN = vector_spec(3, discrete=(3,))
SPECS = {
    "discrete": PLAIN,
    "choices": vector_spec(3, discrete=(3, 2)),
    "continuous": vector_spec(3, 2, continuous=2),
    "mixed": vector_spec(2, discrete=(3,), eye=image(8, 8), kind=categorical(2, classes=3)),
}
ACTORS = ["ppo", "reinforce"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


def batches(spec, count=3):
    return [random_batch(spec, 2, 5, seed=10 * i) for i in range(count)]


def train(trainer, data, start=0):
    """Update on every batch; the metrics of the last."""
    for index, batch in enumerate(data, start):
        result = trainer.update_step(batch, index, 1.0)
    return result


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("name", SPECS)
def test_equal_seeds_give_equal_bits(name, actor):
    spec = SPECS[name]
    one, other = (make_trainer(spec, seed=4, actor=actor) for _ in range(2))
    results = [train(trainer, batches(spec)) for trainer in (one, other)]
    assert_same(one.state_dict(), other.state_dict())
    assert_same(results[0].metrics, results[1].metrics)
    assert_same(results[0].latents, results[1].latents)
    assert all(math.isfinite(value) for value in one.read(results[0].metrics).values())


def test_the_global_generator_does_not_matter():
    one, other = (make_trainer(PLAIN) for _ in range(2))
    train(one, batches(PLAIN))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    train(other, batches(PLAIN))
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(one.state_dict(), other.state_dict())


def test_another_seed_gives_another_agent():
    one, other = (make_trainer(PLAIN, seed=seed).state_dict()["model"] for seed in (0, 1))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_kind_of_actor_changes_no_initial_weight():
    one, other = (make_trainer(PLAIN, actor=actor).state_dict() for actor in ACTORS)
    assert_same(one, other)


def test_the_kind_of_actor_does_not_change_what_the_world_model_sees():
    outs = [make_trainer(PLAIN, actor=actor) for actor in ACTORS]
    first = [trainer.update_step(batches(PLAIN)[0], 0, 1.0) for trainer in outs]
    for name in ("world/recon_loss", "world/kl_loss", "policy/return", "policy/value"):
        torch.testing.assert_close(first[0].metrics[name], first[1].metrics[name])
    assert_same(first[0].latents, first[1].latents)


@pytest.mark.parametrize("actor", ACTORS)
def test_saved_and_restored_continues_to_the_bit(actor):
    data = batches(PLAIN, 5)
    straight = make_trainer(PLAIN, actor=actor)
    train(straight, data[:3])
    saved = snapshot(straight.state_dict())
    want = train(straight, data[3:], start=3)
    resumed = make_trainer(PLAIN, actor=actor)
    resumed.load_state_dict(saved)
    assert_same(resumed.state_dict(), saved)
    got = train(resumed, data[3:], start=3)
    assert_same(got.metrics, want.metrics)
    assert_same(resumed.state_dict(), straight.state_dict())


def test_everything_that_changes_is_in_the_state():
    trainer = make_trainer(PLAIN)
    names = set(trainer.state_dict()["behavior"])
    assert {f"top.streams.scales.extrinsic.{name}" for name in ("low", "high")} <= names
    assert any(name.startswith("top.critic.slow.") for name in names)
    before = snapshot(trainer.state_dict())
    train(trainer, batches(PLAIN))
    after = trainer.state_dict()
    for part in ("model", "behavior"):
        # In three updates every tensor has moved: nothing is cut off from training.
        same = {n for n in before[part] if torch.equal(before[part][n], after[part][n])}
        assert same <= {"top.streams.scales.extrinsic.mass"}  # the paper's scale needs no mass


def test_a_state_of_another_configuration_is_refused_by_name(monkeypatch):
    state = snapshot(make_trainer(vector_spec(4, discrete=(3,))).state_dict())
    with pytest.raises(CheckpointError, match="another configuration"):
        make_trainer(PLAIN).load_state_dict(state)
    with pytest.raises(CheckpointError, match="another configuration"):
        make_trainer(PLAIN).load_state_dict({"model": state["model"]})


@pytest.mark.parametrize("actor", ACTORS)
def test_slow_critic_follows_once_an_update(actor):
    trainer = make_trainer(PLAIN, actor=actor)
    critic = trainer.behavior.top.critic
    old = snapshot(critic.slow.state_dict())
    train(trainer, batches(PLAIN, 1))
    new = critic.head.state_dict()
    for name, slow in critic.slow.state_dict().items():
        torch.testing.assert_close(slow, 0.02 * new[name] + 0.98 * old[name])


def test_replay_value_reaches_the_world_model_and_imagined_losses_do_not():
    trainer = make_trainer(PLAIN, actor="reinforce")
    model, behavior = trainer.model, trainer.behavior
    torch.nn.init.normal_(behavior.top.critic.head.out.weight)
    batch = batches(PLAIN, 1)[0]
    out = model(batch, torch.rand(5, 2, SMALL.groups))
    width = SMALL.deter
    start = out.feat.flatten(0, 1)
    rollout = imagine(
        model,
        behavior.policy,
        None,
        start[:, :width],
        start[:, width:],
        torch.rand(3, 10, SMALL.groups),
        torch.rand(3, 10, 1),
    )
    losses, (lesson,), _ = behavior.reinforce(rollout, {"extrinsic": rollout.reward[1:]})
    sum(loss.sum() for loss in losses.values()).backward()
    assert all(p.grad is None for p in model.parameters())
    boot = lesson.targets.ret[0, 0].view(5, 2)
    behavior.replay_value(out.feat, batch, boot, 0.997).sum().backward()
    for part in (model.rssm.core, model.rssm.post_logit, model.encoders):
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
    assert all(p.grad is None for p in model.decoders.parameters())


def test_pretraining_moves_the_world_model_alone():
    trainer = make_trainer(PLAIN)
    before = snapshot(trainer.state_dict())
    result = trainer.pretrain_step(batches(PLAIN, 1)[0], 0, 1.0)
    after = trainer.state_dict()
    assert_same(after["behavior"], before["behavior"])
    assert_same(after["optimizer"]["actor"], before["optimizer"]["actor"])
    moved = [n for n, p in after["model"].items() if not torch.equal(p, before["model"][n])]
    assert moved
    assert result.metrics["world/loss"] > 0


def test_share_zero_moves_no_weight():
    trainer = make_trainer(PLAIN, actor="reinforce")
    before = snapshot(trainer.state_dict())
    trainer.update_step(batches(PLAIN, 1)[0], 0, 0.0)
    after = trainer.state_dict()
    assert_same(after["model"], before["model"])
    assert after["optimizer"]["world"]["square"]["0"].any()


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1e4])
def test_rewards_of_any_scale_keep_everything_finite(actor, scale):
    trainer = make_trainer(PLAIN, actor=actor)
    data = batches(PLAIN)
    for batch in data:
        batch.reward.mul_(scale)
    result = train(trainer, data)
    assert all(math.isfinite(value) for value in trainer.read(result.metrics).values())
    for part in ("model", "behavior"):
        assert all(bool(torch.isfinite(p).all()) for p in trainer.state_dict()[part].values())


@pytest.mark.parametrize("actor", ACTORS)
def test_episodes_of_one_step(actor):
    trainer = make_trainer(PLAIN, actor=actor)
    batch = random_batch(PLAIN, 3, 6)
    batch.is_first[:, ::2] = True
    batch.is_last[:, 1::2] = True
    batch.is_terminal[1, 1::2] = True
    result = train(trainer, [batch] * 3)
    assert all(math.isfinite(value) for value in trainer.read(result.metrics).values())


@pytest.mark.parametrize("actor", ACTORS)
def test_rows_that_are_first_and_last_at_once(actor):
    trainer = make_trainer(PLAIN, actor=actor)
    batch = random_batch(PLAIN, 3, 6)
    for flags in (batch.is_first, batch.is_last, batch.is_terminal):
        flags[:] = True
    result = train(trainer, [batch] * 3)
    assert all(math.isfinite(value) for value in trainer.read(result.metrics).values())


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("starts", [2, 4, 99])
def test_imagining_from_the_last_steps_only(actor, starts):
    trainer = make_trainer(PLAIN, actor=actor, starts=starts)
    result = train(trainer, batches(PLAIN))
    assert all(math.isfinite(value) for value in trainer.read(result.metrics).values())


@pytest.mark.parametrize(("actor", "scorer"), [("ppo", "evaluate"), ("reinforce", "reinforce")])
def test_rollouts_and_replay_value_are_about_the_same_last_rows(monkeypatch, actor, scorer):
    trainer = make_trainer(PLAIN, actor=actor, starts=3)
    torch.nn.init.normal_(trainer.behavior.top.critic.head.out.weight)
    batch, seen = batches(PLAIN, 1)[0], {}
    noise = trainer.noise.uniform("observe", 4, (5, 2, SMALL.groups))
    with torch.no_grad():
        want = trainer.model(batch, noise).feat[2:]

    def watch(name):
        method = getattr(trainer.behavior, name)

        def watched(*args):
            seen[name] = args, method(*args)
            return seen[name][1]

        monkeypatch.setattr(trainer.behavior, name, watched)

    watch(scorer)
    watch("replay_value")
    trainer.update_step(batch, 4, 1.0)
    (rollout, rewards), scored = seen[scorer]
    assert torch.equal(rewards["extrinsic"], rollout.reward[1:])
    ((_, _, targets),) = scored[0] if actor == "ppo" else scored[1]
    (feat, given, bootstrap, discount), _ = seen["replay_value"]
    torch.testing.assert_close(rollout.feat[0].view(3, 2, -1), want)
    torch.testing.assert_close(feat.detach(), want)
    assert feat.requires_grad  # the critic shapes what the world model finds worth knowing
    assert given is batch
    assert torch.equal(bootstrap, targets.ret[0, 0].view(3, 2))
    assert discount == pytest.approx(1 - 1 / 333)
    # Percentiles are taken in once an update.
    low, high = (targets.ret.quantile(q) for q in (0.05, 0.95))
    scale = trainer.behavior.top.streams.scales["extrinsic"]
    torch.testing.assert_close(scale.low, 0.01 * low)
    torch.testing.assert_close(scale.high, 0.01 * high)


@pytest.mark.parametrize(
    ("actor", "steps"), [("ppo", [1.0, 6.0, 7.0]), ("reinforce", [1.0, 1.0, 1.0])]
)
def test_how_often_each_group_steps_in_an_update(actor, steps):
    # PPO's critic also steps with the replay value; a step without a gradient would still move the
    # actor, by its momentum.
    trainer = make_trainer(PLAIN, actor=actor, epochs=2, minibatches=3)
    train(trainer, batches(PLAIN, 1))
    state = trainer.state_dict()["optimizer"]
    assert [float(state[name]["steps"]) for name in ("world", "actor", "critic")] == steps


def test_latents_and_actions_are_imagined_from_noise_of_their_own(monkeypatch):
    trainer, drawn = make_trainer(vector_spec(2, discrete=(2, 2, 2))), []
    uniform = type(trainer.noise).uniform

    def watched(noise, stream, index, shape):
        drawn.append((stream, index))
        return uniform(noise, stream, index, shape)

    monkeypatch.setattr(type(trainer.noise), "uniform", watched)
    trainer.update_step(random_batch(trainer.model.spec), 6, 1.0)
    assert len(drawn) == len(set(drawn)) == 3
    assert {index for _, index in drawn} == {6}


def test_all_starts_are_the_same_as_as_many_as_there_are():
    one, other = (make_trainer(PLAIN, starts=starts) for starts in ("all", 5))
    train(one, batches(PLAIN))
    train(other, batches(PLAIN))
    assert_same(one.state_dict(), other.state_dict())


def test_divergence_is_told_when_metrics_are_read():
    trainer = make_trainer(PLAIN)
    batch = random_batch(PLAIN)
    batch.obs["v0"][0, 0, 0] = math.nan
    result = trainer.update_step(batch, 0, 1.0)
    with pytest.raises(DivergedError, match=r"world_model\.world_lr"):
        trainer.read(result.metrics)


def test_reading_tells_promised_names():
    for actor in ACTORS:
        trainer = make_trainer(PLAIN, actor=actor)
        row = trainer.read(train(trainer, batches(PLAIN, 1)).metrics)
        promised = {"world/recon_loss", "world/kl_loss", "policy/policy_loss"}
        assert promised <= row.keys()
        assert all("/" in name for name in row)


def test_gradient_norm_and_loss_are_those_of_the_joint_backward():
    trainer = make_trainer(PLAIN)
    batch = batches(PLAIN, 1)[0]
    noise = trainer.noise.uniform("pretrain", 7, (5, 2, SMALL.groups))
    loss = total_loss(trainer.model(batch, noise).losses, trainer.model.loss_scales())
    grads = torch.autograd.grad(loss, trainer.model.parameters(), allow_unused=True)
    norm = torch.stack([g.norm() for g in grads if g is not None]).norm()
    metrics = trainer.pretrain_step(batch, 7, 1.0).metrics
    torch.testing.assert_close(metrics["world/loss"], loss.detach())
    torch.testing.assert_close(metrics["world/grad_norm"], norm)


def test_fresh_latents_are_the_posteriors_batch_first():
    trainer = make_trainer(PLAIN)
    batch = batches(PLAIN, 1)[0]
    noise = trainer.noise.uniform("observe", 3, (5, 2, SMALL.groups))
    with torch.no_grad():
        observed = trainer.model(batch, noise).observed
    latents = trainer.update_step(batch, 3, 1.0).latents
    torch.testing.assert_close(
        latents["deter"].float(), observed.deter.transpose(0, 1), rtol=1e-3, atol=1e-4
    )
    stoch = trainer.model.rssm.latent(observed.deter, observed.stoch).stoch.argmax(-1)
    assert torch.equal(latents["stoch"].long(), stoch.transpose(0, 1))


def random_row(spec, envs, number):
    """A row without marks, and its latent: `deter` is ring + number / 100, `stoch` the number."""
    source, row = np.random.default_rng(number), {}
    for key, (shape, dtype) in row_fields(spec).items():
        values = source.standard_normal((envs, *shape))
        row[key] = np.zeros(envs, bool) if dtype == "bool" else values.astype(dtype)
    marks = np.arange(envs)[:, None] + number / 100
    deter = np.broadcast_to(marks, (envs, SMALL.deter)).astype(np.float16)
    return row, {
        "deter": deter,
        "stoch": np.full((envs, SMALL.groups), number % SMALL.classes, np.uint8),
    }


def filled_buffer(spec, rows, envs=2, seq_len=5, batch_size=2):
    config = ReplayConfig(capacity=envs * rows, batch_size=batch_size, seq_len=seq_len)
    buffer = SequenceReplayBuffer(config, row_fields(spec), latent_fields(SMALL), envs, None)
    for number in range(rows):
        buffer.add(*random_row(spec, envs, number))
    return buffer


def test_a_batch_starts_from_the_latent_of_the_row_before_it():
    trainer, buffer = make_trainer(PLAIN), filled_buffer(PLAIN, 30)
    for draw in range(10):
        sample = buffer.sample(np.random.default_rng(draw))
        batch = make_batch(trainer, sample)
        env, number = sample.rows[:, 0] >> 40, sample.rows[:, 0] & ((1 << 40) - 1)
        want = torch.tensor(env + (number - 1) / 100).float()
        torch.testing.assert_close(batch.state.deter[:, 0], want, rtol=1e-3, atol=1e-3)
        classes = batch.state.stoch.argmax(-1)
        assert classes[:, 0].tolist() == ((number - 1) % SMALL.classes).tolist()
        assert batch.state.stoch.shape == (2, SMALL.groups, SMALL.classes)


def test_written_latents_come_back_as_the_state_before_the_next_rows():
    trainer = make_trainer(PLAIN)
    # Six rows and windows of five: there is one window, and every new row moves it by one.
    buffer = filled_buffer(PLAIN, 6, envs=1, batch_size=1)
    sample = buffer.sample(np.random.default_rng(0))
    result = trainer.update_step(make_batch(trainer, sample), 0, 1.0)
    write_back(buffer, sample, result)
    again = buffer.sample(np.random.default_rng(0))
    for key, latent in sample.latents.items():  # the row before the window was not trained on
        assert np.array_equal(again.latents[key], latent)
    for step in range(5):
        buffer.add(*random_row(PLAIN, 1, 6 + step))
        later = buffer.sample(np.random.default_rng(0))
        for key, fresh in result.latents.items():
            assert np.array_equal(later.latents[key][0], fresh[0, step].numpy())


@pytest.mark.parametrize(
    ("update", "progress", "share"),
    [(0, 0.0, 0.0), (5, 0.0, 0.5), (10, 0.0, 1.0), (99, 0.5, 1.0), (99, 0.75, 0.6), (99, 1.0, 0.2)],
)
def test_schedule_rises_and_falls(update, progress, share):
    schedule = OptimizerConfig(warmup_updates=10, decay_from=0.5, final_rate=0.2)
    assert schedule.share(update, progress) == pytest.approx(share)


def test_schedule_without_warm_up_or_decay_is_flat():
    schedule = OptimizerConfig(warmup_updates=0, decay_from=1.0, final_rate=1.0)
    assert [schedule.share(u, p) for u, p in ((0, 0.0), (7, 0.5), (9, 1.0))] == [1.0] * 3


@pytest.mark.parametrize(
    ("key", "value"), [("warmup_updates", -1), ("decay_from", 1.5), ("final_rate", -0.1)]
)
def test_schedule_refuses_values_out_of_range(key, value):
    values = {"warmup_updates": 0, "decay_from": 1.0, "final_rate": 1.0}
    with pytest.raises(ConfigError) as caught:
        OptimizerConfig(**values | {key: value})
    assert caught.value.key == key


@pytest.mark.parametrize("actor", ACTORS)
def test_world_model_losses_fall_on_a_fixed_batch(actor):
    trainer = make_trainer(PLAIN, actor=actor, world={"world_lr": 3e-3}, epochs=1, minibatches=1)
    batch = random_batch(PLAIN, 2, 5)
    first = trainer.read(trainer.update_step(batch, 0, 1.0).metrics)
    for index in range(1, 80):
        last = trainer.update_step(batch, index, 1.0)
    last = trainer.read(last.metrics)
    for name in ("world/recon_loss", "world/reward_loss", "world/cont_loss"):
        assert last[name] < 0.6 * first[name], name


def echo_batch(seed):
    """Observation and reward repeat the action that led to the row; actions are random."""
    batch = random_batch(PLAIN, 8, 6, seed=seed)
    batch.is_first[:, 0] = True
    batch.prev_action[:, 0] = 0.0
    batch.obs["v0"][:] = batch.prev_action
    batch.reward[:] = batch.prev_action @ torch.tensor([1.0, 2.0, 3.0])
    return batch


def test_the_prior_predicts_what_the_action_leads_to(monkeypatch):
    monkeypatch.undo()
    trainer = make_trainer(PLAIN, world={"world_lr": 1e-3})
    for index in range(300):
        trainer.pretrain_step(echo_batch(index), index, 1.0)
    model = trainer.model
    groups = model.rssm.size.groups
    batch = echo_batch(10_000)
    with torch.no_grad():
        scan = model(batch, torch.rand(6, 8, groups, generator=generator(1))).observed
        deter, stoch = scan.deter[-1], scan.stoch[-1]
        noise = torch.rand(8, groups, generator=generator(2))
        for choice in range(3):
            action = torch.zeros(8, 3)
            action[:, choice] = 1.0
            feat = torch.cat(model.rssm.imagine_step(deter, stoch, action, noise), -1)
            reward = model.reward(feat).mean()
            torch.testing.assert_close(reward, torch.full((8,), choice + 1.0), rtol=0, atol=0.3)
            seen = model.decode(feat)["v0"]
            torch.testing.assert_close(seen, action, rtol=0, atol=0.4)
