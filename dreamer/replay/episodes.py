"""The dataset of episodes on disk: deterministic npz shards and a manifest with checksums.

The same episodes give the same bytes: nothing in the files depends on time, host or path. A dataset
is written beside its destination and renamed into place, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.replay.rows import check_rows, row_fields
from dreamer.types import DataError, EnvSpec, Rows

_FORMAT = 1
_MANIFEST = "manifest.json"
_PREFIX = "row."  # in an archive, so that no observation key can clash with `lengths`


@dataclass(frozen=True, kw_only=True)
class Episode:
    """The rows of one episode, from the row of the reset to the last one.

    Attributes:
        stream: Index of the environment that it came from.
        rows: key -> (L, *): observations, `action`, `reward` and the flags.
    """

    stream: int
    rows: Rows


def split_episodes(stream: Iterable[Rows]) -> Iterator[Episode]:
    """Cut the rows of a vector environment into episodes, in the order in which they end.

    An episode that is still running when the rows end, or that is broken off by a reset, is kept:
    its final row becomes last but not terminal, so that its value is bootstrapped. The action of
    every last row is zero.

    Args:
        stream: Per step, key -> (num_envs, *).

    Yields:
        Whole episodes; the running ones at the end in the order of the environments.
    """
    running: dict[int, list[Rows]] = {}
    for rows in stream:
        for env in range(len(rows["is_first"])):
            if rows["is_first"][env] and running.get(env):
                yield _close(env, running.pop(env))
            # Copies, because a vector environment may reuse its arrays for the next step.
            running.setdefault(env, []).append({k: v[env].copy() for k, v in rows.items()})
            if rows["is_last"][env]:
                yield _close(env, running.pop(env))
    for env in sorted(running):
        yield _close(env, running[env])


def write_episodes(
    directory: Path, episodes: Iterable[Episode], spec: EnvSpec, shard_bytes: int
) -> None:
    """Write a dataset, replacing the one that is there.

    Args:
        directory: Becomes `episodes-00000.npz`, ... and `manifest.json`.
        episodes: At least one episode with rows as `spec` describes them.
        spec: Of the environment; stored in the manifest.
        shard_bytes: Uncompressed bytes after which a new shard is begun.

    Raises:
        DataError: There is no episode, one does not match `spec`, or the disk refuses.
    """
    partial = directory.with_name(f"{directory.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        shards = [
            _write_shard(partial / f"episodes-{number:05d}.npz", shard, spec)
            for number, shard in enumerate(_fill_shards(episodes, shard_bytes))
        ]
        if not shards:
            raise DataError(f"{directory}: no episode to write")
        (partial / _MANIFEST).write_bytes(_manifest_bytes(shards, spec))
        _replace(directory, partial)
    except OSError as error:
        raise DataError(f"{directory}: cannot write episodes: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_episodes(directory: Path) -> tuple[EnvSpec, Iterator[Episode]]:
    """Open a dataset.

    Args:
        directory: Written by `write_episodes`.

    Returns:
        The environment's spec, and the episodes in the order written; the checksum of a shard is
        verified when the iteration reaches it.

    Raises:
        DataError: The manifest or a shard is missing, damaged, or does not match the spec.
    """
    manifest = _read_manifest(directory / _MANIFEST)
    for shard in manifest["shards"]:
        if not (directory / shard["file"]).is_file():
            raise DataError(f"{directory / shard['file']}: episode shard is missing")
    spec = EnvSpec.from_json(manifest["spec"])
    return spec, _read_shards(directory, manifest["shards"], spec)


def _close(stream: int, rows: list[Rows]) -> Episode:
    joined = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    if not joined["is_last"][-1]:
        joined["is_last"][-1], joined["is_terminal"][-1] = True, False
    joined["action"][-1] = 0
    return Episode(stream=stream, rows=joined)


def _fill_shards(episodes: Iterable[Episode], shard_bytes: int) -> Iterator[list[Episode]]:
    shard: list[Episode] = []
    size = 0
    for episode in episodes:
        shard.append(episode)
        size += sum(array.nbytes for array in episode.rows.values())
        if size >= shard_bytes:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _write_shard(path: Path, shard: list[Episode], spec: EnvSpec) -> dict[str, Any]:
    """Write whole episodes to one archive and return its entry in the manifest."""
    fields = row_fields(spec)
    for episode in shard:
        length = (len(episode.rows.get("reward", ())),)
        check_rows(f"{path.name}: episode", episode.rows, fields, length)
    rows = {key: np.concatenate([episode.rows[key] for episode in shard]) for key in sorted(fields)}
    lengths = np.array([len(episode.rows["reward"]) for episode in shard], np.int64)
    streams = np.array([episode.stream for episode in shard], np.int64)
    arrays = {f"{_PREFIX}{key}": array for key, array in rows.items()}
    arrays |= {"lengths": lengths, "streams": streams}
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, **arrays)
    path.write_bytes(archive.getbuffer())
    starts = np.cumsum(lengths) - lengths
    return {
        "file": path.name,
        "sha256": hashlib.sha256(archive.getbuffer()).hexdigest(),
        "episodes": len(shard),
        "rows": int(lengths.sum()),
        "steps": int(lengths.sum() - rows["is_first"].sum()),
        "return_sum": float(np.add.reduceat(rows["reward"].astype(np.float64), starts).sum()),
    }


def _manifest_bytes(shards: list[dict[str, Any]], spec: EnvSpec) -> bytes:
    totals = {key: sum(shard[key] for shard in shards) for key in ("episodes", "rows", "steps")}
    manifest = {
        "format": _FORMAT,
        "spec": spec.to_json(),
        "shards": [{k: v for k, v in shard.items() if k != "return_sum"} for shard in shards],
        **totals,
        "return_mean": sum(shard["return_sum"] for shard in shards) / totals["episodes"],
    }
    return _canonical(manifest | {"sha256": hashlib.sha256(_canonical(manifest)).hexdigest()})


def _canonical(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2) + "\n").encode("ascii")


def _replace(directory: Path, partial: Path) -> None:
    """Put `partial` in the place of `directory`; a folder cannot be renamed over a filled one."""
    old = directory.with_name(f"{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    partial.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        checksum = manifest.pop("sha256")
    except FileNotFoundError as error:
        raise DataError(f"{path}: manifest of the episodes is missing") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: manifest of the episodes is damaged: {error!r}") from error
    if hashlib.sha256(_canonical(manifest)).hexdigest() != checksum:
        raise DataError(f"{path}: manifest of the episodes is damaged: its checksum differs")
    if manifest["format"] != _FORMAT:
        raise DataError(f"{path}: format {manifest['format']!r}, needed {_FORMAT}")
    return manifest


def _read_shards(directory: Path, shards: list[dict[str, Any]], spec: EnvSpec) -> Iterator[Episode]:
    fields = row_fields(spec)
    for shard in shards:
        path = directory / shard["file"]
        rows, lengths, streams = _read_shard(path, shard["sha256"])
        check_rows(f"{path}: episode", rows, fields, (int(lengths.sum()),))
        ends = np.cumsum(lengths)
        for begin, end, stream in zip(ends - lengths, ends, streams, strict=True):
            part = {key: array[begin:end] for key, array in rows.items()}
            yield Episode(stream=int(stream), rows=part)


def _read_shard(path: Path, checksum: str) -> tuple[Rows, np.ndarray, np.ndarray]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: episode shard is missing: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != checksum:
        raise DataError(f"{path}: episode shard is damaged: its checksum differs")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = dict(archive)
        lengths, streams = arrays.pop("lengths"), arrays.pop("streams")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: episode shard cannot be read: {error!r}") from error
    return {key.removeprefix(_PREFIX): array for key, array in arrays.items()}, lengths, streams
