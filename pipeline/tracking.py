"""Tracking that cannot stop or slow a run: a write-ahead log first, MLflow in the background.

`Tracker` only appends to `.runs/<run key>/events.jsonl`. A daemon thread (`Uploader`) brings the
log to the tracking server, and `sync` does the same later for what an outage left behind. A run is
found on the server by its own key (tag `dreamer.run_key`), so it may begin while the server is away
and a resumed stage continues it.

Environment: `MLFLOW_TRACKING_URI` (default `sqlite:///mlflow.db` in the project, artifacts in
`mlartifacts/` beside it), `DREAMER_TRACKING=off` (log only), `DREAMER_PARENT_RUN_ID`, and
`DVC_ROOT`, which wins over the given root so that `dvc exp run --temp` tracks to the parent.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from dreamer.types import ConfigError, DreamerError
from pipeline.write_ahead_log import (
    Event,
    LogReader,
    LogWriter,
    UploadState,
    batches,
    count_pending,
    keep_copy,
    locked,
    log_size,
    read_events,
)

if TYPE_CHECKING:  # importing mlflow takes seconds; the thread does it when a run is under way
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

RUN_KEY_TAG = "dreamer.run_key"
PARENT_TAG = "mlflow.parentRunId"
OWN_PARENT_TAG = "dreamer.own_parent"
PARENT_VARIABLE = "DREAMER_PARENT_RUN_ID"
Status = Literal["FINISHED", "FAILED", "KILLED"]

MAX_METRICS, MAX_PAIRS = 1000, 100  # of one log_batch call, a limit of MLflow's API
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_DIGEST = 250, 6000, 8000, 36
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds between attempts while the server is away
REJECTED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # would fail again however often it is sent
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TrackingError(DreamerError):
    """The tracking server cannot be reached or does not accept what it is sent."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What makes a run the same run after a restart, on any machine.

    Attributes:
        experiment: MLflow experiment, created if needed.
        key: Chosen by the client, equal for equal work (the fingerprint of a stage).
        name: Shown in the interface.
        parent_key: Key of the run that it belongs to, created by whoever comes first.
        tags: Set at every start.
    """

    experiment: str
    key: str
    name: str
    parent_key: str | None
    tags: Mapping[str, str]

    def __post_init__(self) -> None:
        for label, key in (("run key", self.key), ("parent key", self.parent_key or "none")):
            if not re.fullmatch(r"[\w.-]{1,200}", key):
                raise ConfigError(label, key, "1 to 200 letters, digits, '_', '-' and '.'")


def project_root(root: Path) -> Path:
    """Return the repository that keeps `.runs`: `DVC_ROOT` where DVC runs us, else `root`."""
    return Path(os.environ.get("DVC_ROOT") or root).resolve()


def tracking_uri(root: Path) -> str:
    """Return the tracking URI; relative sqlite paths are meant relative to the project."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = uri.removeprefix("sqlite:///")
    if database == uri or not database or database.startswith((":memory:", "/")):
        return uri
    return f"sqlite:///{project_root(root) / database}"


def adopt_mlflow_run() -> str | None:
    """Return the parent run that the environment names, in `DREAMER_PARENT_RUN_ID`.

    `mlflow run` exports `MLFLOW_RUN_ID`, and whoever starts a run under it continues that very run;
    a stage is a child of it instead.
    """
    inherited = os.environ.pop("MLFLOW_RUN_ID", None)
    if inherited:
        os.environ.setdefault(PARENT_VARIABLE, inherited)
    return os.environ.get(PARENT_VARIABLE)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user left unset, for a while."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _http_patience(seconds: int) -> dict[str, str]:
    """MLflow's own settings wait for minutes on a dead server."""
    return {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
    }


