"""A nested state, such as that of an optimiser, as named tensors and JSON, and back exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamer.types import CheckpointError


def flatten(state: Any) -> tuple[dict[str, Tensor], Any]:  # noqa: ANN401
    """Split a nested state into named tensors and a JSON description.

    Args:
        state: Dicts (string or integer keys), lists and tuples of tensors, numpy arrays, strings,
            numbers, booleans and None.

    Returns:
        tensors, by their dotted path, and the JSON value from which `unflatten` rebuilds the state
        exactly: types, order of keys, 0-d shapes, infinities and NaN included.

    Raises:
        TypeError: if the state holds anything else.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _encode(state, "", tensors)


def unflatten(tensors: Mapping[str, Tensor], meta: Any) -> Any:  # noqa: ANN401
    """Rebuild what `flatten` took apart; tensors keep their device, arrays come back as numpy.

    Raises:
        CheckpointError: if a tensor is missing or `meta` does not come from `flatten`.
    """
    match meta:
        case {"tensor": name} | {"array": name} if name not in tensors:
            raise CheckpointError(f"the checkpoint has no tensor {name!r}")
        case {"tensor": name}:
            return tensors[name]
        case {"array": name}:
            return tensors[name].cpu().numpy()
        case {"float": text}:
            return float(text)
        case {"dict": pairs}:
            return {key: unflatten(tensors, item) for key, item in pairs}
        case {"list": items}:
            return [unflatten(tensors, item) for item in items]
        case {"tuple": items}:
            return tuple(unflatten(tensors, item) for item in items)
        case dict() | list():
            raise CheckpointError(f"the checkpoint holds no state that is known: {meta!s:.80}")
    return meta


def as_tensor(value: np.ndarray) -> Tensor:
    """Copy an array of any layout or byte order into a tensor."""
    # The copy makes read-only and byte-swapped arrays acceptable to torch.
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _encode(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(node, Tensor):
        return {"tensor": _store(path, node, tensors)}
    if isinstance(node, np.ndarray):
        return {"array": _store(path, as_tensor(node), tensors)}
    if type(node) is float and not math.isfinite(node):
        return {"float": repr(node)}  # JSON has no infinities
    if node is None or type(node) in (bool, int, float, str):
        return node
    if isinstance(node, Mapping):
        # Pairs, not an object: the order of keys and integer keys survive.
        return {"dict": [[key, _encode(node[key], _join(path, key), tensors)] for key in node]}
    if type(node) in (list, tuple):
        items = [_encode(item, _join(path, index), tensors) for index, item in enumerate(node)]
        return {type(node).__name__: items}
    raise TypeError(f"{path}: a checkpoint cannot hold {type(node).__name__}")


def _store(path: str, tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    """Add the tensor under a free name: {"a.b": x, "a": {"b": y}} has the path a.b twice."""
    name, copy = path, 1
    while name in tensors or name in ("", "__metadata__"):
        copy += 1
        name = f"{path}~{copy}"
    tensors[name] = tensor
    return name


def _join(path: str, key: str | int) -> str:
    if type(key) not in (str, int):
        raise TypeError(f"{path}: a checkpoint cannot hold the key {key!r}")
    return f"{path}.{key}" if path else str(key)
