"""Which bytes of the rings go to the undo journal before they change, and how they come back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dreamer.replay.journal import UndoJournal
from dreamer.replay.rings import RingStore

_HEAD_BYTES = 16  # two int64: whether whole rows follow, and how many slots


class RingUndo:
    """Keeps a `RingStore` able to return to the begin of a journal generation.

    Only what existed when the generation began needs saving, and of it only the oldest bytes: a row
    appended since then is forgotten by moving the write head back, and a latent that was saved once
    may be refreshed freely. So a journal grows no larger than the rings, however long it lives.

    Args:
        store: The rings.
        refreshed: Names of the fields that are overwritten in place (the latents).
        directory: Folder of the journal.
    """

    def __init__(self, store: RingStore, refreshed: Sequence[str], directory: Path) -> None:
        self._store = store
        self._refreshed, self._all = sorted(refreshed), sorted(store.flat)
        self._journal = UndoJournal(directory)
        self._begun = np.zeros(0, np.int64)
        self._saved = np.zeros(store.slots, bool)

    @property
    def generation(self) -> int:
        """The generation being written; -1 before the first."""
        return self._journal.generation

    def begin(self, heads: np.ndarray) -> None:
        """Start the next generation at the rows as they are.

        Args:
            heads: (E,) number of the next row of each ring.
        """
        self._journal.begin(self.generation + 1, heads.tobytes())
        self._mark(heads)

    def rollback(self, generation: int, heads: np.ndarray) -> None:
        """Put all bytes back as they were when `generation` began with these heads."""
        self._journal.rollback(generation, heads.tobytes(), self._put_back)
        self._mark(heads)

    def before_append(self, slots: np.ndarray, env: np.ndarray, replaced: np.ndarray) -> None:
        """Save the rows that are about to be replaced by new ones.

        Args:
            slots: (M,) where the new rows go.
            env: (M,) their rings.
            replaced: (M,) number of the row that is there now; negative where there is none.
        """
        self._save(slots[(replaced >= 0) & (replaced < self._begun[env])], whole=True)
        self._saved[slots] = True

    def before_refresh(self, slots: np.ndarray) -> None:
        """Save the latents of these slots, each at most once, before new ones are written."""
        self._save(slots[~self._saved[slots]], whole=False)
        self._saved[slots] = True

    def discard_before(self, generation: int) -> None:
        """Delete the journals of older generations."""
        self._journal.discard_before(generation)

    def discard_all(self) -> None:
        """Delete the journals of a buffer that is being replaced by a new one."""
        self._journal.discard_before(max([-1, *self._journal.generations()]) + 1)

    def sync(self) -> None:
        """Wait until rings and journal are on the disk."""
        self._store.flush()
        self._journal.sync()

    def _mark(self, heads: np.ndarray) -> None:
        self._begun = heads.copy()
        self._saved[:] = False

    def _save(self, slots: np.ndarray, *, whole: bool) -> None:
        if len(slots) == 0:
            return
        head = np.array([whole, len(slots)], np.int64).tobytes()
        old = self._store.pack(self._all if whole else self._refreshed, slots)
        self._journal.append(head + slots.tobytes() + old)

    def _put_back(self, payload: bytes) -> None:
        whole, count = np.frombuffer(payload[:_HEAD_BYTES], np.int64).tolist()
        end = _HEAD_BYTES + 8 * count
        slots = np.frombuffer(payload[_HEAD_BYTES:end], np.int64)
        self._store.unpack(
            self._all if whole else self._refreshed, slots, memoryview(payload)[end:]
        )
