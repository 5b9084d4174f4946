"""Gymnasium spaces <-> rows: what an agent sees of an environment and how its vector acts on it.

Observations become `uint8`, `float32` or `int32` arrays of fixed shape under flat keys; actions are
one float32 vector. Spaces that have no honest place in a row are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, SupportsFloat

import gymnasium as gym
from gymnasium import spaces

from dreamer.envs.absent import may_be_missing
from dreamer.envs.actions import Decode, action_codec
from dreamer.envs.leaf import Leaf
from dreamer.envs.observations import READERS, Read, described, infer, read_own
from dreamer.modality_configs import MODALITY_CONFIGS, find_modality
from dreamer.types import PRESENT, ConfigError, EnvError, EnvSpec, ObsSpec

Selection = Literal["all", "first"] | tuple[str, ...]

RESERVED_KEYS = frozenset({"reward", "is_first", "is_last", "is_terminal", "action"})
OBS_ALLOWED = (
    "Box of rank 0 to 2, uint8 Box images of 1, 3 or 4 channels, Text, Discrete, MultiDiscrete, "
    "MultiBinary and Dict of those, or what env.modalities names a modality for"
)
LAST_CHOICE = {"text", "audio"}  # of whoever wants no more than the first


class View(NamedTuple):
    """What of an environment the agent sees, and as what.

    Attributes:
        active: See `EnvConfig.active_modalities`.
        optional: See `EnvConfig.optional_modalities`.
        modalities: See `EnvConfig.modalities`.
        module: Imported to make the environment, and what enters modalities without a module.
    """

    active: Selection = "all"
    optional: Sequence[str] = ()
    modalities: Mapping[str, str] = MappingProxyType({})
    module: str = ""


EVERYTHING = View()


class Codec(NamedTuple):
    """Converters of one environment.

    Attributes:
        spec: What the agent sees.
        leaves: One converter per observation key, in the order of `spec.obs`.
        decode: Action vectors (n, A) float32 -> n of what the environment's `step` takes.
    """

    spec: EnvSpec
    leaves: tuple[Leaf, ...]
    decode: Decode


def spec_of(env: gym.Env[Any, Any], view: View = EVERYTHING) -> EnvSpec:
    """Say what an agent sees of an environment.

    Args:
        env: Any Gymnasium environment.
        view: What of it.

    Raises:
        EnvError: A space is not supported, or `view` names what is not there.
    """
    return codec_of(env, view).spec


def codec_of(env: gym.Env[Any, Any], view: View = EVERYTHING) -> Codec:
    """Build the converters of an environment; arguments and errors as in `spec_of`."""
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    rate = _audio_rate(env.metadata.get("audio_rate", 0), name)
    try:
        leaves = _observations(env.observation_space, view, name, rate)
    except ConfigError as error:  # about a modality
        raise EnvError(f"{name}: {error}") from error
    if view.optional:
        leaves = _with_flags(leaves, view.optional, name)
    action, decode = action_codec(env.action_space, name)
    return Codec(EnvSpec({leaf.key: leaf.spec for leaf in leaves}, action), tuple(leaves), decode)


def modality(spec: ObsSpec) -> str:
    """The modality a key belongs to: categorical keys are encoded with the vectors."""
    return "vector" if spec.kind == "categorical" else spec.kind


def _audio_rate(rate: object, name: str) -> int:
    """Samples per second, 0 if unknown."""
    number = float(rate) if isinstance(rate, SupportsFloat) else -1.0
    if number.is_integer() and number >= 0:
        return int(number)
    raise EnvError(f"{name}: metadata['audio_rate'] is {rate!r}; allowed: a whole number of Hz")


def _observations(space: gym.Space[Any], view: View, name: str, rate: int) -> list[Leaf]:
    leaves: dict[str, Leaf] = {}
    refused: dict[str, str] = {}
    for path, part in _flatten(space, ()):
        # An observation that is no Dict is called as what it is.
        key = "/".join(path) or infer(part, "") or type(part).__name__.lower()
        if key in {*leaves, *refused, *RESERVED_KEYS} or key.startswith(PRESENT):
            raise EnvError(f"{name}: observation key {key!r} is taken twice or reserved")
        converted = _read(part, key, view, rate)
        if isinstance(converted, str):
            refused[key] = converted
        else:
            leaves[key] = Leaf(key, path, *converted)
    for key in view.modalities:
        if key not in leaves:  # what is named there was read, or refused already
            found = f"a modality for {key!r}"
            raise ConfigError("env.modalities", found, f"keys {sorted({*leaves, *refused})}")
    chosen = _select(leaves, refused, view.active, name)
    if not chosen:
        raise EnvError(f"{name}: has no observation; allowed: {OBS_ALLOWED}")
    return [leaves[key] for key in sorted(chosen)]


def _flatten(
    space: gym.Space[Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], gym.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _flatten(part, (*path, key))
    else:
        yield path, space


# Modalities -----------------------------------------------------------------------------------


def _read(space: gym.Space[Any], key: str, view: View, rate: int) -> Read | str:
    """Spec and converter of a space, or what it is if no modality is there for it.

    Raises:
        ConfigError: The modality that was chosen for it is unknown, or cannot read it.
    """
    inferred = infer(space, key.rpartition("/")[2])
    name, module = _chosen(key, view)
    if not name:
        return described(space) if inferred is None else READERS[inferred].read(space, rate)
    found: Read | str
    if name in READERS:
        found, accepts = READERS[name].read(space, rate), READERS[name].accepts
    else:
        config = find_modality(name, module, f"observation {key!r}")
        found, accepts = read_own(space, inferred, rate), config.demand
        if not isinstance(found, str):
            spec = replace(found[0], kind=name, module=module)
            found = (spec, found[1]) if config.accepts(spec) else described(space)
    if isinstance(found, str):
        raise ConfigError(f"observation {key!r} as {name}", found, accepts)
    return found


def _chosen(key: str, view: View) -> tuple[str, str]:
    """Name and module of the modality that was chosen for a key, empty if its space shall decide:
    the one of `env.modalities`, or one that is called like the key and not built in.
    """
    if key in view.modalities:
        module, _, name = view.modalities[key].rpartition(":")
        if name not in READERS:
            return name, module or view.module
        if module:
            raise ConfigError(f"env.modalities.{key}", view.modalities[key], f"{name}, built in")
        return name, ""
    word = key.rpartition("/")[2]
    return (word, view.module) if word in MODALITY_CONFIGS.keys() - READERS.keys() else ("", "")


# Selection ------------------------------------------------------------------------------------


def _select(
    leaves: Mapping[str, Leaf], refused: Mapping[str, str], active: Selection, name: str
) -> set[str]:
    if active == "all":
        for key, found in refused.items():
            way_out = f" (or choose in env.active_modalities: {sorted(leaves)})" if leaves else ""
            raise EnvError(
                f"{name}: observation {key!r} is {found}; allowed: {OBS_ALLOWED}{way_out}"
            )
        return set(leaves)
    if active == "first":
        return _first(_groups(leaves))
    chosen: set[str] = set()
    for wanted in active:
        if wanted in refused:
            raise EnvError(
                f"{name}: observation {wanted!r} is {refused[wanted]}; allowed: {OBS_ALLOWED}"
            )
        chosen.update(_named(wanted, leaves, f"{name}: env.active_modalities"))
    return chosen


def _first(groups: Mapping[str, list[str]]) -> set[str]:
    """The first image; without one all but texts and sounds; without anything else those."""
    if "image" in groups:
        return set(groups["image"][:1])
    most = [key for name, keys in groups.items() if name not in LAST_CHOICE for key in keys]
    return set(most or [key for keys in groups.values() for key in keys])


def _groups(leaves: Mapping[str, Leaf]) -> dict[str, list[str]]:
    """Modality -> its keys."""
    groups: dict[str, list[str]] = {}
    for key in sorted(leaves):
        groups.setdefault(modality(leaves[key].spec), []).append(key)
    return groups


def _named(wanted: str, leaves: Mapping[str, Leaf], where: str) -> list[str]:
    """The keys that a word means; a key of that very name goes before the modality."""
    groups = _groups(leaves)
    if wanted not in leaves and wanted not in groups:
        raise EnvError(f"{where} names {wanted!r}; allowed: {sorted({*leaves, *groups})}")
    return [wanted] if wanted in leaves else groups[wanted]


def _with_flags(leaves: Sequence[Leaf], optional: Sequence[str], name: str) -> list[Leaf]:
    """The same keys and the flags of those that may be missing, sorted."""
    by_key = {leaf.key: leaf for leaf in leaves}
    missing: set[str] = set()
    for wanted in optional:
        missing.update(_named(wanted, by_key, f"{name}: env.optional_modalities"))
    for key in missing:
        by_key[key], flag = may_be_missing(by_key[key])
        by_key[flag.key] = flag
    return [by_key[key] for key in sorted(by_key)]
