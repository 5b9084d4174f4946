"""Variants of an agent: named changes of a preset, put together with `|`."""

from __future__ import annotations

from typing import Any

from benchmarks.evidence_rows import Times

FLAT: dict[str, Any] = {
    "policy.hierarchy": False,
    "intrinsic.icm.enabled": False,
    "intrinsic.empowerment.enabled": False,
    "meta.enabled": False,
}
REINFORCE: dict[str, Any] = {"policy.actor": "reinforce"}
HIERARCHY: dict[str, Any] = {"policy.hierarchy": True}
META: dict[str, Any] = {"meta.enabled": True}


def icm(weight: float) -> dict[str, Any]:
    """Curiosity with this weight."""
    return {"intrinsic.icm.enabled": True, "intrinsic.icm.weight": weight}


def empowerment(weight: float) -> dict[str, Any]:
    """Empowerment with this weight."""
    return {"intrinsic.empowerment.enabled": True, "intrinsic.empowerment.weight": weight}


def repeated(times: int) -> dict[str, Any]:
    """Every action so many times, at equal environment steps and an equal number of updates."""
    fewer = Times(1 / times)
    budgets = ("collect.steps", "train.env_steps", "train.eval_every")
    return {
        "env.action_repeat": times,
        **dict.fromkeys(budgets, fewer),
        "train.updates_per_env_step": Times(times),
    }


def rates(factor: float) -> dict[str, Any]:
    """All learning rates that can tune themselves, that many times the preset's."""
    names = ("world_model.world_lr", "policy.actor_lr", "policy.critic_lr")
    return dict.fromkeys(names, Times(factor))
