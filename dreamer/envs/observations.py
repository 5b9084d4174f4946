"""One Gymnasium space of observations: which modality it is, and how it becomes an array of rows.

Whoever reads a space gives its spec and a converter, or says in words what it found instead of a
space that it can read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from dreamer.envs.leaf import Convert
from dreamer.types import SILENCE, ObsSpec

IMAGE_CHANNELS = (1, 3, 4)
AUDIO_NAMES = ("audio", "sound")  # a Box (samples,) under such a key is a waveform
MOST_BYTES = 256  # of a text
MOST_VALUES = 256  # of one layer of a grid that is a Box

Space = gym.Space[Any]
Read = tuple[ObsSpec, Convert]


class Reader(NamedTuple):
    """How a built-in modality reads a space: called with it and the samples of a sound per second;
    and which spaces it can read.
    """

    read: Callable[[Space, int], Read | str]
    accepts: str


def infer(space: Space, name: str) -> str | None:
    """The built-in modality that a space under the key `name` belongs to, if any."""
    match space:
        case spaces.Box(shape=(_,)) if name in AUDIO_NAMES and space.dtype.kind in "fu":
            return "audio"
        case spaces.Box() if len(space.shape) <= 2:
            return "vector"
        case spaces.Box(shape=(_, _, _)) if space.dtype == np.uint8:
            return "image"
        case spaces.MultiDiscrete() if space.nvec.ndim == 3:
            return "grid"
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            return "vector"
        case _:
            return "text" if _is_text(space) else None


def read_own(space: Space, inferred: str | None, rate: int) -> Read | str:
    """Read a space for a modality that is not built in: numbers as they are, others as inferred."""
    if isinstance(space, spaces.Box):
        return _numbers(space)
    return described(space) if inferred is None else READERS[inferred].read(space, rate)


def described(space: Space) -> str:
    """A space in a few words."""
    if isinstance(space, spaces.Box | spaces.MultiDiscrete):
        return f"a {type(space).__name__} of shape {space.shape} and dtype {space.dtype}"
    return f"a {type(space).__name__} space"


# Readers --------------------------------------------------------------------------------------


def _read_audio(space: Space, rate: int) -> Read | str:
    """A waveform as it is; one that is all zeros where silence is 128 has not begun."""
    if not (isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind in "fu"):
        return described(space)
    spec, convert = _numbers(space)
    if spec.dtype == "float32" and (space.low.min() < -1.0 or space.high.max() > 1.0):
        return f"a waveform in {space.low.min():g} to {space.high.max():g} instead of -1 to 1"

    def centred(observations: Sequence[object]) -> np.ndarray:
        array = convert(observations)
        array[~array.any(-1)] = SILENCE
        return array

    own = replace(spec, kind="audio", rate=rate)
    return own, centred if spec.dtype == "uint8" else convert


def _read_grid(space: Space, _rate: int) -> Read | str:
    """Layers of numbers that name things, counted from 0."""
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 3:
        return _grid(space.nvec.astype(np.int64), np.asarray(space.start, np.int64))
    if isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype.kind in "iu":
        low, high = space.low.astype(np.int64), space.high.astype(np.int64)
        if (high - low).max() < MOST_VALUES:
            return _grid(high - low + 1, low)
    return described(space)


def _read_image(space: Space, _rate: int) -> Read | str:
    """Channels last is kept, channels first is transposed."""
    if not (isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8):
        return described(space)
    shape: tuple[int, ...] = space.shape
    first = shape[2] not in IMAGE_CHANNELS
    if first and shape[0] not in IMAGE_CHANNELS:
        return described(space)

    def convert(observations: Sequence[object]) -> np.ndarray:
        array = _stack(observations, shape, "u")
        if array.dtype != np.uint8:
            raise ValueError(f"{array.dtype} instead of uint8")
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if first else array

    row = (*shape[1:], shape[0]) if first else shape
    return ObsSpec(shape=row, dtype="uint8", kind="image"), convert


def _read_text(space: Space, _rate: int) -> Read | str:
    if isinstance(space, spaces.Text):
        return _text(space.max_length * max(len(x.encode()) for x in space.character_list))
    # Other spaces of words, such as MiniGrid's missions, do not say how long they are.
    return _text(MOST_BYTES) if _is_text(space) else described(space)


def _read_vector(space: Space, _rate: int) -> Read | str:
    match space:
        case spaces.Box():
            return _numbers(space)
        case spaces.Discrete():
            return _categorical(int(space.n), int(space.start))
        case spaces.MultiDiscrete():
            return _one_hots(space.nvec, np.asarray(space.start))
        case spaces.MultiBinary():
            return _vector(space.shape, "uint8", strict=False)
        case _:
            return described(space)


READERS = {
    "audio": Reader(_read_audio, "a Box (samples,) of uint8 or of floats in -1 to 1"),
    "grid": Reader(
        _read_grid,
        "a MultiDiscrete (height, width, layers) or such a Box of integers, at most "
        f"{MOST_VALUES} values a layer",
    ),
    "image": Reader(_read_image, "a uint8 Box (height, width, channels) of 1, 3 or 4 channels"),
    "text": Reader(_read_text, "a Text"),
    "vector": Reader(_read_vector, "a Box, Discrete, MultiDiscrete or MultiBinary"),
}


# Specs and converters -------------------------------------------------------------------------


def _is_text(space: Space) -> bool:
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")


def _stack(observations: Sequence[object], shape: tuple[int, ...], kinds: str) -> np.ndarray:
    """Stack n observations; ValueError unless each has `shape` and a dtype kind out of `kinds`."""
    array = np.array(observations)
    if array.shape[1:] != shape or array.dtype.kind not in kinds:
        raise ValueError(f"{array.dtype} of shape {array.shape[1:]}, its space has shape {shape}")
    return array


def _numbers(space: spaces.Box) -> Read:
    return _vector(space.shape, "uint8" if space.dtype == np.uint8 else "float32")


def _vector(
    shape: tuple[int, ...], dtype: Literal["uint8", "float32"], *, strict: bool = True
) -> Read:
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


def _text(most: int) -> Read:
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


def _categorical(classes: int, start: int) -> Read:
    def convert(observations: Sequence[object]) -> np.ndarray:
        index = _stack(observations, (), "iu").astype(np.int64) - start
        if (index < 0).any() or (index >= classes).any():
            raise ValueError(
                f"{(index + start).tolist()}, outside {start} to {start + classes - 1}"
            )
        return index.astype(np.int32).reshape(-1, 1)

    return ObsSpec(shape=(1,), dtype="int32", kind="categorical", classes=classes), convert


def _one_hots(nvec: np.ndarray, start: np.ndarray) -> Read:
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


def _grid(sizes: np.ndarray, start: np.ndarray) -> Read:
    """Integers of `sizes` (height, width, layers) values each, from `start` on."""
    layers = tuple(int(most) for most in sizes.max((0, 1)))
    dtype: Literal["uint8", "int32"] = "uint8" if max(layers) <= MOST_VALUES else "int32"

    def convert(observations: Sequence[object]) -> np.ndarray:
        index = _stack(observations, sizes.shape, "iu").astype(np.int64) - start
        outside = (index < 0) | (index >= sizes)
        if outside.any():
            _, row, column, layer = np.argwhere(outside)[0].tolist()
            found = int((index + start)[outside][0])
            raise ValueError(f"{found} in layer {layer} of cell ({row}, {column})")
        return index.astype(dtype)

    return ObsSpec(shape=sizes.shape, dtype=dtype, kind="grid", layers=layers), convert
