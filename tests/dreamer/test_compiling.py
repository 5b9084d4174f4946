"""Compiled pieces: they are really called, agree with eager mode, and repeat their own bits."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from builders import (
    SMALL,
    assert_same,
    generator,
    make_trainer,
    random_action,
    random_batch,
    random_latents,
    vector_spec,
)

from dreamer.behavior.learner import PPOStep
from dreamer.compiling import compile_pieces
from dreamer.nn.distributions import ReturnsCode
from dreamer.types import ConfigError
from dreamer.world_model.sizes import SIZES

SPECS = {"discrete": vector_spec(3, discrete=(3, 2)), "continuous": vector_spec(3, continuous=2)}
PIECES = {
    "ppo": {"imagine_plain", "act", "ppo_losses"},
    "reinforce": {"imagine_plain", "act"},
    "hierarchy": {"imagine_plain", "act", "ppo_losses"},
}
KINDS = [("discrete", "ppo"), ("continuous", "reinforce"), ("discrete", "hierarchy")]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", SMALL)


@pytest.fixture
def traced(monkeypatch):
    """Trace as in earnest but generate no code; the names of the functions that were traced."""
    names, real = set(), torch.compile

    def backend(name, graph, inputs):
        names.add(name)
        return graph.forward

    def compile_named(function, *, options, **kwargs):
        return real(function, backend=partial(backend, function.__name__), **kwargs)

    monkeypatch.setattr(torch, "compile", compile_named)
    return names


def lively(trainer):
    """Move the heads away from the zeros they start with, so that every gradient flows."""
    source = generator(7)
    with torch.no_grad():
        for weight in trainer.behavior.parameters():
            weight.add_(torch.randn(weight.shape, generator=source) * 0.05)
    return trainer


def update(name, actor, *, compiled):
    levels = {"hierarchy": True} if actor == "hierarchy" else {"actor": actor}
    trainer = lively(make_trainer(SPECS[name], **levels))
    if compiled:
        compile_pieces(trainer)
    return trainer, trainer.update_step(random_batch(SPECS[name]), 0, 1.0)


def assert_close(one, other, tolerance):
    """Equal up to `tolerance` of the largest entry of each tensor."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        limit = tolerance * max(1.0, value.abs().max().item())
        torch.testing.assert_close(value, other[key], rtol=0.0, atol=limit, msg=key)


def assert_agree(one, other):
    """Two trainers after one update, and the results of it."""
    assert_same(one[1].latents, other[1].latents)
    assert_close(one[1].metrics, other[1].metrics, 1e-4)
    for part in ("model", "behavior"):
        assert_close(one[0].state_dict()[part], other[0].state_dict()[part], 1e-4)


@pytest.mark.parametrize("actor", PIECES)
@pytest.mark.parametrize("name", SPECS)
def test_every_piece_is_one_graph_and_is_called(name, actor, traced):
    compiled = update(name, actor, compiled=True)
    assert traced == PIECES[actor]
    assert_agree(update(name, actor, compiled=False), compiled)


@pytest.mark.usefixtures("traced")
def test_a_process_may_compile_many_trainers():
    # PyTorch's own limit of versions per function is larger; a small one is passed sooner.
    with torch._dynamo.config.patch(recompile_limit=1):
        for clip_ratio in (0.1, 0.2):
            trainer = make_trainer(SPECS["discrete"], horizon=1, clip_ratio=clip_ratio)
            compile_pieces(trainer)
            trainer.update_step(random_batch(SPECS["discrete"], 1, 2), 0, 1.0)


def test_without_a_compiler_the_parameter_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"runtime.compile: found True; allowed: false"):
        compile_pieces(make_trainer(SPECS["discrete"]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "actor"), KINDS)
def test_one_update_agrees_and_repeats_its_bits(name, actor):
    compiled, again = (update(name, actor, compiled=True) for _ in range(2))
    assert_agree(update(name, actor, compiled=False), compiled)
    assert_same(compiled[0].state_dict(), again[0].state_dict())
    assert_same(compiled[1].metrics, again[1].metrics)


def double(name, *, compiled):
    trainer = lively(make_trainer(SPECS[name]))
    trainer.model.double()
    trainer.behavior.double()
    if compiled:
        compile_pieces(trainer)
    return trainer


def minibatch(spec, feat_dim, rows=24):
    """Random rows for PPO, in float64 but for the targets' bins."""
    source = generator(3)
    numbers = partial(torch.randn, generator=source, dtype=torch.float64)
    code = ReturnsCode.of(1, *(5.0 * torch.randn(2, rows, 1, generator=source)))
    return PPOStep(
        feat=numbers(rows, feat_dim),
        action=random_action(spec, (rows,)).double(),
        log_prob_old=numbers(rows) - 2.0,
        adv=numbers(rows),
        weight=numbers(rows).sigmoid(),
        value_bins=code.bins,
        value_weight=code.weight.double(),
        value_others=code.others.double(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_losses_and_gradients_agree_in_float64(name):
    found = []
    for compiled in (False, True):
        trainer = double(name, compiled=compiled)
        step = minibatch(SPECS[name], trainer.model.feat_dim)
        policy, value, _ = trainer.behavior.top.ppo_losses(step)
        (policy + value).backward()
        weights = trainer.behavior.named_parameters()
        grads = {key: weight.grad for key, weight in weights if weight.grad is not None}
        found.append(grads | {"policy": policy.detach(), "value": value.detach()})
    assert all(value.dtype == torch.float64 for value in found[0].values())
    assert_close(*found, 1e-9)


@pytest.mark.slow
def test_imagination_agrees_in_float64():
    outs = []
    for compiled in (False, True):
        rssm = double("continuous", compiled=compiled).model.rssm
        deter, stoch = (x.double() for x in random_latents(SMALL, (12,)))
        action, noise = (
            random_action(SPECS["continuous"], (12,)).double(),
            torch.rand(12, SMALL.groups, generator=generator(5), dtype=torch.float64),
        )
        next_deter, next_stoch = rssm.imagine_step(deter, stoch, action, noise)
        outs.append({"deter": next_deter, "stoch": next_stoch})
    assert_close(*outs, 1e-9)
