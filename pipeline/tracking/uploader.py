"""From the log of a run to the tracking server, each event once, however often the server fails."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.place import tracking_uri
from pipeline.tracking.remote_run import MAX_METRICS, RemoteRun, clean_key
from pipeline.tracking.store import REJECTED, TrackingError, connect, error_code, open_run
from pipeline.write_ahead_log import (
    Event,
    LogReader,
    UploadState,
    batches,
    count_pending,
    locked,
    log_size,
    read_events,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds between attempts while the server is away


class Uploader:
    """Brings the log of one run to the tracking server, each event once.

    Args:
        directory: `.runs/<run key>/`.
        root: Project root, for the default tracking URI.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        self._directory, self._root, self._uri = directory, root, tracking_uri(root)
        self._client: MlflowClient | None = None
        self._run: RemoteRun | None = None
        self._reader: LogReader | None = None

    def pending(self) -> int:
        """Count the events that the server does not have."""
        return count_pending(self._directory, self._uri)

    def upload(self) -> int | None:
        """Send everything that the server lacks.

        Returns:
            The number of events sent, or None while another process is uploading this run.

        Raises:
            TrackingError: The server cannot be reached or fails; what it took is remembered.
        """
        try:
            with locked(self._directory / "upload.lock", wait=False) as held:
                return self._send_pending() if held else None
        except Exception as error:  # whatever a server, its proxy or a client library raises
            self._run = self._reader = None
            reason = " ".join(str(error).split())[:300]
            raise TrackingError(f"{self._uri}: {reason or type(error).__name__}") from error

    def _send_pending(self) -> int:
        state = UploadState.load(self._directory, self._uri)
        first = next((e for e in read_events(self._directory) if e.kind == "start"), None)
        if first is None or state.offset == log_size(self._directory):
            return 0
        self._client = self._client or connect(self._root)
        if self._run is None or self._run.run_id != state.run_id:
            run, state = open_run(self._client, self._root, first, state)
            self._run = RemoteRun(self._client, run, self._directory)
            state.save(self._directory, self._uri)
        if self._reader is None or self._reader.position != state.offset:
            self._reader = LogReader(self._directory, state.offset)
        sent = 0
        for batch in batches(self._reader.read(), MAX_METRICS):
            self._send(self._run, batch, state)
            state.offset = batch[-1].end
            state.save(self._directory, self._uri)
            sent += len(batch)
        return sent

    def _send(self, run: RemoteRun, batch: list[Event], state: UploadState) -> None:
        """Deliver one batch; an event that the server will never take must not block the rest."""
        try:
            if batch[0].kind == "metrics":
                self._send_metrics(run, batch, state)
            else:
                run.deliver(batch[0])
        except Exception as error:
            if error_code(error) not in REJECTED:
                raise
            if len(batch) > 1:
                for event in batch:
                    self._send(run, [event], state)
            else:
                logger.warning("tracking: the server rejects %s: %s", batch[0].kind, error)

    def _send_metrics(self, run: RemoteRun, batch: list[Event], state: UploadState) -> None:
        points = [
            (clean_key(key), value, event.time_ms, int(event.body["step"]))
            for event in batch
            for key, value in event.body["values"].items()
        ]
        held: set[tuple[str, int, int]] = set()
        if state.in_flight > state.offset:  # the last attempt died, perhaps after the server acted
            held = run.held({key for key, *_ in points})
        state.in_flight = max(state.in_flight, batch[-1].end)
        state.save(self._directory, self._uri)
        run.metrics(
            [
                (key, value, time_ms, step)
                for key, value, time_ms, step in points
                if (key, time_ms, step) not in held and step > state.floors.get(key, step - 1)
            ]
        )


class Background:
    """The daemon thread: uploads now and then, and ever less often while the server is away."""

    def __init__(self, uploader: Uploader, interval: float) -> None:
        self._uploader, self._interval = uploader, interval
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            last = self._stopping.is_set()  # looked at before uploading: nothing is logged after
            pause = self._attempt()
            if last:
                return
            self._stopping.wait(pause)

    def _attempt(self) -> float:
        try:
            self._uploader.upload()
        except TrackingError as error:
            if not self._failures:
                logger.warning("tracking continues on disk: %s", error)
            self._failures += 1
            return min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
        if self._failures:
            logger.info("tracking server is back, the log is uploaded")
        self._failures = 0
        return self._interval

    def stop(self, wait: float) -> None:
        """Upload what is left, for at most `wait` seconds."""
        self._stopping.set()
        self._thread.join(wait)
        if pending := self._uploader.pending():
            logger.warning("%d events not yet uploaded; run `dreamer sync`", pending)
