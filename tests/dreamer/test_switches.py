"""Every module can be switched off, and then leaves no trace; one without weight changes nothing
else; with all of them on, seeds and checkpoints give the same bits as ever.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from builders import (
    CPU,
    SMALL,
    assert_same,
    generator,
    intrinsic_config,
    make_trainer,
    meta_config,
    policy_config,
    random_batch,
    snapshot,
    vector_spec,
    world_config,
)

from dreamer.behavior.actor_critic import WorkerWeights
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import ConfigError, Replayed
from dreamer.world_model.imagination import ImaginationConfig
from dreamer.world_model.sizes import SIZES

PLAIN = vector_spec(3, discrete=(3,))
SPECS = {"discrete": PLAIN, "continuous": vector_spec(3, continuous=2)}
WAGES = WorkerWeights(goal=1.0, extrinsic=0.5, icm=0.1, empowerment=0.05)
ALL_ON = {
    "hierarchy": True,
    "intrinsic": intrinsic_config(icm=0.1, empowerment=0.05, every=2),
    "meta": meta_config(weights=True),
    "worker": WAGES,
}
KINDS = {
    "action": ALL_ON,
    "option": ALL_ON
    | {
        "intrinsic": intrinsic_config(icm=0.1, empowerment=0.05, kind="option"),
        "worker": WorkerWeights(goal=1.0, extrinsic=0.5, icm=0.1, empowerment=0.0),
    },
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


def train(trainer, updates, start=0):
    """Learn from batches of a few kinds, and tune what tunes itself; the last metrics."""
    for index in range(start, start + updates):
        batch = random_batch(trainer.model.spec, 2, 4, seed=10 * (index % 7))
        batch.is_first[1, 2] = batch.is_last[1, 1] = True
        metrics = trainer.update_step(batch, index, 1.0).metrics
        if trainer.tuning is not None and trainer.tuning.due(index):
            fresh = random_batch(trainer.model.spec, 2, 4, seed=10 * index + 5)
            metrics = metrics | trainer.meta_step(fresh, index, 1.0)
    return metrics


# A module without weight -------------------------------------------------------------------------

LONG = 100
BASES: dict[bool, dict] = {}


def base(hierarchy):
    """State after as many updates without any module, made once."""
    if hierarchy not in BASES:
        trainer = make_trainer(PLAIN, epochs=1, minibatches=1, hierarchy=hierarchy)
        train(trainer, LONG)
        BASES[hierarchy] = snapshot(trainer.state_dict())
    return BASES[hierarchy]


@pytest.mark.parametrize(
    ("hierarchy", "modules"),
    [(False, {"kind": "action", "every": 2}), (True, {"kind": "option"})],
)
def test_modules_without_weight_change_nothing_else(hierarchy, modules):
    modules = intrinsic_config(icm=0.0, empowerment=0.0, **modules)
    trainer = make_trainer(PLAIN, epochs=1, minibatches=1, hierarchy=hierarchy, intrinsic=modules)
    before = snapshot(dict(trainer.intrinsic.state_dict()))
    train(trainer, LONG)
    after, off = trainer.state_dict(), base(hierarchy)
    for part in ("model", "behavior"):
        assert_same(after[part], off[part])
    assert_same({name: after["optimizer"][name] for name in off["optimizer"]}, off["optimizer"])
    # They were there and learned.
    steps = [after["optimizer"][name]["steps"].item() for name in ("icm", "empowerment")]
    assert steps == [LONG, LONG // modules.empowerment.every]
    assert all(not torch.equal(value, before[name]) for name, value in after["intrinsic"].items())


def test_rates_and_weights_that_may_not_move_change_nothing_else():
    tuning = meta_config(step=0.0, every=10, weights=True)
    trainer = make_trainer(PLAIN, epochs=1, minibatches=1, hierarchy=True, meta=tuning)
    train(trainer, LONG)
    after, off = trainer.state_dict(), base(hierarchy=True)
    for part in ("model", "behavior"):
        assert_same(after[part], off[part])
    assert after["meta"]["actor"]["seen"] == LONG // 10


@pytest.mark.parametrize("kind", ["icm", "empowerment"])
def test_a_weight_above_zero_is_heard(kind):
    heard, silent = (
        make_trainer(PLAIN, intrinsic=intrinsic_config(**{kind: weight})) for weight in (0.1, 0.0)
    )
    for trainer in (heard, silent):
        train(trainer, 3)
    assert heard.behavior.top.streams.weights == {"extrinsic": 1.0, kind: 0.1}
    one, other = (dict(each.behavior.top.actor.state_dict()) for each in (heard, silent))
    assert any(not torch.equal(one[name], other[name]) for name in one)


# What a module leaves behind when it is off -------------------------------------------------------


def traces(trainer):
    """Names of what a trainer has and tells: groups, parts of its state, groups of its metrics."""
    metrics, state = train(trainer, 1) | train(trainer, 1, start=1), trainer.state_dict()
    names = {f"optimizer/{name}" for name in state["optimizer"]}
    names |= {f"{part}/{name}" for part in ("behavior", "intrinsic") for name in state[part]}
    names |= {f"metrics/{name}" for name in metrics}
    return names | ({"meta"} & state.keys())


@pytest.mark.parametrize(
    ("off", "marks"),
    [
        ({"intrinsic": intrinsic_config(empowerment=0.05, every=2)}, ("icm", "streams.unit")),
        ({"intrinsic": intrinsic_config(icm=0.1, every=2)}, ("empowerment",)),
        ({"meta": None}, ("meta",)),
        ({"meta": meta_config(enabled=False)}, ("meta",)),
        ({"hierarchy": False}, ("manager", "worker", "goal")),
    ],
)
def test_what_is_off_is_absent(off, marks):
    wages = {"worker": WorkerWeights(goal=1.0, extrinsic=0.5, icm=0.0, empowerment=0.0)}
    on = traces(make_trainer(PLAIN, **ALL_ON | wages))
    without = traces(make_trainer(PLAIN, **ALL_ON | wages | off))
    for mark in marks:
        assert any(mark in name for name in on)
        assert not any(mark in name for name in without)
    if "hierarchy" not in off:  # nothing but the module is gone
        gone = on - without
        assert without < on
        assert all(any(mark in name for mark in marks) for name in gone)


def test_promised_names_of_metrics():
    metrics = train(make_trainer(PLAIN, **ALL_ON), 1)
    promised = {"world/kl_loss", "policy/policy_loss", "intrinsic/icm_loss", "meta/lr"}
    promised |= {"intrinsic/empowerment", "policy/approx_kl", "manager/policy_loss"}
    for stream in ("extrinsic", "icm", "empowerment"):
        promised |= {f"reward/{stream}/{kind}" for kind in ("raw", "normalised", "weighted")}
    promised.add("worker_reward/goal/weighted")
    assert promised <= metrics.keys()


def test_options_need_a_manager():
    options = intrinsic_config(empowerment=0.1, kind="option")
    with pytest.raises(ConfigError, match=r"^intrinsic\.empowerment\.kind: found 'option'"):
        make_trainer(PLAIN, intrinsic=options)


# Everything on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_bits(name, kind):
    one, other = (make_trainer(SPECS[name], seed=3, **KINDS[kind]) for _ in range(2))
    results = [train(trainer, 4) for trainer in (one, other)]
    assert_same(*results)
    assert_same(one.state_dict(), other.state_dict())
    assert all(math.isfinite(value) for value in one.read(results[0]).values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [3, 4])  # after an update with a meta step, and without
def test_saved_and_restored_continues_to_the_bit(kind, stop):
    straight = make_trainer(PLAIN, **KINDS[kind])
    train(straight, stop)
    saved = snapshot(straight.state_dict())
    want = train(straight, 3, start=stop)
    resumed = make_trainer(PLAIN, **KINDS[kind])
    resumed.load_state_dict(saved)
    assert_same(resumed.state_dict(), saved)
    got = train(resumed, 3, start=stop)
    assert_same(got, want)
    assert_same(resumed.state_dict(), straight.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_changes_is_in_the_state(kind):
    # Without free nats, which leave a prior that is good enough alone.
    trainer = make_trainer(PLAIN, world={"free_nats": 0.0}, **KINDS[kind])
    with torch.no_grad():  # a fresh estimate of empowerment is none, and pays nothing
        for weight in trainer.intrinsic.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator(7)))
    before = snapshot(trainer.state_dict())
    train(trainer, 4)
    after = trainer.state_dict()
    for part in ("model", "behavior", "intrinsic"):
        same = {n for n in before[part] if torch.equal(before[part][n], after[part][n])}
        # The task's scales are not debiased; everything else has moved.
        assert same <= {f"{level}.streams.scales.extrinsic.mass" for level in ("top", "worker")}
    for name, tuned in after["meta"].items():
        assert not torch.equal(tuned["value"], before["meta"][name]["value"]), name
    counts = [group["steps"].item() for group in after["optimizer"].values()]
    assert min(counts) >= 2


def test_a_pretrained_world_model_is_taken_over():
    config = {"world_model": world_config(), "seed": 0, "device": CPU}
    pretrained = DreamerV3Trainer(PLAIN, **config)
    for index in range(3):
        pretrained.pretrain_step(random_batch(PLAIN, 2, 4, seed=index), index, 1.0)
    trainer = make_trainer(PLAIN, **ALL_ON)
    before = snapshot(trainer.state_dict())
    trainer.load_state_dict(snapshot(pretrained.state_dict()))
    after = trainer.state_dict()
    assert_same(after["model"], pretrained.state_dict()["model"])
    for statistic, value in pretrained.state_dict()["optimizer"]["world"].items():
        assert_same(after["optimizer"]["world"][statistic], value)
    for part in ("behavior", "intrinsic", "meta"):
        assert_same(after[part], before[part])
    assert all(math.isfinite(value) for value in trainer.read(train(trainer, 2)).values())


def test_modules_change_no_initial_weight_of_others():
    plain = make_trainer(PLAIN, intrinsic=intrinsic_config()).state_dict()
    full = make_trainer(PLAIN, **ALL_ON | {"hierarchy": False}).state_dict()
    assert_same(full["model"], plain["model"])
    names = [name for name in plain["behavior"] if "critic" not in name]  # which has more heads
    for name in names:
        assert torch.equal(plain["behavior"][name], full["behavior"][name]), name
    flat, both = (
        make_trainer(PLAIN, **ALL_ON | {"hierarchy": on}).state_dict() for on in (False, True)
    )
    assert_same(flat["model"], both["model"])
    assert_same(flat["intrinsic"], both["intrinsic"])


@pytest.mark.parametrize("kind", KINDS)
def test_other_learners_send_no_gradient_into_the_world_model_or_the_policy(kind):
    trainer = make_trainer(PLAIN, **KINDS[kind])
    batch = random_batch(PLAIN, 2, 4)
    out = trainer._observe(batch, "observe", 0)
    rollout = trainer._imagine(out, 0)
    action, first = batch.action.transpose(0, 1), batch.is_first.transpose(0, 1)
    replayed = Replayed(out.embed, out.feat, action, first)  # with their gradients
    losses, _ = trainer.intrinsic.losses(trainer.model.rssm, replayed, rollout, trainer.noise, 0)
    goals = trainer.behavior.goals
    losses["goals"], _ = goals.loss(out.observed.deter, torch.rand(4, 2, goals.groups))
    assert losses.keys() == {"icm", "icm_head", "empowerment", "goals"}
    for name, loss in losses.items():
        params = trainer.optimizer.params
        strangers = [p for group, own in params.items() if group != name for p in own]
        grads = torch.autograd.grad(loss, strangers, retain_graph=True, allow_unused=True)
        assert all(grad is None for grad in grads), name
        assert any(
            grad is not None and bool(grad.any())
            for grad in torch.autograd.grad(
                loss, params[name], retain_graph=True, allow_unused=True
            )
        )


@pytest.mark.parametrize("kind", KINDS)
def test_imagined_rewards_are_in_their_ranges(kind):
    trainer = make_trainer(PLAIN, **KINDS[kind])
    train(trainer, 3)
    rollout = trainer._imagine(trainer._observe(random_batch(PLAIN, 2, 4), "observe", 9), 9)
    rewards = trainer.intrinsic.rewards(rollout)
    assert rewards.keys() == {"icm", "empowerment"}
    assert all(each.shape == (3, 8) and not each.requires_grad for each in rewards.values())
    assert rewards["icm"].min() >= 0
    assert rewards["empowerment"].abs().max() <= 1
    if kind == "option":  # paid where a segment of three steps ends, and nowhere else
        assert not rewards["empowerment"][:2].any()
        assert rewards["empowerment"][2].any()


@pytest.mark.parametrize("minibatches", [1, 7])  # seven of 24 rows are six of four
def test_weights_are_tuned_by_the_last_minibatch_however_many_there_are(minibatches):
    trainer = make_trainer(PLAIN, **ALL_ON, minibatches=minibatches)
    before = snapshot(trainer.state_dict()["meta"])
    assert math.isfinite(train(trainer, 1)["meta/gradient_entropy_weight"])
    after = trainer.state_dict()["meta"]
    assert {name for name in after if name.startswith("weight/")} == {
        f"weight/{name}" for name in ("entropy", "icm", "empowerment")
    }
    moved = {name for name in after if after[name]["value"] != before[name]["value"]}
    # Fresh modules expect nothing, pay nothing, and their weights make no difference.
    assert moved == after.keys() - {"weight/icm", "weight/empowerment"}


def test_actions_are_imagined_for_as_long_as_goals_last():
    config = ImaginationConfig(horizon=6, starts="all")
    trainer = DreamerV3Trainer(
        PLAIN,
        world_model=world_config(),
        imagination=config,
        policy=policy_config(hierarchy=True, goal_every=2),
        seed=0,
        device=CPU,
    )
    rollout = trainer._imagine(trainer._observe(random_batch(PLAIN, 2, 4), "observe", 0), 0)
    codes = [each.code for each in rollout.carries]
    same = [torch.equal(a, b) for a, b in pairwise(codes)]
    assert same == [True, False, True, False, True]