class Tracker:
    """One tracked run, as a context manager; nothing it does waits for a server.

    Leaving it by an exception marks the run FAILED, or KILLED for KeyboardInterrupt and SystemExit.

    Args:
        directory: `.runs/<run key>/`.
        run: Which run this is.
        root: Project root, for the default tracking URI.
        interval: Seconds between uploads.
        exit_wait: Longest time that leaving waits for the last upload, in seconds.
    """

    def __init__(
        self,
        directory: Path,
        run: RunIdentity,
        *,
        root: Path,
        interval: float = 5.0,
        exit_wait: float = 10.0,
    ) -> None:
        self._directory, self._run, self._root = directory, run, root
        self._interval, self._exit_wait = interval, exit_wait
        self._cleanup = ExitStack()
        self._finished = False

    def __enter__(self) -> Self:
        self._log = LogWriter(self._directory)
        self._log.append("start", asdict(self._run) | {"parent_run_id": adopt_mlflow_run()})
        self._cleanup.callback(self._log.close)
        if os.environ.get("DREAMER_TRACKING", "").lower() != "off":
            # Here, not in the thread: changing the environment while others read it is unsafe.
            for name, value in QUIET.items():
                os.environ.setdefault(name, value)
            self._cleanup.enter_context(_environment(_http_patience(5)))
            background = _Background(Uploader(self._directory, self._root), self._interval)
            self._cleanup.callback(background.stop, self._exit_wait)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._finished:
            killed = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
            self.finish("FINISHED" if kind is None else "KILLED" if killed else "FAILED")
        self._cleanup.close()

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters (dotted keys); MLflow keeps the first value of each."""
        self._log.append("params", {"values": {k: str(v) for k, v in values.items()}})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics at an environment step; the steps of a key never fall, but by `rewind`."""
        floats = {key: float(value) for key, value in values.items()}
        self._log.append("metrics", {"step": int(step), "values": floats})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; a later value replaces an earlier one."""
        self._log.append("tags", {"values": {k: str(v) for k, v in values.items()}})

    def artifact(self, path: Path, folder: str) -> None:
        """Record a file, or the contents of a directory, under a folder of the run's artifacts."""
        try:
            kept = keep_copy(self._directory, path)
        except OSError as error:
            logger.warning("tracking: cannot keep %s: %s", path, error)
        else:
            self._log.append("artifact", {"path": kept, "folder": folder})

    def dataset(self, name: str, digest: str, tags: Mapping[str, str]) -> None:
        """Record data that the run read, by its DVC digest."""
        self._log.append("dataset", {"name": name, "digest": digest, "tags": dict(tags)})

    def model(self, directory: Path, name: str) -> None:
        """Record a directory of weights as artifacts in the folder `name`, tagged as the model."""
        self.artifact(directory, name)
        self.tags({"dreamer.model": name})

    def rewind(self, step: int) -> None:
        """Say that the run goes on after `step`: metrics of later steps will come again."""
        self._log.append("rewind", {"step": int(step)})

    def finish(self, status: Status) -> None:
        """Record how the run ended; implied by leaving the context."""
        self._log.append("finish", {"status": status})
        self._finished = True


class _Background:
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


