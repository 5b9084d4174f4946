"""Opt-in: the costly pieces of an update through torch.compile.

Only small pure functions are compiled, and called from the same loops as ever: unrolled over time
the whole forward pass takes minutes to compile. The posterior scan stays as it is, because its
hand-written backward pass has more to give than fusing its steps. Noise is the same tensors as in
eager mode; results differ from it by rounding, and each mode repeats its own bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from dreamer.behavior.actor_critic import Actor
from dreamer.behavior.goal_policy import ImaginedGoalPolicy
from dreamer.trainer import DreamerV3Trainer
from dreamer.types import Acted, ConfigError
from dreamer.world_model.rssm import RSSM

P = ParamSpec("P")
R = TypeVar("R")


class CompiledActor:
    """A flat actor as imagination calls it, with N rows at every step. Satisfies `Policy`.

    The actor itself stays eager: in environments it meets other numbers of rows, each of which
    would be compiled anew.
    """

    def __init__(self, actor: Actor) -> None:
        self.initial, self.draw, self.mode = actor.initial, actor.draw, actor.mode
        self.act: Callable[[Tensor, tuple[()], Tensor, Tensor], Acted] = _compiled(actor.act)


def compile_pieces(trainer: DreamerV3Trainer) -> None:
    """Let the imagination step, the policy in it and PPO's minibatch losses run compiled.

    Compilation happens at the first update. What was compiled before in this process is forgotten,
    because PyTorch holds a small number of versions of a function and refuses more.

    Args:
        trainer: One that acts; the world model alone has none of these pieces.

    Raises:
        ConfigError: If the device is a CPU and there is no C++ compiler.
    """
    if trainer.device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++"))):
        raise ConfigError("runtime.compile", True, "false: no C++ compiler (g++, clang++) is here")
    torch.compiler.reset()
    _compile_imagination(trainer.model.rssm)
    behavior = trainer.behavior
    policy = behavior.goal_policy
    if policy is None:
        trainer.imagined_policy = CompiledActor(behavior.top.actor)
    else:
        trainer.imagined_policy = ImaginedGoalPolicy(policy, _compiled(policy.worker.act))
    for level in behavior.levels():
        level.ppo_losses = _compiled(level.ppo_losses)  # type: ignore[method-assign]


def _compile_imagination(rssm: RSSM) -> None:
    """Replace the steps that `RSSM.imaginer` hands out."""
    compiled = _compiled(rssm.imagine_plain)

    @torch.no_grad()
    def step(deter: Tensor, stoch: Tensor, action: Tensor, noise: Tensor, out: Tensor) -> None:
        torch.cat(compiled(deter, stoch, action, noise), -1, out=out)

    def imaginer(rows: int) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]:
        del rows
        return step

    rssm.imaginer = imaginer  # type: ignore[method-assign]


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    """One graph per set of shapes, its kernels chosen by rule and not by measuring."""
    options: dict[str, str | int | bool | Callable[..., object]] = {"deterministic": True}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)
