"""The flat JSON configuration: `{"batch_size": 16, "seq_len": 64, "world_lr": 6e-4, ...}`.

`FLAT_KEYS` is the whole vocabulary; dotted keys of `params.yaml` may stand beside the flat ones.
`obs_dim` and `action_dim` set nothing: they are expectations that the environment must meet.
`use_wandb` is answered with a line that tracking is MLflow. A list is a search space, see
`read_search_space`.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dreamer.types import ConfigError, EnvSpec

FLAT_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "seed": "seed",
        "device": "device",
        "threads": "runtime.threads",
        "env_id": "env.id",
        "num_envs": "env.num_envs",
        "action_repeat": "env.action_repeat",
        "steps": "train.env_steps",
        "capacity": "replay.capacity",
        "batch_size": "replay.batch_size",
        "seq_len": "replay.seq_len",
        "size": "world_model.size",
        "embed_dim": "world_model.embed_dim",
        "kl_scale": "world_model.kl_scale",
        "free_nats": "world_model.free_nats",
        "world_lr": "world_model.world_lr",
        "horizon": "imagination.horizon",
        "actor_lr": "policy.actor_lr",
        "critic_lr": "policy.critic_lr",
        "clip_ratio": "policy.clip_ratio",
        "epochs": "policy.epochs",
        "minibatches": "policy.minibatches",
    }
)
"""Flat key -> the key of `params.yaml` that it sets."""

EXPECTATIONS = ("obs_dim", "action_dim")
OTHERS = (*EXPECTATIONS, "use_wandb")

log = logging.getLogger(__name__)


def read_flat_config(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a flat configuration of one run.

    Returns:
        Dotted key -> value for `params.override`, and the expectations for `check_dims`.

    Raises:
        ConfigError: if the file is missing or broken, or a key is unknown, twice, or holds a list.
    """
    space, overrides, expectations = read_search_space(path)
    for key, values in space.items():
        allowed = "one value; a list is a search space, for `dreamer tune --config`"
        raise ConfigError(key, values, allowed)
    return overrides, expectations


def read_search_space(
    path: str | Path,
) -> tuple[dict[str, list[Any]], dict[str, Any], dict[str, int]]:
    """Read a flat configuration in which lists are a search space.

    Returns:
        Dotted key -> candidates of the keys with lists, dotted key -> value of the others, and the
        expectations for `check_dims`.

    Raises:
        ConfigError: if the file is missing or broken, or a key is unknown, twice, or without value.
    """
    space: dict[str, list[Any]] = {}
    overrides: dict[str, Any] = {}
    expectations: dict[str, int] = {}
    for key, value in _load(Path(path)).items():
        if key == "use_wandb":
            _answer_wandb(value)
        elif key in EXPECTATIONS:
            expectations[key] = _expectation(key, value)
        else:
            dotted = _dotted(key)
            if dotted in space or dotted in overrides:
                raise ConfigError(key, f"{dotted} again", "each parameter once, flat or dotted")
            _check_value(key, value)
            target = space if isinstance(value, list) else overrides
            target[dotted] = value
    return space, overrides, expectations


def check_dims(spec: EnvSpec, expectations: Mapping[str, int]) -> None:
    """Compare the expected sizes with those of the environment.

    Args:
        spec: What the environment offers.
        expectations: `obs_dim`, the number of values in one observation of all keys together, and
            `action_dim`, the width A of the action vector; each may be absent.

    Raises:
        ConfigError: if a size differs, naming what the environment has.
    """
    sizes = {key: math.prod(obs.shape) for key, obs in spec.obs.items()}
    parts = ", ".join(f"{key} {'x'.join(map(str, obs.shape))}" for key, obs in spec.obs.items())
    found = {
        "obs_dim": (sum(sizes.values()), f"the environment observes {parts}"),
        "action_dim": (spec.action.dim, f"the environment's actions are {spec.action.kind}"),
    }
    for key, expected in expectations.items():
        size, reason = found[key]
        if expected != size:
            raise ConfigError(key, expected, f"{size}: {reason}")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
        )
    except OSError as error:
        raise ConfigError(str(path), error.strerror, "a readable JSON file") from error
    except (ValueError, RecursionError) as error:  # broken JSON, or not UTF-8
        raise ConfigError(str(path), " ".join(str(error).split()), "valid JSON") from error
    if not isinstance(content, dict):
        raise ConfigError(str(path), content, "one JSON object: {key: value, ...}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice; JSON readers keep the last in silence."""
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ConfigError(key, "the key twice", "each key once")
        seen[key] = value
    return seen


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _dotted(key: str) -> str:
    if "." in key:
        return key  # `params.override` refuses those that do not exist
    if key in FLAT_KEYS:
        return FLAT_KEYS[key]
    known = (*FLAT_KEYS, *OTHERS)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"{near[0]}, did you mean that? Known: " if near else ""
    listed = ", ".join(known)
    raise ConfigError(key, "an unknown key", f"{hint}{listed}, or a dotted key of params.yaml")


def _check_value(key: str, value: Any) -> None:  # noqa: ANN401
    if isinstance(value, dict):
        raise ConfigError(
            key, value, "one value, or a list to search; write sections as dotted keys"
        )
    if value == []:
        raise ConfigError(key, value, "at least one value to search")


def _expectation(key: str, value: Any) -> int:  # noqa: ANN401
    if type(value) is not int or value < 1:
        raise ConfigError(key, value, "a positive integer; it is compared with the environment")
    return value


def _answer_wandb(value: Any) -> None:  # noqa: ANN401
    if type(value) is not bool:
        raise ConfigError("use_wandb", value, "true or false")
    if value:
        log.info("use_wandb: runs are tracked with MLflow instead; `make ui` shows them")
