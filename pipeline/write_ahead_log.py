"""The write-ahead log of a run: what tracking is told reaches the disk first, a server later.

`events.jsonl` holds one JSON object per line, appended with one system call each, so that a killed
process loses at most the line it was writing. Nothing here knows MLflow.

Re-logged metrics: a resumed run logs the steps after its checkpoint again. The log is append-only
and the first occurrence counts, so what is kept is a function of the log alone, whatever had been
uploaded when the process died (`Relogged`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

EVENTS_FILE = "events.jsonl"


class Event(NamedTuple):
    """One line of the log: what happened, when (ms since 1970) and where the line ends (bytes)."""

    kind: str
    time_ms: int
    body: dict[str, Any]
    end: int


class LogWriter:
    """Appends events; a full disk costs events and one warning, never the caller.

    Args:
        directory: Directory of the run, created if needed.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / EVENTS_FILE
        self._file = -1
        self._torn = False
        self.lost = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._torn = _ends_torn(self._file)
        except OSError as error:
            logger.warning("tracking: cannot write %s: %s", self._path, error)

    def append(self, kind: str, body: dict[str, Any]) -> None:
        """Write one event.

        Args:
            kind: Name of the event.
            body: JSON-serialisable details.
        """
        event = {"kind": kind, "time": time.time_ns() // 1_000_000} | body
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        if self._torn:  # end the damaged line first, or it would swallow this one
            line = b"\n" + line
        try:
            self._torn = os.write(self._file, line) != len(line)
        except OSError as error:
            self._lose(error)
        else:
            if self._torn:
                self._lose(OSError("the disk is full"))

    def _lose(self, error: OSError) -> None:
        if not self.lost:
            logger.warning("tracking: events are being lost, %s: %s", self._path, error)
        self.lost += 1

    def close(self) -> None:
        """Close the file; later events are counted as lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _ends_torn(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"


def read_events(directory: Path, start: int = 0) -> Iterator[Event]:
    """Read complete lines, oldest first.

    Args:
        directory: Directory of the run.
        start: Byte offset of the first line wanted.

    Yields:
        Events; a line that is no event (torn by a kill or a full disk) has the kind `damaged`. A
        last line without its newline is still being written and is left alone.
    """
    path = directory / EVENTS_FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield _parse(line, start)


def _parse(line: bytes, end: int) -> Event:
    try:
        body = json.loads(line)
        return Event(str(body.pop("kind")), int(body.pop("time")), body, end)
    except (ValueError, KeyError, AttributeError, TypeError):
        return Event("damaged", 0, {}, end)


class Relogged:
    """Recognises metrics that a restarted process logs again.

    Within one process the steps of a key never fall. After a restart, values of a key up to the
    highest step ever logged are repetitions, except those at or below the step of a rewind; at the
    highest step itself only as many as were logged there, for the kill may have come between two.
    """

    def __init__(self) -> None:
        self._highest: dict[str, tuple[int, int]] = {}  # key -> step, times logged at that step
        self._repeats: dict[str, list[int]] = {}
        self._after: int | None = None

    def restart(self, after: int | None) -> None:
        """Expect repetitions of what was logged so far, above step `after` (None: of any step)."""
        self._repeats = {key: list(pair) for key, pair in self._highest.items()}
        self._after = after

    def fresh(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Return the values that were not logged before, and remember them."""
        kept = {key: v for key, v in values.items() if not self._is_repeat(key, step)}
        for key in kept:
            highest, times = self._highest.get(key, (step, 0))
            if step == highest:
                self._highest[key] = (step, times + 1)
            elif step > highest:
                self._highest[key] = (step, 1)
        return kept

    def _is_repeat(self, key: str, step: int) -> bool:
        if key not in self._repeats or (self._after is not None and step <= self._after):
            return False
        repeat = self._repeats[key]
        if step == repeat[0] and repeat[1] > 0:
            repeat[1] -= 1
            return True
        return step < repeat[0]


class LogReader:
    """Reads a growing log, leaving out metrics logged before.

    Args:
        directory: Directory of the run.
        offset: Where to begin; what lies before is read too, to know what was logged.
    """

    def __init__(self, directory: Path, offset: int = 0) -> None:
        self.position = 0
        self._directory = directory
        self._relogged = Relogged()
        events = self._walk()
        while self.position < offset and next(events, None) is not None:
            pass

    def read(self) -> Iterator[Event]:
        """Yield the events after `position`; metrics may be left without values."""
        return self._walk()

    def _walk(self) -> Iterator[Event]:
        for event in read_events(self._directory, self.position):
            self.position = event.end
            if event.kind == "start":
                self._relogged.restart(None)
            elif event.kind == "rewind":
                self._relogged.restart(int(event.body["step"]))
            elif event.kind == "metrics":
                values = self._relogged.fresh(event.body["step"], event.body["values"])
                yield event._replace(body=event.body | {"values": values})
                continue
            yield event


def log_size(directory: Path) -> int:
    """Return the bytes in the log, 0 if there is none."""
    path = directory / EVENTS_FILE
    return path.stat().st_size if path.exists() else 0


def batches(events: Iterable[Event], limit: int) -> Iterator[list[Event]]:
    """Group neighbouring metrics events up to `limit` values; any other event stands alone."""
    batch: list[Event] = []
    count = 0
    for event in events:
        size = len(event.body["values"]) if event.kind == "metrics" else 0
        if batch and (event.kind != "metrics" or count + size > limit):
            yield batch
            batch, count = [], 0
        if event.kind == "metrics":
            batch.append(event)
            count += size
        else:
            yield [event]
    if batch:
        yield batch


@dataclass
class UploadState:
    """How far one log has reached one tracking server.

    Attributes:
        run_id: The server's id of the run, empty before the first contact.
        offset: Bytes of the log that the server has for certain.
        in_flight: End of the batch being sent; beyond `offset` after a death in between.
        floors: Metric key -> highest step the server already held when this log first met the run.
    """

    run_id: str = ""
    offset: int = 0
    in_flight: int = 0
    floors: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path, uri: str) -> UploadState:
        """Read the state; a missing or damaged file, or a replaced log, starts from nothing."""
        path = _state_path(directory, uri)
        try:
            state = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()
        return state if state.offset <= log_size(directory) else cls()

    def save(self, directory: Path, uri: str) -> None:
        """Replace the file in one step."""
        path = _state_path(directory, uri)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), sort_keys=True), encoding="utf-8")
        partial.replace(path)


def _state_path(directory: Path, uri: str) -> Path:
    return directory / f"upload-{hashlib.sha256(uri.encode()).hexdigest()[:12]}.json"


def count_pending(directory: Path, uri: str) -> int:
    """Count the events of a log that a tracking server does not have yet."""
    return sum(1 for _ in read_events(directory, UploadState.load(directory, uri).offset))


def keep_copy(directory: Path, path: Path) -> str:
    """Copy a file or folder beside the log, because outs are replaced before an outage ends.

    Args:
        directory: Directory of the run.
        path: What to copy.

    Returns:
        The copy's path relative to `directory`.

    Raises:
        OSError: If the source is missing or the disk is full.
    """
    target = directory / "kept" / str(time.time_ns()) / path.name
    target.parent.mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copyfile(path, target)
    return str(target.relative_to(directory))


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which the kernel releases when the process dies.

    Args:
        path: The lock file, created if needed in a folder that exists.
        wait: Whether to wait for another holder.

    Yields:
        Whether the lock is held; always True with `wait`.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