class Uploader:
    """Brings the log of one run to the tracking server, each event once.

    Args:
        directory: `.runs/<run key>/`.
        root: Project root, for the default tracking URI.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        self._directory, self._root, self._uri = directory, root, tracking_uri(root)
        self._client: MlflowClient | None = None
        self._run: _RemoteRun | None = None
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
            run, state = _open_run(self._client, self._root, first, state)
            self._run = _RemoteRun(self._client, run, self._directory)
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

    def _send(self, run: _RemoteRun, batch: list[Event], state: UploadState) -> None:
        """Deliver one batch; an event that the server will never take must not block the rest."""
        try:
            if batch[0].kind == "metrics":
                self._send_metrics(run, batch, state)
            else:
                run.deliver(batch[0])
        except Exception as error:
            if _code(error) not in REJECTED:
                raise
            if len(batch) > 1:
                for event in batch:
                    self._send(run, [event], state)
            else:
                logger.warning("tracking: the server rejects %s: %s", batch[0].kind, error)

    def _send_metrics(self, run: _RemoteRun, batch: list[Event], state: UploadState) -> None:
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


def clean_key(key: str) -> str:
    """Return the nearest name that MLflow accepts for a metric, parameter or tag."""
    legal = re.sub(r"[^A-Za-z0-9_./: -]", "_", key)
    return posixpath.normpath("/" + legal).lstrip("/")[:MAX_KEY] or "_"


def _code(error: Exception) -> str:
    """Return the error code of an MlflowException, or nothing."""
    return str(getattr(error, "error_code", ""))


class _RemoteRun:
    """A run on the tracking server; everything but `metrics` may be sent twice without harm."""

    def __init__(self, client: MlflowClient, run: Run, directory: Path) -> None:
        self.client, self.run, self.directory = client, run, directory
        self.run_id: str = run.info.run_id
        tags = run.data.tags
        # `mlflow run` ends the runs that it began itself
        self._own_parent = tags[PARENT_TAG] if tags.get(OWN_PARENT_TAG) == "true" else None

    def deliver(self, event: Event) -> None:
        """Send one event that is no metrics event."""
        body = event.body
        match event.kind:
            case "start":
                self._tags(body["tags"])
                for run_id in filter(None, (self.run_id, self._own_parent)):
                    self.client.update_run(run_id, status="RUNNING")
            case "finish":
                for run_id in filter(None, (self.run_id, self._own_parent)):
                    self.client.set_terminated(run_id, body["status"], event.time_ms)
            case "params":
                self._params(body["values"])
            case "tags":
                self._tags(body["values"])
            case "artifact":
                self._artifact(self.directory / body["path"], body["folder"])
            case "dataset":
                self._dataset(body)
            case "damaged":
                logger.warning("tracking: skipped a damaged line of %s", self.directory)

    def held(self, keys: set[str]) -> set[tuple[str, int, int]]:
        """Return (key, time, step) of all that the server holds under these keys."""
        histories = [self.client.get_metric_history(self.run_id, key) for key in keys]
        return {(m.key, m.timestamp, m.step) for history in histories for m in history}

    def metrics(self, points: list[tuple[str, float, int, int]]) -> None:
        """Send (key, value, time, step) quadruples."""
        from mlflow.entities import Metric

        metrics = [Metric(*point) for point in points]
        for i in range(0, len(metrics), MAX_METRICS):
            part = metrics[i : i + MAX_METRICS]
            self.client.log_batch(self.run_id, metrics=part, synchronous=True)

    def _tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(clean_key(k), v[:MAX_TAG]) for k, v in values.items()]
        for i in range(0, len(tags), MAX_PAIRS):
            part = tags[i : i + MAX_PAIRS]
            self.client.log_batch(self.run_id, tags=part, synchronous=True)

    def _params(self, raw: Mapping[str, str]) -> None:
        """MLflow refuses a whole batch in which one value differs from the one it has."""
        from mlflow.entities import Param

        values = {clean_key(k): v[:MAX_PARAM] for k, v in raw.items()}
        known = self.client.get_run(self.run_id).data.params
        new = [Param(k, v) for k, v in values.items() if k not in known]
        for i in range(0, len(new), MAX_PAIRS):
            self.client.log_batch(self.run_id, params=new[i : i + MAX_PAIRS], synchronous=True)
        changed = {f"param_changed.{k}": v for k, v in values.items() if known.get(k, v) != v}
        if changed:
            logger.warning("tracking: %s keeps its first %s", self.directory.name, sorted(changed))
            self._tags(changed)

    def _artifact(self, path: Path, folder: str) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder or None)
        elif path.exists():  # gone if a process died between this upload and its record
            self.client.log_artifact(self.run_id, str(path), folder or None)
        shutil.rmtree(path.parent, ignore_errors=True)

    def _dataset(self, body: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"dvc_md5": body["digest"]})
        dataset = Dataset(body["name"], body["digest"][:MAX_DIGEST], "dvc", source)
        tags = {"mlflow.data.context": "training"} | body["tags"]
        inputs = [DatasetInput(dataset, [InputTag(k, v) for k, v in tags.items()])]
        self.client.log_inputs(self.run_id, inputs)


def connect(root: Path) -> MlflowClient:
    """Open the tracking server of a project; the first use creates a local database.

    Args:
        root: Project root, for the default tracking URI.

    Raises:
        OSError: The server cannot be reached.
        sqlite3.Error: The database cannot be opened or is locked for long.
    """
    uri = tracking_uri(root)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # we warn once ourselves
    with locked(_lock_path(uri, root)):  # processes that migrate a fresh database together collide
        _probe(uri)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _probe(uri: str) -> None:
    """Fail within seconds: MLflow itself retries a dead database for most of an hour."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme == "sqlite" and (database := uri.removeprefix("sqlite:///")) != uri:
        with closing(sqlite3.connect(database.partition("?")[0], timeout=5)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    elif scheme in PORTS and parts.hostname:
        socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), timeout=5).close()


