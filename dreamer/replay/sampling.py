"""Which windows of the rings are trained on, and how a window becomes a sequence.

Rows of a ring are numbered from 0 and never renumbered; `heads` is the number of the next row. A
row id carries ring and number, so that it stays unique after its slot has been used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_NUMBER_BITS = 40
_NOT_OBS = {"action", "reward", "is_first", "is_last", "is_terminal"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Replayed sequences as numpy arrays that the caller owns.

    Attributes:
        obs: key -> (B, T, *), original dtypes.
        action: (B, T, A) taken after seeing the observation.
        prev_action: (B, T, A) the action that led to the row, zero where `is_first`.
        reward: (B, T) received on arriving at the observation.
        is_first: (B, T) bool.
        is_last: (B, T) bool; also set where an episode was abandoned, i.e. the next row is a first.
        is_terminal: (B, T) bool.
        latents: key -> (B, *) of the row before the sequence.
        rows: (B, T) int64 ids for `SequenceReplayBuffer.write_back`; neighbours differ by one.
        age: (B,) int64 rows that came into the ring after the sequence.
    """

    obs: Mapping[str, np.ndarray]
    action: np.ndarray
    prev_action: np.ndarray
    reward: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    is_terminal: np.ndarray
    latents: Mapping[str, np.ndarray]
    rows: np.ndarray
    age: np.ndarray


def count_starts(heads: np.ndarray, ring: int, seq_len: int) -> np.ndarray:
    """Return (E,) how many windows each ring offers: `seq_len` rows and the one before them."""
    return np.maximum(np.minimum(heads, ring) - seq_len, 0)


def draw_windows(
    rng: np.random.Generator, heads: np.ndarray, ring: int, seq_len: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows uniformly, with replacement, over all valid starts of all rings.

    Args:
        rng: Source of the draw; one call of `integers` whatever the sizes.
        heads: (E,) number of the next row of each ring.
        ring: Rows per ring.
        seq_len: T.
        batch_size: B.

    Returns:
        env (B,) and the number (B,) of the first row. The row before it is stored as well.
    """
    ends = np.cumsum(count_starts(heads, ring, seq_len))
    index = rng.integers(0, ends[-1], size=batch_size)
    env = np.searchsorted(ends, index, side="right")
    # Counted back from the newest window, which ends just before the write head.
    start = heads[env] - seq_len - (ends[env] - 1 - index)
    return env, start


def slots_of(env: np.ndarray, number: np.ndarray, ring: int) -> np.ndarray:
    """Return where rows are stored."""
    return env * ring + number % ring


def row_ids(env: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the int64 ids of rows."""
    return (env << _NUMBER_BITS) | number


def split_ids(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ring and number of row ids."""
    return ids >> _NUMBER_BITS, ids & ((1 << _NUMBER_BITS) - 1)


def read_windows(
    flat: Mapping[str, np.ndarray],
    heads: np.ndarray,
    ring: int,
    seq_len: int,
    env: np.ndarray,
    start: np.ndarray,
) -> Sample:
    """Copy windows out of the rings.

    Args:
        flat: `row.KEY` and `latent.KEY` -> (num_envs * ring, *).
        heads: (E,) number of the next row of each ring.
        ring: Rows per ring.
        seq_len: T.
        env: (B,) ring of each window.
        start: (B,) number of its first row.
    """
    numbers = start[:, None] + np.arange(-1, seq_len + 1)  # the row before, T rows, the row after
    slots = slots_of(env[:, None], numbers, ring)
    inner = slots[:, 1:-1]
    following = flat["row.is_first"].take(slots[:, 1:])
    is_first, is_last = following[:, :-1].copy(), flat["row.is_last"].take(inner)
    broken = abandoned(following, is_last, numbers[:, -1] < heads[env])
    action = flat["row.action"].take(slots[:, :-1], axis=0)
    prev_action, action = previous_actions(action, is_first), action[:, 1:].copy()
    action[broken] = 0  # it was chosen, but never taken
    obs = [n for n in flat if n.startswith("row.") and n.removeprefix("row.") not in _NOT_OBS]
    return Sample(
        obs={name.removeprefix("row."): flat[name].take(inner, axis=0) for name in obs},
        action=action,
        prev_action=prev_action,
        reward=flat["row.reward"].take(inner),
        is_first=is_first,
        is_last=is_last | broken,
        is_terminal=flat["row.is_terminal"].take(inner),
        latents={
            name.removeprefix("latent."): values.take(slots[:, 0], axis=0)
            for name, values in flat.items()
            if name.startswith("latent.")
        },
        rows=row_ids(env[:, None], numbers[:, 1:-1]),
        age=heads[env] - start - seq_len,
    )


def previous_actions(action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
    """Shift actions right by one row and forget them where an episode starts.

    Args:
        action: (B, T + 1, A) of the row before the sequence and of its rows.
        is_first: (B, T) bool of the rows of the sequence.

    Returns:
        (B, T, A), a new array.
    """
    previous = action[:, :-1].copy()
    previous[is_first] = 0
    return previous


def abandoned(is_first: np.ndarray, is_last: np.ndarray, has_next: np.ndarray) -> np.ndarray:
    """Find the rows whose episode was broken off: a first row follows though none was last.

    Args:
        is_first: (B, T + 1) bool of the rows of the sequence and of the one after it.
        is_last: (B, T) bool.
        has_next: (B,) bool, whether the row after the sequence is stored.

    Returns:
        (B, T) bool.
    """
    following = is_first[:, 1:].copy()
    following[:, -1] &= has_next
    return following & ~is_last
