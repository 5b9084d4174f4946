"""The tracking server: opening it within seconds, and finding or creating a run by its own key."""

from __future__ import annotations

import logging
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dreamer.types import DreamerError
from pipeline.tracking.place import project_root, tracking_uri
from pipeline.write_ahead_log import Event, UploadState, locked

if TYPE_CHECKING:  # importing mlflow takes seconds; the thread does it when a run is under way
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY_TAG = "dreamer.run_key"
PARENT_TAG = "mlflow.parentRunId"
OWN_PARENT_TAG = "dreamer.own_parent"
REJECTED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # would fail again however often it is sent
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TrackingError(DreamerError):
    """The tracking server cannot be reached or does not accept what it is sent."""


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
    with locked(lock_path(uri, root)):  # processes that migrate a fresh database together collide
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


def lock_path(uri: str, root: Path) -> Path:
    """Return the file whose lock guards what processes must not create together."""
    database = uri.removeprefix("sqlite:///")
    if database == uri:
        (project_root(root) / ".runs").mkdir(exist_ok=True)
        return project_root(root) / ".runs" / "create.lock"
    if not Path(database).parent.is_dir():  # perhaps not mounted: never made here
        raise FileNotFoundError(f"the folder of the database does not exist: {database}")
    return Path(f"{database}.lock")


def open_run(
    client: MlflowClient, root: Path, start: Event, state: UploadState
) -> tuple[Run, UploadState]:
    """Find or create the run of a log, and what of it the server has."""
    run = _get_run(client, state.run_id) if state.run_id else None
    if run is not None:
        return run, state
    uri, body = tracking_uri(root), start.body
    with locked(lock_path(uri, root)):
        above = _get_run(client, body["parent_run_id"]) if body["parent_run_id"] else None
        places = _places(client, body["experiment"], uri, above)
        run = _find(client, places, body["key"])
        if run is not None:
            # A child may have made its parent first, and could not know its name and parent.
            if run.info.run_name == _unnamed(body["key"]):
                for tag, value in _below(client, places, start, above)[1].items():
                    client.set_tag(run.info.run_id, tag, value)
            client.update_run(run.info.run_id, name=body["name"])
            run = client.get_run(run.info.run_id)
            # Begun elsewhere, or this log's state was lost: what is there is not sent again.
            keys = run.data.metrics
            histories = {k: client.get_metric_history(run.info.run_id, k) for k in keys}
            floors = {k: max(m.step for m in history) for k, history in histories.items()}
            return run, UploadState(run_id=run.info.run_id, floors=floors)
        run = _create_run(client, places, start, above)
    return run, UploadState(run_id=run.info.run_id)


def _places(client: MlflowClient, name: str, uri: str, above: Run | None) -> list[str]:
    """Experiments in which a run may be; a new one begins in the first.

    `mlflow run` is told an experiment, and what runs below it belongs there, unless it was begun
    before in the project's own.
    """
    if above is None:
        return [_experiment(client, name, uri)]
    own = client.get_experiment_by_name(name)
    begun = own is not None and own.lifecycle_stage == "active"
    return [above.info.experiment_id, *([own.experiment_id] if own and begun else [])]


def _create_run(client: MlflowClient, places: list[str], start: Event, above: Run | None) -> Run:
    body = start.body
    experiment_id, tags = _below(client, places, start, above)
    tags[RUN_KEY_TAG] = body["key"]
    run = client.create_run(experiment_id, start.time_ms, tags, body["name"])
    return client.get_run(run.info.run_id)


def _below(
    client: MlflowClient, places: list[str], start: Event, above: Run | None
) -> tuple[str, dict[str, str]]:
    """Experiment and tags that put a run below its parent, which is made if it is not there yet,
    or else below `above`, the run of `mlflow run`.
    """
    tags = {PARENT_TAG: above.info.run_id} if above else {}
    key = start.body["parent_key"]
    if not key:
        return places[0], tags
    parent = _find(client, places, key) or client.create_run(
        places[0], start.time_ms, tags | {RUN_KEY_TAG: key}, _unnamed(key)
    )
    return parent.info.experiment_id, {PARENT_TAG: parent.info.run_id, OWN_PARENT_TAG: "true"}


def _unnamed(key: str) -> str:
    """Name of a run until it begins itself."""
    return f"pipeline-{key[:8]}"


def _find(client: MlflowClient, places: list[str], key: str) -> Run | None:
    found = (find_run(client, experiment_id, key) for experiment_id in places)
    return next((run for run in found if run is not None), None)


def _get_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run unless it was deleted."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if error_code(error) in {"RESOURCE_DOES_NOT_EXIST", *REJECTED}:
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
        # Opens on the table of runs; without it MLflow opens on a page about language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, artifact_location=local, tags=tags))
    if found.lifecycle_stage != "active":
        raise TrackingError(f"experiment {name!r} was deleted; restore it or choose another name")
    return str(found.experiment_id)


def error_code(error: Exception) -> str:
    """Return the error code of an MlflowException, or nothing."""
    return str(getattr(error, "error_code", ""))
