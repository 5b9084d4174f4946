"""Gymnasium spaces <-> rows: what an agent sees of an environment and how its vector acts on it.

Observations become `uint8`, `float32` or `int32` arrays of fixed shape under flat keys; actions are
one float32 vector. Spaces that have no honest place in a row are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.absent import may_be_missing
from dreamer.envs.actions import Decode, action_codec
from dreamer.envs.leaf import Convert, Leaf
from dreamer.types import PRESENT, SILENCE, EnvError, EnvSpec, ObsSpec

Selection = Literal["all", "first"] | tuple[str, ...]

RESERVED_KEYS = frozenset({"reward", "is_first", "is_last", "is_terminal", "action"})
IMAGE_CHANNELS = (1, 3, 4)
AUDIO_NAMES = ("audio", "sound")  # a Box (samples,) under such a key is a waveform
MOST_BYTES = 256  # of a text
MODALITIES = {"image": "image", "text": "text", "audio": "audio"}  # of kinds; others are vectors
OBS_ALLOWED = (
    "Box of rank 0 to 2, uint8 Box images of 1, 3 or 4 channels, "
    "Text, Discrete, MultiDiscrete, MultiBinary and Dict of those"
)


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


def spec_of(
    env: gym.Env[Any, Any], active: Selection = "all", optional: Sequence[str] = ()
) -> EnvSpec:
    """Say what an agent sees of an environment.

    Args:
        env: Any Gymnasium environment.
        active: See `EnvConfig.active_modalities`. optional: See `EnvConfig.optional_modalities`.

    Raises:
        EnvError: A space is not supported, or `active` names what is not there.
    """
    return codec_of(env, active, optional).spec


def codec_of(
    env: gym.Env[Any, Any], active: Selection = "all", optional: Sequence[str] = ()
) -> Codec:
    """Build the converters of an environment; arguments and errors as in `spec_of`."""
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    rate = int(env.metadata.get("audio_rate", 0))
    leaves = _observations(env.observation_space, active, name, rate)
    if optional:
        leaves = _with_flags(leaves, optional, name)
    action, decode = action_codec(env.action_space, name)
    return Codec(EnvSpec({leaf.key: leaf.spec for leaf in leaves}, action), tuple(leaves), decode)


# Observations ---------------------------------------------------------------------------------


def _observations(space: gym.Space[Any], active: Selection, name: str, rate: int) -> list[Leaf]:
    leaves: dict[str, Leaf] = {}
    refused: dict[str, str] = {}
    for path, part in _flatten(space, ()):
        converted = _leaf(part, path[-1] if path else "", rate)
        key = "/".join(path)
        if isinstance(converted, str):
            refused[key or type(part).__name__.lower()] = converted
            continue
        spec, convert = converted
        key = key or modality(spec)
        if key in leaves or key in RESERVED_KEYS or key.startswith(PRESENT):
            raise EnvError(f"{name}: observation key {key!r} is taken twice or reserved")
        leaves[key] = Leaf(key, path, spec, convert)
    chosen = _select(leaves, refused, active, name)
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


def modality(spec: ObsSpec) -> str:
    """The modality a key belongs to: categorical keys are encoded with the vectors."""
    return MODALITIES.get(spec.kind, "vector")


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
    groups = _groups(leaves)
    if active == "first":
        return set(groups["image"][:1] if "image" in groups else groups.get("vector", leaves))
    chosen: set[str] = set()
    for wanted in active:
        if wanted in refused:
            raise EnvError(
                f"{name}: observation {wanted!r} is {refused[wanted]}; allowed: {OBS_ALLOWED}"
            )
        chosen.update(_named(wanted, leaves, f"{name}: env.active_modalities"))
    return chosen


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


def _leaf(space: gym.Space[Any], name: str, rate: int) -> tuple[ObsSpec, Convert] | str:
    """Spec and converter of one space, or a description of it if rows cannot carry it."""
    match space:
        case spaces.Box(shape=(_,)) if name in AUDIO_NAMES and space.dtype.kind in "fu":
            return _audio(space, rate)
        case spaces.Text():
            return _text(space.max_length * max(len(x.encode()) for x in space.character_list))
        case gym.Space() if space.dtype is not None and space.dtype.kind == "U":
            return _text(MOST_BYTES)  # other spaces of words, such as MiniGrid's missions
        case spaces.Box() if len(space.shape) <= 2:
            return _vector(space.shape, "uint8" if space.dtype == np.uint8 else "float32")
        case spaces.Box(shape=(_, _, _)) if space.dtype == np.uint8:
            return _image(space.shape)
        case spaces.Discrete():
            return _categorical(int(space.n), int(space.start))
        case spaces.MultiDiscrete():
            return _one_hots(space.nvec, np.asarray(space.start))
        case spaces.MultiBinary():
            return _vector(space.shape, "uint8", strict=False)
        case spaces.Box():
            return f"a Box of shape {space.shape} and dtype {space.dtype}"
        case _:
            return f"a {type(space).__name__} space"


def _stack(observations: Sequence[object], shape: tuple[int, ...], kinds: str) -> np.ndarray:
    """Stack n observations; ValueError unless each has `shape` and a dtype kind out of `kinds`."""
    array = np.array(observations)
    if array.shape[1:] != shape or array.dtype.kind not in kinds:
        raise ValueError(f"{array.dtype} of shape {array.shape[1:]}, its space has shape {shape}")
    return array


def _vector(
    shape: tuple[int, ...], dtype: Literal["uint8", "float32"], *, strict: bool = True
) -> tuple[ObsSpec, Convert]:
    row = shape or (1,)

    def convert(observations: Sequence[object]) -> np.ndarray:
        array = _stack(observations, shape, "fiub")
        if array.dtype != dtype:
            if dtype == "uint8" and strict:
                raise ValueError(f"{array.dtype} instead of uint8")
            # float64 beyond float32 becomes infinite, which rows refuse anyway.
            with np.errstate(over="ignore"):
                array = array.astype(dtype)
        return array.reshape(-1, *row)

    return ObsSpec(shape=row, dtype=dtype, kind="vector"), convert


def _audio(space: spaces.Box, rate: int) -> tuple[ObsSpec, Convert] | str:
    """A waveform as it is; one that is all zeros where silence is 128 has not begun."""
    spec, convert = _vector(space.shape, "uint8" if space.dtype == np.uint8 else "float32")
    if spec.dtype == "float32" and (space.low.min() < -1.0 or space.high.max() > 1.0):
        return f"a waveform in {space.low.min():g} to {space.high.max():g} instead of -1 to 1"

    def centred(observations: Sequence[object]) -> np.ndarray:
        array = convert(observations)
        array[~array.any(-1)] = SILENCE
        return array

    own = replace(spec, kind="audio", rate=rate)
    return own, centred if spec.dtype == "uint8" else convert


def _text(most: int) -> tuple[ObsSpec, Convert]:
    """UTF-8, filled up with zeros."""
    width = max(1, min(most, MOST_BYTES))

    def convert(observations: Sequence[object]) -> np.ndarray:
        array = np.zeros((len(observations), width), np.uint8)
        for row, text in zip(array, observations, strict=True):
            if not isinstance(text, str):
                raise TypeError(f"{type(text).__name__} instead of a text")
            code = text.encode()
            if len(code) > width or 0 in code:
                raise ValueError(f"{text[:40]!r} of {len(code)} bytes, allowed {width} without NUL")
            row[: len(code)] = np.frombuffer(code, np.uint8)
        return array

    return ObsSpec(shape=(width,), dtype="uint8", kind="text"), convert


def _image(shape: tuple[int, ...]) -> tuple[ObsSpec, Convert] | str:
    """Channels last is kept, channels first is transposed."""
    first = shape[2] not in IMAGE_CHANNELS
    if first and shape[0] not in IMAGE_CHANNELS:
        return f"a uint8 Box of shape {shape}"

    def convert(observations: Sequence[object]) -> np.ndarray:
        array = _stack(observations, shape, "u")
        if array.dtype != np.uint8:
            raise ValueError(f"{array.dtype} instead of uint8")
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if first else array

    row = (*shape[1:], shape[0]) if first else shape
    return ObsSpec(shape=row, dtype="uint8", kind="image"), convert


def _categorical(classes: int, start: int) -> tuple[ObsSpec, Convert]:
    def convert(observations: Sequence[object]) -> np.ndarray:
        index = _stack(observations, (), "iu").astype(np.int64) - start
        if (index < 0).any() or (index >= classes).any():
            raise ValueError(
                f"{(index + start).tolist()}, outside {start} to {start + classes - 1}"
            )
        return index.astype(np.int32).reshape(-1, 1)

    return ObsSpec(shape=(1,), dtype="int32", kind="categorical", classes=classes), convert


def _one_hots(nvec: np.ndarray, start: np.ndarray) -> tuple[ObsSpec, Convert]:
    sizes, width = nvec.reshape(-1), int(nvec.sum())
    offsets = np.cumsum(sizes) - sizes

    def convert(observations: Sequence[object]) -> np.ndarray:
        index = (_stack(observations, nvec.shape, "iu") - start).reshape(-1, sizes.size)
        if (index < 0).any() or (index >= sizes).any():
            raise ValueError(f"outside its MultiDiscrete space {nvec.tolist()}")
        array = np.zeros((len(index), width), np.float32)
        np.put_along_axis(array, index + offsets, 1.0, axis=1)
        return array

    return ObsSpec(shape=(width,), dtype="float32", kind="vector"), convert