def _lock_path(uri: str, root: Path) -> Path:
    database = uri.removeprefix("sqlite:///")
    if database == uri:
        (project_root(root) / ".runs").mkdir(exist_ok=True)
        return project_root(root) / ".runs" / "create.lock"
    if not Path(database).parent.is_dir():  # perhaps not mounted: never made here
        raise FileNotFoundError(f"the folder of the database does not exist: {database}")
    return Path(f"{database}.lock")


def _open_run(
    client: MlflowClient, root: Path, start: Event, state: UploadState
) -> tuple[Run, UploadState]:
    """Find or create the run of a log, and what of it the server has."""
    run = _get_run(client, state.run_id) if state.run_id else None
    if run is not None:
        return run, state
    uri, body = tracking_uri(root), start.body
    with locked(_lock_path(uri, root)):
        experiment_id = _experiment(client, body["experiment"], uri)
        run = find_run(client, experiment_id, body["key"])
        if run is not None:
            # Begun elsewhere, or this log's state was lost: what is there is not sent again.
            keys = run.data.metrics
            histories = {k: client.get_metric_history(run.info.run_id, k) for k in keys}
            floors = {k: max(m.step for m in history) for k, history in histories.items()}
            return run, UploadState(run_id=run.info.run_id, floors=floors)
        run = _create_run(client, experiment_id, start)
    return run, UploadState(run_id=run.info.run_id)


def _create_run(client: MlflowClient, experiment_id: str, start: Event) -> Run:
    body = start.body
    tags = {RUN_KEY_TAG: body["key"]}
    if body["parent_run_id"] and _get_run(client, body["parent_run_id"]):
        tags[PARENT_TAG] = body["parent_run_id"]
    elif key := body["parent_key"]:
        parent = find_run(client, experiment_id, key) or client.create_run(
            experiment_id, start.time_ms, {RUN_KEY_TAG: key}, f"pipeline-{key[:8]}"
        )
        tags |= {PARENT_TAG: parent.info.run_id, OWN_PARENT_TAG: "true"}
    run = client.create_run(experiment_id, start.time_ms, tags, body["name"])
    return client.get_run(run.info.run_id)


def _get_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run unless it was deleted."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if _code(error) in {"RESOURCE_DOES_NOT_EXIST", *REJECTED}:
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Return the run with a client-chosen key, the oldest if machines raced."""
    query = f"tags.`{RUN_KEY_TAG}` = '{key}'"
    runs = client.search_runs(
        [experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"]
    )
    return runs[0] if runs else None


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        database = uri.removeprefix("sqlite:///")
        local = None if database == uri else (Path(database).parent / "mlartifacts").as_uri()
        return str(client.create_experiment(name, artifact_location=local))
    if found.lifecycle_stage != "active":
        raise TrackingError(f"experiment {name!r} was deleted; restore it or choose another name")
    return str(found.experiment_id)


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What `sync` did.

    Attributes:
        uploaded: Run key -> number of events sent, of every run that had some left.
        busy: Keys of runs that their own process is uploading.
    """

    uploaded: dict[str, int] = field(default_factory=dict)
    busy: tuple[str, ...] = ()


def sync(root: Path) -> SyncReport:
    """Upload what outages left behind in `.runs`, logging one line per run.

    Args:
        root: Project root.

    Raises:
        TrackingError: The server is still away; says how much waits.
    """
    uri, uploaded, busy = tracking_uri(root), {}, []
    waiting = {
        directory: pending
        for directory in sorted(project_root(root).glob(".runs/*/"))
        if (pending := count_pending(directory, uri))
    }
    with _environment(QUIET | _http_patience(60)):
        for directory in list(waiting):
            try:
                sent = Uploader(directory, root).upload()
            except TrackingError as error:
                left = f"{sum(waiting.values())} events of {len(waiting)} runs wait"
                raise TrackingError(f"{error}; {left}") from error
            del waiting[directory]
            if sent is None:
                busy.append(directory.name)
                logger.info("%s: its own process is uploading it", directory.name)
            else:
                uploaded[directory.name] = sent
                logger.info("%s: %d events uploaded", directory.name, sent)
    return SyncReport(uploaded=uploaded, busy=tuple(busy))


def git_commit(root: Path) -> dict[str, str]:
    """Return the tags `git_commit` and `git_dirty` (of tracked files), or none without git."""
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("no git commit to record: %s", error)
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}
