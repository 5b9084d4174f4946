"""Small tasks of our own with known best and random returns, registered with Gymnasium.

`gymnasium.make("DeepSea-v0", size=10)` makes one after `import dreamer.envs`, and `make_env` makes
it from `DeepSea-v0?size=10`. Each module has `optimal_return(size=10)` and `random_return(size=10)`
beside its environment, exact up to rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import gymnasium as gym

from dreamer.envs.tasks import cue_bits, deep_sea, key_chain, pin_pad, pits, split_cartpole
from dreamer.types import EnvError

TASKS: Mapping[str, Callable[..., gym.Env[Any, Any]]] = MappingProxyType(
    {
        cue_bits.NAME: cue_bits.CueBits,
        deep_sea.NAME: deep_sea.DeepSea,
        key_chain.NAME: key_chain.KeyChain,
        pin_pad.NAME: pin_pad.PinPad,
        pits.NAME: pits.Pits,
        split_cartpole.NAME: split_cartpole.SplitCartPole,
    }
)

for _name, _make in TASKS.items():
    gym.register(_name, entry_point=_make)


def make_task(name: str, options: Mapping[str, Any], *, render: bool) -> gym.Env[Any, Any]:
    """Make one of `TASKS`.

    Raises:
        EnvError: The id or an option is unknown, or an option out of range.
    """
    if name not in TASKS:
        raise EnvError(f"{name}: there is no such task; allowed: {', '.join(TASKS)}")
    allowed = [key for key in inspect.signature(TASKS[name]).parameters if key != "render_mode"]
    for key in options:
        if key not in allowed:
            raise EnvError(f"{name}: option {key!r}; allowed: {', '.join(allowed)}")
    mode: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    return gym.make(name, disable_env_checker=True, **mode, **options)
