"""The replay buffer: rows in, overlapping sequences out, exact after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.replay.rings import Field, RingStore
from dreamer.replay.rows import check_fields, check_rows, running_return
from dreamer.replay.sampling import (
    Sample,
    count_starts,
    draw_windows,
    read_windows,
    slots_of,
    split_ids,
)
from dreamer.replay.undo import RingUndo
from dreamer.types import ConfigError, DataError, Rows, check_range

_FORMAT = 1

_RETURN = "return"  # reward summed since the start of the episode, kept per row for the statistics


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Size of the buffer and of what is drawn from it.

    Attributes:
        capacity: Rows over all environments.
        batch_size: Sequences per sample, B.
        seq_len: Rows per sequence, T.
    """

    capacity: int
    batch_size: int
    seq_len: int

    def __post_init__(self) -> None:
        check_range("capacity", self.capacity, 2, 1e12)
        check_range("batch_size", self.batch_size, 1, 65536)
        check_range("seq_len", self.seq_len, 1, 65536)


class SequenceReplayBuffer:
    """Rings of rows, one per environment, sampled as sequences that start at every offset.

    Rows keep their dtypes. Each row carries the latent that the model had there, refreshed by
    `write_back`; a sample brings the latent of the row before it as its initial state. With a
    folder the rings are memory-mapped files and the buffer can return to its last `checkpoint`
    byte for byte after the process died at any moment.

    Args:
        config: Sizes.
        arrays: key -> (shape, dtype) of one row: observations, `reward` float32, `action` (A,)
            float32 and the flags `is_first`, `is_last`, `is_terminal` bool.
        latents: key -> (shape, dtype) of one latent, e.g. `deter` float16, `stoch` uint8 indices.
        num_envs: Number of rings; each holds `capacity // num_envs` rows.
        directory: Folder for the files (old ones there are replaced), or None for RAM.

    Raises:
        ConfigError: The rings would never be `ready`.
        DataError: `arrays` lacks a key, or the folder cannot be used (see `RingStore`).
    """

    def __init__(
        self,
        config: ReplayConfig,
        arrays: Mapping[str, Field],
        latents: Mapping[str, Field],
        num_envs: int,
        directory: Path | None,
        *,
        _meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self._num_envs, self._ring = num_envs, config.capacity // num_envs
        if num_envs * (self._ring - config.seq_len) < config.batch_size:
            need = config.seq_len + -(-config.batch_size // num_envs)
            allowed = f"at least {num_envs * need} rows, {need} for each of {num_envs} environments"
            raise ConfigError("capacity", config.capacity, allowed)
        check_fields(arrays)
        self._arrays, self._latents = dict(arrays), dict(latents)
        fields: dict[str, Field] = {f"row.{key}": field for key, field in arrays.items()}
        fields |= {f"latent.{key}": field for key, field in latents.items()}
        fields |= {_RETURN: ((), "float64")}
        self._heads = np.zeros(num_envs, np.int64)
        self._episodes, self._return_sum, self._sample_age = 0, 0.0, 0.0
        self._store = RingStore(fields, num_envs, self._ring, directory, create=_meta is None)
        self._undo: RingUndo | None = None
        if directory is not None:
            self._undo = RingUndo(self._store, [f"latent.{key}" for key in latents], directory)
            self._start(self._undo, _meta)

    @classmethod
    def restore(
        cls,
        config: ReplayConfig,
        arrays: Mapping[str, Field],
        latents: Mapping[str, Field],
        num_envs: int,
        directory: Path,
        meta: Mapping[str, Any],
    ) -> SequenceReplayBuffer:
        """Open the files of a buffer as they were when `checkpoint` returned `meta`.

        Raises:
            DataError: A file is missing or damaged, or belongs to another buffer or checkpoint.
        """
        return cls(config, arrays, latents, num_envs, directory, _meta=meta)

    @property
    def num_rows(self) -> int:
        """Rows stored now."""
        return int(self._stored.sum())

    @property
    def ready(self) -> bool:
        """Whether there are at least as many different windows as a batch has sequences."""
        starts = count_starts(self._heads, self._ring, self.config.seq_len)
        return bool(starts.sum() >= self.config.batch_size)

    def add(self, rows: Rows, latents: Rows) -> None:
        """Append one row per environment.

        Args:
            rows: key -> (num_envs, *), exactly the keys and dtypes of `arrays`.
            latents: key -> (num_envs, *), exactly the keys and dtypes of `latents`.

        Raises:
            DataError: A key, shape or dtype differs, or the journal cannot be written.
        """
        check_rows("replay row", rows, self._arrays, (self._num_envs,))
        check_rows("replay latent", latents, self._latents, (self._num_envs,))
        env = np.arange(self._num_envs)
        before = np.where(rows["is_first"], 0.0, self._return_before(env))
        self._append(env, self._heads, rows, latents, before + rows["reward"])
        self._heads += 1

    def extend(self, env: int, rows: Rows) -> None:
        """Append a run of rows, e.g. a stored episode, to one ring; their latents are zero.

        Args:
            env: Index of the ring.
            rows: key -> (L, *), exactly the keys and dtypes of `arrays`.

        Raises:
            DataError: There is no such ring, a key, shape or dtype differs, or the journal cannot
                be written.
        """
        if not 0 <= env < self._num_envs:
            raise DataError(f"replay ring {env}: allowed 0 to {self._num_envs - 1}")
        check_rows("replay row", rows, self._arrays, (len(rows.get("reward", ())),))
        for begin in range(0, len(rows["reward"]), self._ring):
            part = {key: value[begin : begin + self._ring] for key, value in rows.items()}
            count, rings = len(part["reward"]), np.full(len(part["reward"]), env)
            returns = running_return(part, float(self._return_before(rings[:1])[0]))
            zeros = {k: np.zeros((count, *s), d) for k, (s, d) in self._latents.items()}
            self._append(rings, self._heads[env] + np.arange(count), part, zeros, returns)
            self._heads[env] += count

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw a batch of sequences, uniformly over all windows that are stored whole.

        Raises:
            DataError: The buffer is not `ready`.
        """
        if not self.ready:
            raise DataError(f"replay buffer has {self.num_rows} rows, too few to sample from")
        heads, ring, T = self._heads, self._ring, self.config.seq_len
        env, start = draw_windows(rng, heads, ring, T, self.config.batch_size)
        sample = read_windows(self._store.flat, heads, ring, T, env, start)
        self._sample_age = float(sample.age.mean())
        return sample

    def write_back(self, rows: np.ndarray, latents: Rows) -> None:
        """Refresh the latents of sampled rows; rows overwritten since then are skipped.

        Args:
            rows: (B, T) ids of `Sample.rows`. Where one occurs twice the last one counts.
            latents: key -> (B, T, *), exactly the keys and dtypes of `latents`.

        Raises:
            DataError: A key, shape or dtype differs, an id was never handed out, or the journal
                cannot be written.
        """
        check_rows("replay latent", latents, self._latents, rows.shape)
        ids, position = np.unique(rows.ravel()[::-1], return_index=True)
        position = rows.size - 1 - position
        env, number = split_ids(ids)
        if len(ids) and (env.max() >= self._num_envs or (number >= self._heads[env]).any()):
            raise DataError("replay row ids: found ids of rows that were never stored")
        stored = number >= self._heads[env] - self._ring
        slots, position = slots_of(env, number, self._ring)[stored], position[stored]
        if self._undo is not None:
            self._undo.before_refresh(slots)
        for key, (shape, _) in self._latents.items():
            values = latents[key].reshape(-1, *shape)
            self._store.flat[f"latent.{key}"][slots] = values.take(position, axis=0)

    def stats(self) -> dict[str, float]:
        """Describe what is stored; an episode counts as long as its last row is there."""
        return {
            "replay/steps": float(self.num_rows),
            "replay/episodes": float(self._episodes),
            "replay/return_mean": self._return_sum / max(self._episodes, 1),
            "replay/sample_age": self._sample_age,
            "replay/bytes": float(self._store.nbytes),
        }

    def checkpoint(self, *, sync: bool) -> dict[str, Any]:
        """Start a new journal generation and describe the buffer as it is now.

        Once the result is stored durably, call `discard_before(result["generation"])`.

        Args:
            sync: Wait until the rows are on the disk, and store their checksums, so that `restore`
                finds out whether a power failure took later undo records away. Reads every row
                stored, about a second per GB.

        Returns:
            What `restore` needs, ready for JSON.

        Raises:
            DataError: The buffer has no folder, or it cannot be written.
        """
        if self._undo is None:
            raise DataError("replay buffer has no folder: it cannot be checkpointed")
        self._undo.begin(self._heads)
        if sync:
            self._undo.sync()
        return {
            "format": _FORMAT,
            "layout": self._store.layout,
            "generation": self._undo.generation,
            "checksums": self._store.checksums(self._stored) if sync else None,
            "heads": self._heads.tolist(),
            "episodes": self._episodes,
            "return_sum": self._return_sum,
            "sample_age": self._sample_age,
        }

    def discard_before(self, generation: int) -> None:
        """Give up returning to checkpoints older than `generation`."""
        if self._undo is not None:
            self._undo.discard_before(generation)

    @property
    def _stored(self) -> np.ndarray:
        return np.minimum(self._heads, self._ring)

    def _start(self, undo: RingUndo, meta: Mapping[str, Any] | None) -> None:
        if meta is None:
            undo.discard_all()
            undo.begin(self._heads)
            return
        if (meta["format"], meta["layout"]) != (_FORMAT, self._store.layout):
            raise DataError("replay checkpoint: written for another layout of rows")
        self._heads[:] = meta["heads"]
        self._episodes, self._return_sum = meta["episodes"], meta["return_sum"]
        self._sample_age = meta["sample_age"]
        undo.rollback(meta["generation"], self._heads)
        if meta["checksums"] is not None:
            self._verify(meta["checksums"])

    def _verify(self, checksums: Mapping[str, int]) -> None:
        found = self._store.checksums(self._stored)
        if names := sorted(name for name in found if found[name] != checksums[name]):
            raise DataError(f"replay rings {names}: rows differ from those of the checkpoint")

    def _append(
        self, env: np.ndarray, number: np.ndarray, rows: Rows, latents: Rows, returns: np.ndarray
    ) -> None:
        slots, replaced = slots_of(env, number, self._ring), number - self._ring
        if self._undo is not None:
            self._undo.before_append(slots, env, replaced)
        flat = self._store.flat
        gone = slots[replaced >= 0]
        gone = gone[flat["row.is_last"][gone]]
        self._episodes += int(rows["is_last"].sum()) - len(gone)
        change = float(returns[rows["is_last"]].sum() - flat[_RETURN][gone].sum())
        # From zero again with no episode left, so that rounding cannot pile up for ever.
        self._return_sum = self._return_sum + change if self._episodes else 0.0
        for key in self._arrays:
            flat[f"row.{key}"][slots] = rows[key]
        for key in self._latents:
            flat[f"latent.{key}"][slots] = latents[key]
        flat[_RETURN][slots] = returns

    def _return_before(self, env: np.ndarray) -> np.ndarray:
        """Return the reward summed up to the newest row of each ring, 0 for an empty ring."""
        head = self._heads[env]
        newest = self._store.flat[_RETURN][slots_of(env, head - 1, self._ring)]
        return np.where(head > 0, newest, 0.0)
