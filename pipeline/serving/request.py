"""What clients send, read as rows; whatever does not fit is named with what would have.

An observation comes as nested lists of numbers, an array, or, where rows hold bytes, as base64 of
them in C order; a text comes as itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamer.types import ConfigError, EnvSpec, ObsSpec, Rows

STATE = "recurrent_state"
MOST_ROWS = 4096
KINDS = {"float32": "fiu", "uint8": "iu", "int32": "iu"}  # dtype of rows -> kinds of numbers


def read_inputs(spec: EnvSpec, inputs: Mapping[str, Any]) -> tuple[Rows, list[Any]]:
    """Check a request of n rows.

    Args:
        spec: Of the agent. inputs: Observation keys and `recurrent_state`, n entries each.

    Returns:
        Observations, (n, *shape) of the dtypes of `spec`, and the n states as they came.

    Raises:
        ConfigError: A key is missing or unknown, or its value is not what `spec` says.
    """
    wanted = [*spec.obs, STATE]
    if not isinstance(inputs, Mapping) or inputs.keys() != set(wanted):
        found = sorted(map(str, inputs)) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ConfigError("inputs", found, f"an object with the keys {sorted(wanted)}")
    states = inputs[STATE]
    states = states.tolist() if isinstance(states, np.ndarray) else states
    if not isinstance(states, list) or not 1 <= len(states) <= MOST_ROWS:
        allowed = f"a list of 1 to {MOST_ROWS} texts, one per row"
        raise ConfigError(f"inputs.{STATE}", _brief(states), allowed)
    return {key: _read(key, spec.obs[key], inputs[key], len(states)) for key in spec.obs}, states


def example_inputs(spec: EnvSpec) -> dict[str, Any]:
    """The first request of an episode: one row of zeros, or empty texts, in arrays."""
    inputs: dict[str, Any] = {}
    for key, obs in spec.obs.items():
        row = "" if obs.kind == "text" else np.zeros(obs.shape, obs.dtype).tolist()
        inputs[key] = np.array([row], obs.dtype if obs.dtype == "float32" else object)
    return inputs | {STATE: np.array([""], object)}


def _read(key: str, spec: ObsSpec, values: Any, length: int) -> np.ndarray:  # noqa: ANN401
    """One observation key of all rows: (length, *shape)."""
    name, shape = f"inputs.{key}", (length, *spec.shape)
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        values = values.tolist()
    if isinstance(values, np.ndarray) and values.dtype.kind in "SU":
        values = values.tolist()
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        values = _from_texts(name, spec, values)
    try:
        array = np.asarray(values)
    except ValueError:
        raise ConfigError(name, "rows of different shapes", _allowed(spec, shape)) from None
    if array.shape != shape or array.dtype.kind not in KINDS[spec.dtype]:
        found = f"shape {array.shape} of {array.dtype.name}"
        raise ConfigError(name, found, _allowed(spec, shape))
    return _in_range(name, spec, array)


def _from_texts(name: str, spec: ObsSpec, values: Sequence[str]) -> np.ndarray:
    """Texts, or bytes as base64: (n, *shape) uint8."""
    if spec.dtype != "uint8":
        raise ConfigError(name, _brief(values[0]), f"numbers, as {spec.dtype}")
    size, rows = int(np.prod(spec.shape)), []
    for value in values:
        if spec.kind == "text":
            try:
                code = value.encode()
            except UnicodeEncodeError:  # half a character, which JSON can say
                code = b"\0"
            allowed = f"texts of at most {size} bytes without NUL"
            fits = len(code) <= size and 0 not in code
            code = code.ljust(size, b"\0")
        else:
            allowed = f"base64 of {size} bytes, or lists of numbers"
            try:
                code = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                code = b""
            fits = len(code) == size
        if not fits:
            raise ConfigError(name, _brief(value), allowed)
        rows.append(np.frombuffer(code, np.uint8).reshape(spec.shape))
    return np.stack(rows)


def _in_range(name: str, spec: ObsSpec, array: np.ndarray) -> np.ndarray:
    """The same numbers in the dtype of rows."""
    if spec.dtype == "float32":
        with np.errstate(over="ignore"):  # becomes infinity, which is refused in words
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise ConfigError(name, "NaN or infinity", "finite numbers, as float32")
        return array
    low, high = _bounds(spec)
    outside = (array < low) | (array > high)
    if outside.any():
        allowed = f"{low} to {np.unique(high).tolist() if np.ndim(high) else high}"
        raise ConfigError(name, array[outside][0].item(), f"whole numbers, {allowed}")
    return array.astype(spec.dtype)


def _bounds(spec: ObsSpec) -> tuple[int, int | np.ndarray]:
    """Least and largest number; the largest one of a grid per layer."""
    if spec.layers:
        return 0, np.array(spec.layers) - 1
    if spec.kind == "flag":
        return 0, 1
    if spec.classes:
        return 0, spec.classes - 1
    info = np.iinfo(spec.dtype)
    return int(info.min), int(info.max)


def _allowed(spec: ObsSpec, shape: tuple[int, ...]) -> str:
    form = {"text": " or texts", "flag": ""}.get(spec.kind, "")
    if not form and spec.dtype == "uint8":
        form = " or base64 of a row's bytes"
    return f"shape {shape} of {spec.dtype}{form}"


def _brief(value: Any) -> str:  # noqa: ANN401
    """The beginning of what was found."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
