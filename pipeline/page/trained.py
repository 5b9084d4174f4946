"""What was trained, in a few lines of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dreamer import checkpoint
from dreamer.types import EnvSpec

PARTS = {"model": "world model", "behavior": "policy, critics and goals", "intrinsic": "intrinsic"}
FACT = tuple[str, str]


class Saved(NamedTuple):
    """What is stored with an agent.

    Attributes:
        spec: What it sees and does. facts: Steps and validation return. sizes: Numbers per part.
    """

    spec: EnvSpec
    facts: dict[str, Any]
    sizes: dict[str, int]


def read_saved(folder: Path) -> Saved | None:
    """What is in an agent's folder, or None if nothing is there.

    Raises:
        CheckpointError: It is damaged.
    """
    if not folder.exists():
        return None
    tensors, meta = checkpoint.read(folder)
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        sizes[name.partition(".")[0]] += tensor.numel()
    return Saved(EnvSpec.from_json(meta["spec"]), dict(meta["facts"]), dict(sizes))


def described(flat: Mapping[str, Any], saved: Saved | None) -> Iterator[FACT]:
    """Name and sentence of each part, as parameters and agent tell it.

    Args:
        flat: Parameters by dotted key; what they lack is left out.
    """
    yield "environment", _environment(flat)
    if saved is not None:
        yield "sees and does", saved.spec.words
        yield "size", f"{flat.get('world_model.size')}: {_counted(saved.sizes)}"
    yield "policy", _policy(flat)
    yield from _modules(flat)
    rates = "tune themselves" if flat.get("meta.enabled") else "fixed"
    yield "learning rates", rates
    yield "length", _length(flat)
    if saved is not None:
        score = saved.facts.get("validation/return")
        found = "" if score is None else f": validation return {score:,.6g}"
        yield "delivered", f"the agent of step {saved.facts.get('env_step', 0):,}{found}"


def _environment(flat: Mapping[str, Any]) -> str:
    repeat = flat.get("env.action_repeat", 1)
    each = f", each action {repeat} times" if repeat != 1 else ""
    return f"{flat.get('env.id')}, {flat.get('env.num_envs')} side by side{each}"


def _counted(sizes: Mapping[str, int]) -> str:
    parts = [f"{name} {sizes[part]:,}" for part, name in PARTS.items() if sizes.get(part)]
    return f"{sum(sizes.values()):,} numbers in all ({', '.join(parts)})"


def _policy(flat: Mapping[str, Any]) -> str:
    actor = str(flat.get("policy.actor")).upper()
    if not flat.get("policy.hierarchy"):
        return f"{actor}, flat"
    return (
        f"{actor}, a manager sets a goal every {flat.get('policy.goal_every')} steps for a worker"
    )


def _modules(flat: Mapping[str, Any]) -> Iterator[FACT]:
    for key, name in (("icm", "curiosity"), ("empowerment", "empowerment")):
        if flat.get(f"intrinsic.{key}.enabled"):
            weight, worker = flat.get(f"intrinsic.{key}.weight"), flat.get(f"policy.worker.{key}")
            levels = f" for the manager, {worker} for the worker"
            yield name, f"weight {weight}{levels if flat.get('policy.hierarchy') else ''}"
        else:
            yield name, "off"


def _length(flat: Mapping[str, Any]) -> str:
    collected, steps = flat.get("collect.steps", 0), flat.get("train.env_steps", 0)
    updates = flat.get("pretrain.updates", 0)
    return (
        f"{steps:,} environment steps, {collected:,} of them at random, {updates:,} updates before"
    )
