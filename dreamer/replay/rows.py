"""What a row must look like, and the reward summed along runs of rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dreamer.replay.rings import Field
from dreamer.types import DataError, EnvSpec

_FLAGS = ("is_first", "is_last", "is_terminal")
_FIXED = {"reward": "float32", **dict.fromkeys(_FLAGS, "bool")}


def row_fields(spec: EnvSpec) -> dict[str, Field]:
    """Return key -> (shape, dtype) of one row of an environment, observations first."""
    fields: dict[str, Field] = {key: (tuple(o.shape), o.dtype) for key, o in spec.obs.items()}
    fields |= {key: ((), dtype) for key, dtype in _FIXED.items()}
    return fields | {"action": ((spec.action.dim,), "float32")}


def check_fields(fields: Mapping[str, Field]) -> None:
    """Raise `DataError` unless reward, action and flags are among the fields as rows have them."""
    for key, dtype in _FIXED.items():
        if key not in fields or (tuple(fields[key][0]), fields[key][1]) != ((), dtype):
            raise DataError(f"replay row key {key!r}: {fields.get(key)}, needed {((), dtype)}")
    shape, dtype = fields.get("action", ((), ""))
    if len(shape) != 1 or dtype != "float32":
        raise DataError(f"replay row key 'action': {shape, dtype}, needed ((A,), 'float32')")


def check_rows(
    what: str, rows: Mapping[str, np.ndarray], fields: Mapping[str, Field], lead: tuple[int, ...]
) -> None:
    """Raise `DataError` unless `rows` holds exactly `fields`, every array shaped (*lead, *).

    Nothing is converted: a float64 image would double the size of a buffer without a word.
    """
    if rows.keys() != fields.keys():
        raise DataError(f"{what} keys: found {sorted(rows)}, needed {sorted(fields)}")
    for key, (shape, dtype) in fields.items():
        array = rows[key]
        if array.dtype != np.dtype(dtype) or array.shape != (*lead, *shape):
            raise DataError(
                f"{what} key {key!r}: found {array.dtype.name} {array.shape}, "
                f"needed {np.dtype(dtype).name} {(*lead, *shape)}"
            )


def running_return(rows: Mapping[str, np.ndarray], before: float) -> np.ndarray:
    """Sum rewards from the start of each episode, in the order in which single rows would be added.

    Args:
        rows: A run of rows, arrays (L, *).
        before: Sum up to the row before the run.

    Returns:
        (L,) float64.
    """
    starts = np.flatnonzero(rows["is_first"])
    parts = np.split(rows["reward"].astype(np.float64), starts)
    sums = [np.cumsum(np.concatenate([[before], parts[0]]))[1:], *map(np.cumsum, parts[1:])]
    return np.concatenate(sums)
