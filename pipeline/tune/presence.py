"""How workers of a study know of each other: a lock while one lives, and a beat for far ones.

Each worker holds a lock on a file of its own, which the kernel releases however it dies. Workers on
other machines cannot see that file; a beat in the trial, every half minute, speaks for them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import Trial

from pipeline.write_ahead_log import locked

BEAT = 30.0  # seconds between two signs of life
LONGEST_SILENCE = 300.0  # seconds after which a far worker counts as gone
FOLDER = "workers"


class Presence:
    """A worker that lives; see `present`.

    Attributes:
        name: Unique among all workers.
    """

    def __init__(self, storage: BaseStorage, name: str) -> None:
        self.name = name
        self._storage = storage
        self._trial_id: int | None = None
        self._parent = os.getppid()
        self._leaving = threading.Event()

    def sign(self, trial: Trial) -> None:
        """Say whose a trial is."""
        trial.set_user_attr("worker", self.name)
        trial.set_user_attr("beat", time.time())

    def holds(self, trial_id: int | None) -> None:
        """Say for which trial to beat from now on."""
        self._trial_id = trial_id

    def check_parent(self) -> None:
        """End this process if the command that started it is gone."""
        if os.getppid() != self._parent:
            raise SystemExit(0)

    def beat(self) -> None:
        """Beat until `leave`; runs in a thread of its own."""
        while not self._leaving.wait(BEAT):
            if (trial_id := self._trial_id) is not None:
                # it may end between the look and the beat
                with contextlib.suppress(UpdateFinishedTrialError):
                    self._storage.set_trial_user_attr(trial_id, "beat", time.time())

    def leave(self) -> None:
        """Stop beating."""
        self._leaving.set()


@contextlib.contextmanager
def present(folder: Path, storage: BaseStorage) -> Iterator[Presence]:
    """Be a worker of the study in `folder` for a while."""
    name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = folder / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    presence = Presence(storage, name)
    with locked(path, wait=False):
        thread = threading.Thread(target=presence.beat, name="presence", daemon=True)
        thread.start()
        try:
            yield presence
        finally:
            presence.leave()
            path.unlink(missing_ok=True)


def is_present(folder: Path, attrs: Mapping[str, Any]) -> bool:
    """Whether the worker that a trial names is alive."""
    path = folder / FOLDER / str(attrs["worker"])
    if path.exists():
        with locked(path, wait=False) as gone:
            return not gone
    return time.time() - float(attrs["beat"]) < LONGEST_SILENCE
