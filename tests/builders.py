"""Small specs, configurations and batches for tests of the agent; every value can be changed."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from dreamer.behavior.actor_critic import PolicyConfig, WorkerWeights
from dreamer.intrinsic.empowerment import EmpowermentConfig
from dreamer.intrinsic.icm import ICMConfig
from dreamer.intrinsic.rewards import IntrinsicConfig
from dreamer.meta_gradient import MetaConfig
from dreamer.modalities.audio import AudioConfig
from dreamer.modalities.text import TextConfig
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import ActionSpec, Batch, EnvSpec, LatentState, ObsSpec
from dreamer.world_model.imagination import ImaginationConfig
from dreamer.world_model.model import MultimodalWorldModel, WorldModelConfig
from dreamer.world_model.sizes import SIZES, Size

CPU = torch.device("cpu")
# Eight blocks of two units, and class and group counts that differ, so that a mix-up shows.
SMALL = Size(deter=16, hidden=12, groups=3, classes=4, depth=2, units=10)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vector_spec(*sizes, discrete=(), continuous=0, **more):
    """Keys v0, v1, ... of the given lengths, other keys by name, and an action."""
    obs = {
        f"v{i}": ObsSpec(shape=(n,), dtype="float32", kind="vector") for i, n in enumerate(sizes)
    }
    kind = "discrete" if discrete else "continuous"
    return EnvSpec(obs | more, ActionSpec(kind=kind, sizes=tuple(discrete) or (continuous,)))


def vector(*shape):
    return ObsSpec(shape=shape, dtype="float32", kind="vector")


def image(height, width, channels=3):
    return ObsSpec(shape=(height, width, channels), dtype="uint8", kind="image")


def categorical(*shape, classes):
    return ObsSpec(shape=shape, dtype="int32", kind="categorical", classes=classes)


def grid(height, width, *layers):
    return ObsSpec(shape=(height, width, len(layers)), dtype="uint8", kind="grid", layers=layers)


def audio(samples, dtype="float32"):
    return ObsSpec(shape=(samples,), dtype=dtype, kind="audio", rate=8000)


def text(width):
    return ObsSpec(shape=(width,), dtype="uint8", kind="text")


def world_config(**changes):
    values = {
        "size": "tiny",
        "kl_scale": 1.0,
        "free_nats": 1.0,
        "recon_scale": 1.0,
        "modality_scales": {},
        "reward_scale": 1.0,
        "reward_outscale": 0.0,
        "cont_scale": 1.0,
        "discount_horizon": 333.0,
        "world_lr": 1e-3,
        "fusion": "attention",
        "modality_dropout": 0.0,
        "embed_dim": "auto",
        "text": TextConfig(model="own", finetune=False, tokenizer="own"),
        "audio": AudioConfig(features="waveform", rate="auto", bins=32),
    }
    return WorldModelConfig(**values | changes)


def policy_config(**changes):
    values = {
        "actor": "ppo",
        "clip_ratio": 0.2,
        "epochs": 2,
        "minibatches": 2,
        "target_kl": 1e6,
        "entropy_scale": 3e-4,
        "slow_rate": 0.02,
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "hierarchy": False,
        "goal_every": 3,
        "goal_groups": 4,
        "goal_classes": 3,
        "goal_lr": 3e-4,
        "manager_entropy_scale": 3e-4,
        "manager_target_kl": 1e6,
        "worker": WorkerWeights(goal=1.0, extrinsic=0.5, icm=0.0, empowerment=0.0),
    }
    return PolicyConfig(**values | changes)


def intrinsic_config(*, icm=None, empowerment=None, **changes):
    """Weight of each module, which is off without one; the rest is about empowerment."""
    values = {"kind": "action", "steps": 2, "every": 1, "lr": 1e-3}
    values |= {"enabled": empowerment is not None, "weight": empowerment or 0.0}
    return IntrinsicConfig(
        icm=ICMConfig(enabled=icm is not None, weight=icm or 0.0, lr=1e-3, head_lr=1e-3),
        empowerment=EmpowermentConfig(**values | changes),
    )


def meta_config(**changes):
    values = {
        "enabled": True,
        "every": 2,
        "warmup": 0,
        "step": 0.02,
        "trace": 0.9,
        "check": 0,
        "weights": False,
    }
    return MetaConfig(**values | changes)


def small_model(spec, monkeypatch, size=SMALL, seed=0, **changes):
    """A world model of widths that no named size has."""
    monkeypatch.setitem(SIZES, "tiny", size)
    return MultimodalWorldModel(spec, world_config(**changes), seed)


def make_trainer(
    spec, *, seed=0, horizon=3, starts="all", world=None, intrinsic=None, meta=None, **policy
):
    return DreamerV3Trainer(
        spec,
        world_model=world_config(**world or {}),
        imagination=ImaginationConfig(horizon=horizon, starts=starts),
        policy=policy_config(**policy),
        intrinsic=intrinsic,
        meta=meta,
        seed=seed,
        device=CPU,
    )


def random_obs(spec, lead, seed=0):
    """key -> (*lead, *shape) random observations in their own dtypes."""
    source, obs = generator(seed), {}
    for key, each in spec.obs.items():
        shape = (*lead, *each.shape)
        if each.dtype == "float32":
            numbers = torch.randn(shape, generator=source)
            obs[key] = numbers.clamp(-1.0, 1.0) if each.kind == "audio" else numbers
        else:
            dtype = getattr(torch, each.dtype)
            low, high = (
                (97, 123)
                if each.kind == "text"
                else (0, 2 if each.kind == "flag" else each.classes or 256)
            )
            high = min(each.layers) if each.layers else high
            obs[key] = torch.randint(low, high, shape, generator=source, dtype=dtype)
    return obs


def random_action(spec, lead, seed=0):
    """(*lead, A) normals, or concatenated one-hots."""
    source = generator(seed)
    if spec.action.kind == "continuous":
        return torch.randn(*lead, spec.action.dim, generator=source)
    parts = [
        functional.one_hot(torch.randint(0, n, lead, generator=source), n).float()
        for n in spec.action.sizes
    ]
    return torch.cat(parts, -1)


def random_batch(spec, batch=2, steps=5, *, model=None, seed=0, **changes):
    """Sequences without episode ends, starting from the zero state of `model` (or of `tiny`)."""
    size = SIZES["tiny"] if model is None else model.rssm.size
    zeros = torch.zeros(batch, size.deter), torch.zeros(batch, size.groups, size.classes)
    values = {
        "obs": random_obs(spec, (batch, steps), seed),
        "action": random_action(spec, (batch, steps), seed + 1),
        "prev_action": random_action(spec, (batch, steps), seed + 2),
        "reward": torch.randn(batch, steps, generator=generator(seed + 3)),
    }
    marks = ("is_first", "is_last", "is_terminal")
    values |= {mark: torch.zeros(batch, steps, dtype=torch.bool) for mark in marks}
    return Batch(**{"state": LatentState(*zeros)} | values | changes)


def random_latents(size, lead, seed=0):
    """deter (*lead, D) in [-1, 1] and flat class-major one-hots (*lead, C * S)."""
    source = generator(seed)
    deter = torch.rand(*lead, size.deter, generator=source) * 2 - 1
    index = torch.randint(0, size.classes, (*lead, size.groups), generator=source)
    stoch = functional.one_hot(index, size.classes).float().transpose(-1, -2).flatten(-2)
    return deter, stoch


def snapshot(tree):
    """Copy of nested dicts with every tensor cloned."""
    if isinstance(tree, dict):
        return {key: snapshot(value) for key, value in tree.items()}
    return tree.clone() if isinstance(tree, torch.Tensor) else tree


def assert_same(one, other, where="state"):
    """Nested dicts, equal to the bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (math.isnan(one) and math.isnan(other)), where


def num_trainable(*modules):
    return sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad)
