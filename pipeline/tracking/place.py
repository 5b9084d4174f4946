"""Where a project tracks to, under which parent, and from which commit.

Environment: `MLFLOW_TRACKING_URI` (default `sqlite:///mlflow.db` in the project, artifacts in
`mlartifacts/` beside it), `DREAMER_PARENT_RUN_ID`, and `DVC_ROOT`, which wins over the given root
so that `dvc exp run --temp` tracks to the parent.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

PARENT_VARIABLE = "DREAMER_PARENT_RUN_ID"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


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
    a pipeline or a study is a child of it instead.
    """
    inherited = os.environ.pop("MLFLOW_RUN_ID", None)
    if inherited:
        os.environ.setdefault(PARENT_VARIABLE, inherited)
    return os.environ.get(PARENT_VARIABLE)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that the user left unset, for a while."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def http_patience(seconds: int) -> dict[str, str]:
    """MLflow's own settings wait for minutes on a dead server."""
    return {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
    }


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
