"""Checkpoints on disk: atomic, checksummed, byte-deterministic, without pickle.

A checkpoint is a folder of two files: `tensors.safetensors` and `meta.json`, which carries the
checksums of both. The tensor file has no metadata of its own, because safetensors writes several
metadata keys in random order (https://github.com/huggingface/safetensors/issues/584).

Replacing a checkpoint moves the old folder aside (`.NAME.old`), moves the finished new one in and
then deletes the old; `read` looks aside as well, so that a kill at any moment leaves one readable.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamer.types import CheckpointError

FORMAT = 1
TENSORS, META = "tensors.safetensors", "meta.json"
KEEP = 2
STEP_FOLDER = re.compile(r"step-(\d{9,})|\.step-(\d{9,})\.old")

log = logging.getLogger(__name__)


def write(
    directory: Path, tensors: Mapping[str, Tensor | np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Make `directory` contain exactly one checkpoint, atomically and synced to the disk.

    Args:
        directory: Folder to create or replace; one with files of others in it is refused.
        tensors: Name -> tensor or array, any device, layout or shared storage.
        meta: What JSON can hold, finite numbers only; written with sorted keys.

    Raises:
        CheckpointError: if the folder cannot be written; what was there before stays readable.
        TypeError, ValueError: if `meta` is not JSON.
    """
    directory = Path(directory).resolve()
    meta_text = _canonical(meta)
    new, old = _aside(directory, "new"), _aside(directory, "old")
    try:
        _refuse_foreign(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        _remove(new)
        new.mkdir()
        _fill(new, tensors, meta_text)
        _swap(directory, new, old)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(new, ignore_errors=True)  # best effort, on a disk that already failed
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise CheckpointError(f"{directory}: cannot write the checkpoint: {error}") from error


def read(
    directory: Path, device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load and verify a checkpoint: its tensors on `device`, and its metadata.

    Raises:
        CheckpointError: if it is missing, damaged or of an unknown format.
    """
    directory = Path(directory).resolve()
    folder = directory
    if not directory.exists() and _aside(directory, "old").exists():
        folder = _aside(directory, "old")  # killed between the two renames of a replacement
    if not folder.is_dir():
        raise CheckpointError(f"{directory}: no checkpoint here")
    document = _read_document(folder)
    try:
        if _sha256(folder / TENSORS) != document.get("sha256"):
            raise CheckpointError(f"{folder / TENSORS}: damaged: the checksum does not match")
        return load_file(folder / TENSORS, device=str(device)), document["meta"]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / TENSORS}: cannot be read: {error}") from error


def write_step(
    root: Path, step: int, tensors: Mapping[str, Tensor | np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Write `root/step-<9 digits>` and delete all but the two newest up to `step`.

    Checkpoints of later steps are deleted too: a run that writes an earlier step was resumed
    before them because they could not be read.

    Raises:
        CheckpointError: if the folder cannot be written.
    """
    root = Path(root)
    write(root / f"step-{step:09d}", tensors, meta)
    kept = [found for found in _steps(root) if found <= step][:KEEP]
    try:
        for folder in sorted(root.iterdir()):
            match = re.fullmatch(r"\.?step-(\d{9,})(\.new|\.old)?", folder.name)
            if match and (folder.name.startswith(".") or int(match[1]) not in kept):
                _remove(folder)
    except OSError as error:
        raise CheckpointError(f"{root}: cannot delete old checkpoints: {error}") from error


def read_latest(
    root: Path, device: str | torch.device = "cpu"
) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Load the newest readable checkpoint that `write_step` left in `root`.

    Returns:
        (step, tensors, meta), or None if there is no checkpoint at all. A damaged one is skipped
        with a warning.

    Raises:
        CheckpointError: if there are checkpoints and none of them can be read.
    """
    root = Path(root)
    reason = ""
    for step in _steps(root):
        try:
            return step, *read(root / f"step-{step:09d}", device)
        except CheckpointError as error:
            reason = str(error)
            log.warning("Skipping a damaged checkpoint: %s", reason)
    if reason:
        raise CheckpointError(f"{root}: none can be read; delete it to start anew: {reason}")
    return None


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


def _encode(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(node, Tensor):
        return {"tensor": _store(path, node, tensors)}
    if isinstance(node, np.ndarray):
        return {"array": _store(path, _as_tensor(node), tensors)}
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


def _join(path: str, key: str | int) -> str:
    if type(key) not in (str, int):
        raise TypeError(f"{path}: a checkpoint cannot hold the key {key!r}")
    return f"{path}.{key}" if path else str(key)


def _store(path: str, tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    """Add the tensor under a free name: {"a.b": x, "a": {"b": y}} has the path a.b twice."""
    name, copy = path, 1
    while name in tensors or name in ("", "__metadata__"):
        copy += 1
        name = f"{path}~{copy}"
    tensors[name] = tensor
    return name


def _as_tensor(value: np.ndarray) -> Tensor:
    # The copy makes read-only and byte-swapped arrays acceptable to torch.
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _saveable(tensors: Mapping[str, Tensor | np.ndarray]) -> Iterator[tuple[str, Tensor]]:
    """Yield contiguous CPU tensors that own their storage alone, as safetensors demands."""
    seen: set[int] = set()
    for name, value in tensors.items():
        tensor = _as_tensor(value) if isinstance(value, np.ndarray) else value.detach()
        tensor = tensor.cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage.data_ptr())
        yield name, tensor


def _fill(folder: Path, tensors: Mapping[str, Tensor | np.ndarray], meta_text: str) -> None:
    save_file(dict(_saveable(tensors)), folder / TENSORS)
    document = {
        "format": FORMAT,
        "sha256": _sha256(folder / TENSORS),
        "meta": json.loads(meta_text),
        "meta_sha256": hashlib.sha256(meta_text.encode()).hexdigest(),
    }
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False) + "\n"
    (folder / META).write_text(text, encoding="ascii", newline="\n")
    shutil.copymode(folder / META, folder / TENSORS)  # safetensors writes for the owner alone
    for path in (folder / TENSORS, folder / META, folder):
        _sync(path)


def _swap(directory: Path, new: Path, old: Path) -> None:
    if directory.exists():
        _remove(old)
        directory.rename(old)
    new.rename(directory)
    _sync(directory.parent)
    _remove(old)


def _refuse_foreign(directory: Path) -> None:
    """Never delete what is not a checkpoint, e.g. when a home folder is given by mistake."""
    if directory.is_dir():
        foreign = sorted({path.name for path in directory.iterdir()} - {TENSORS, META})
        if foreign:
            raise CheckpointError(f"{directory}: holds {foreign[0]!r}, so it is not replaced")
    elif directory.exists():
        raise NotADirectoryError("it is a file")


def _read_document(folder: Path) -> dict[str, Any]:
    try:
        document = json.loads((folder / META).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / META}: cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise CheckpointError(f"{folder / META}: found format {found!r}; allowed: {FORMAT}")
    digest = hashlib.sha256(_canonical(document.get("meta")).encode()).hexdigest()
    if digest != document.get("meta_sha256"):
        raise CheckpointError(f"{folder / META}: damaged: the checksum does not match")
    return document


def _steps(root: Path) -> list[int]:
    """Steps with a checkpoint in `root`, newest first."""
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    matches = [STEP_FOLDER.fullmatch(name) for name in names]
    return sorted({int(m[1] or m[2]) for m in matches if m}, reverse=True)


def _aside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f".{directory.name}.{suffix}")


def _canonical(meta: Any) -> str:  # noqa: ANN401
    return json.dumps(meta, sort_keys=True, allow_nan=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
