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

from dreamer.nested_state import as_tensor, flatten, unflatten
from dreamer.types import CheckpointError

__all__ = ["write", "read", "write_step", "read_latest", "flatten", "unflatten"]

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


def _saveable(tensors: Mapping[str, Tensor | np.ndarray]) -> Iterator[tuple[str, Tensor]]:
    """Yield contiguous CPU tensors that own their storage alone, as safetensors demands."""
    seen: set[int] = set()
    for name, value in tensors.items():
        tensor = as_tensor(value) if isinstance(value, np.ndarray) else value.detach()
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
