"""One run on the tracking server: how each kind of event is delivered, within MLflow's limits."""

from __future__ import annotations

import json
import logging
import posixpath
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.store import OWN_PARENT_TAG, PARENT_TAG
from pipeline.write_ahead_log import Event

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

MAX_METRICS, MAX_PAIRS = 1000, 100  # of one log_batch call, a limit of MLflow's API
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_DIGEST = 250, 6000, 8000, 36


def clean_key(key: str) -> str:
    """Return the nearest name that MLflow accepts for a metric, parameter or tag."""
    legal = re.sub(r"[^A-Za-z0-9_./: -]", "_", key)
    return posixpath.normpath("/" + legal).lstrip("/")[:MAX_KEY] or "_"


class RemoteRun:
    """A run on the tracking server; everything but `metrics` may be sent twice without harm."""

    def __init__(self, client: MlflowClient, run: Run, directory: Path) -> None:
        self.client, self.run, self.directory = client, run, directory
        self.run_id: str = run.info.run_id
        tags = run.data.tags
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
