"""One registered model of MLflow's registry: versions, aliases, and who was champion before.

What moves the champion is one call, the alias; everything before it may be repeated after a death.
The champions before are a list in a tag of the model. It is written before the alias when somebody
is promoted and after it when somebody is rolled back; so an entry at its end that is the champion
itself tells of a death in between, and does not count.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from dreamer.types import ConfigError, DreamerError
from pipeline.stages.session import EXPERIMENT
from pipeline.tracking import TrackingError, project_root, tracking_uri
from pipeline.tracking.place import QUIET, environment, http_patience
from pipeline.tracking.store import connect, error_code, find_run, open_run
from pipeline.write_ahead_log import Event, UploadState, locked

if TYPE_CHECKING:  # importing mlflow takes seconds
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
AGENT, ENV, HISTORY, ROLLED_BACK = "agent", "env", "champions_before", "rolled_back"
REMEMBERED = 100  # champions before this one
MODEL = "model"  # folder of the model in the artifacts of the run that registered it
PATIENCE, LONG_PATIENCE = 5, 60  # seconds for one request: to find the server, and to send weights
SILENT = QUIET | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the latter of a missing alias

P = ParamSpec("P")
T = TypeVar("T")


class RegistryError(DreamerError):
    """The registry does not hold what is asked for, or what it holds does not fit."""


@contextmanager
def open_registry(project: Path, name: str) -> Iterator[Registry]:
    """Connect within seconds, and keep other commands of this project out meanwhile.

    Args:
        project: Its root. name: Of the registered model, which need not exist yet.

    Raises:
        ConfigError: MLflow allows no such name.
        TrackingError: The registry cannot be reached, or fails on the way.
    """
    if not re.fullmatch(r"\w[\w .-]{0,199}", name):
        allowed = "1 to 200 letters, digits, '_', '-', '.' and blanks"
        raise ConfigError("--name", name, allowed)
    uri = tracking_uri(project)
    with environment(SILENT):
        try:
            with environment(http_patience(PATIENCE)):
                client = connect(project)
        except Exception as error:  # whatever a server, its proxy or a client library raises
            raise TrackingError(f"the registry cannot be reached: {reason(uri, error)}") from error
        folder = project_root(project) / ".runs"
        folder.mkdir(exist_ok=True)
        with environment(http_patience(LONG_PATIENCE)), locked(folder / "registry.lock"):
            yield Registry(client, project, name)


def reason(uri: str, error: Exception) -> str:
    """Which registry, and the beginning of what an error says, in one line without a password."""
    said = " ".join(str(error).split())[:160] or type(error).__name__
    return re.sub(r"//[^/@\s]*@", "//***@", f"{uri}: {said}")


def default_name(env: str) -> str:
    """Name of the registered model of an environment: `dreamer-ALE-Pong-v5` of `ALE/Pong-v5`."""
    return "dreamer-" + re.sub(r"[^\w.-]+", "-", env).strip("-")


def asked(
    method: Callable[Concatenate[Registry, P], T],
) -> Callable[Concatenate[Registry, P], T]:
    """Say what failed on the server in one line."""

    @functools.wraps(method)
    def told(self: Registry, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except DreamerError:
            raise
        except Exception as error:  # whatever a server, its proxy or a client library raises
            uri = tracking_uri(self.project)
            raise TrackingError(f"the registry failed: {reason(uri, error)}") from error

    return told


class Registry:
    """One registered model.

    Args:
        client: Connected. project: Root of the project. name: Of the model.
    """

    def __init__(self, client: MlflowClient, project: Path, name: str) -> None:
        self.client, self.project, self.name = client, project, name

    @asked
    def check_env(self, env: str) -> None:
        """Refuse a model of another environment.

        Raises:
            RegistryError: It is.
        """
        found = self._model_tags().get(ENV, env)
        if found != env:
            raise RegistryError(
                f"{self.name}: found a registered model of {found}; allowed: one of {env}, or a new"
                " one by --name"
            )

    @asked
    def champion(self) -> ModelVersion | None:
        """The champion, or None while there is none."""
        try:
            return self.client.get_model_version_by_alias(self.name, CHAMPION)
        except Exception as error:
            if error_code(error) in ABSENT:
                return None
            raise

    @asked
    def version_of(self, agent: str) -> ModelVersion | None:
        """The version of an agent by its digest, the first if machines raced, or None."""
        same = [v for v in self._versions() if v.tags.get(AGENT) == agent]
        return min(same, key=lambda version: int(version.version), default=None)

    @asked
    def run(self, key: str, name: str, parent: str | None) -> Run:
        """Find or create the run that registers an agent.

        Args:
            key: Of the run. name: Shown. parent: Id of the run that it belongs to.
        """
        body = {"experiment": EXPERIMENT, "key": key, "name": name}
        start = Event(
            "start",
            time.time_ns() // 1_000_000,
            body | {"parent_key": None, "parent_run_id": parent, "tags": {}},
            0,
        )
        return open_run(self.client, self.project, start, UploadState())[0]

    @asked
    def known_run(self, key: str) -> Run | None:
        """A tracked run by the key of a stage or pipeline, or None."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        return None if found is None else find_run(self.client, found.experiment_id, key)

    @asked
    def register(self, folder: Path, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """Upload a model as artifacts of a run, and make it a version with its tags.

        Args:
            folder: Of the model. run_id: Of the run. tags: Among them digest and environment.
        """
        self.client.log_artifacts(run_id, str(folder), MODEL)
        try:
            self.client.create_registered_model(self.name, {ENV: tags[ENV]})
        except Exception as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"runs:/{run_id}/{MODEL}"
        return self.client.create_model_version(self.name, source, run_id, dict(tags))

    @asked
    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version; values that are there already cost nothing."""
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self.client.set_model_version_tag(self.name, version.version, key, value)

    @asked
    def fetch(self, version: ModelVersion, target: Path) -> Path:
        """Download the agent of a version, from wherever the store keeps it.

        Args:
            target: Folder to write below.

        Returns:
            The folder of the agent.
        """
        from mlflow.artifacts import download_artifacts

        source = self.client.get_model_version_download_uri(self.name, version.version)
        uri = f"{source.rstrip('/')}/artifacts/agent"
        return Path(
            download_artifacts(
                artifact_uri=uri, dst_path=str(target), tracking_uri=tracking_uri(self.project)
            )
        )

    @asked
    def challenge(self, version: ModelVersion) -> None:
        """Give a version the alias `challenger`."""
        self.client.set_registered_model_alias(self.name, CHALLENGER, version.version)

    @asked
    def before(self, champion: ModelVersion | None) -> list[str]:
        """Versions that were champion before this one, the last one at the end."""
        past = [str(each) for each in json.loads(self._model_tags().get(HISTORY, "[]"))]
        while champion is not None and past and past[-1] == str(champion.version):
            past.pop()
        return past

    @asked
    def crown(self, version: ModelVersion) -> None:
        """Make a version the champion, remembering the one before."""
        old = self.champion()
        if old is not None:
            self._remember([*self.before(old), str(old.version)])
        if ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(self.name, version.version, ROLLED_BACK)
        self.client.delete_registered_model_alias(self.name, CHALLENGER)
        self.client.set_registered_model_alias(self.name, CHAMPION, version.version)

    @asked
    def roll_back(self) -> tuple[str, str]:
        """Make the champion before this one champion again; versions deleted since are passed over.

        Returns:
            The version that was champion, and the one that is now.

        Raises:
            RegistryError: There is no champion, or none before this one.
        """
        champion = self.champion()
        if champion is None:
            raise RegistryError(f"{self.name}: found no champion; nothing to roll back")
        there = {str(version.version) for version in self._versions()}
        past = [each for each in self.before(champion) if each in there]
        if not past:
            raise RegistryError(
                f"{self.name}: found no champion before version {champion.version}; nothing to "
                "roll back to"
            )
        self.client.set_model_version_tag(self.name, champion.version, ROLLED_BACK, "true")
        self.client.set_registered_model_alias(self.name, CHAMPION, past[-1])
        self._remember(past[:-1])
        return str(champion.version), past[-1]

    @asked
    def record(self, run: Run, metrics: Mapping[str, float], path: Path) -> None:
        """Log what the gate found to the run of a version, and end it."""
        for key, value in metrics.items():
            if run.data.metrics.get(key) != value:
                self.client.log_metric(run.info.run_id, key, value)
        self.client.log_artifact(run.info.run_id, str(path))
        self.client.set_terminated(run.info.run_id)

    def _remember(self, past: list[str]) -> None:
        text = json.dumps(past[-REMEMBERED:])
        self.client.set_registered_model_tag(self.name, HISTORY, text)

    def _versions(self) -> list[ModelVersion]:
        found = list(self.client.search_model_versions(f"name='{self.name}'"))
        return [version for version in found if version.status == "READY"]

    def _model_tags(self) -> dict[str, str]:
        try:
            return dict(self.client.get_registered_model(self.name).tags)
        except Exception as error:
            if error_code(error) == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
