"""Views of an experiment in MLflow's interface: which runs, columns and charts a link opens with.

MLflow keeps a view that somebody shares as a tag of the experiment, `mlflow.sharedViewState.<key>`,
and opens it by `?viewStateShareKey=<key>`; what a view leaves out is as usual.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.tracking.place import QUIET, environment, http_patience, tracking_uri
from pipeline.tracking.store import TrackingError, connect

SHARED = "mlflow.sharedViewState."
RETURN = "metrics.`episode/return`"
# Runs lie below their parents only while they are sorted by time.
PIPELINES: dict[str, Any] = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "selectedColumns": [
        RETURN,
        "metrics.`episode/return_ci_low`",
        "metrics.`episode/return_ci_high`",
        "params.`seed`",
        "params.`train.env_steps`",
        "tags.`git_commit`",
    ],
}
TRAININGS: dict[str, Any] = {
    "searchFilter": "tags.stage = 'train'",
    "orderByKey": "metrics.`validation/best`",
    "orderByAsc": False,
    "selectedColumns": ["metrics.`validation/best`", "params.`env.id`", "params.`seed`"],
    "chartsSearchFilter": "validation/|episode/return|world/|policy/entropy",
}
VIEWS = {"pipelines": (PIPELINES, ""), "trainings": (TRAININGS, "&compareRunsMode=CHART")}


def keep_views(root: Path, experiment: str) -> dict[str, str]:
    """Store the views in an experiment.

    Args:
        root: Project root, for the default tracking URI. experiment: Its name.

    Returns:
        Name -> path below the address of the server; nothing if there is no such experiment yet.

    Raises:
        TrackingError: The server is away.
    """
    try:
        with environment(QUIET | http_patience(5)):
            client = connect(root)
            found = client.get_experiment_by_name(experiment)
            if found is None:
                return {}
            for name, (view, _) in VIEWS.items():
                client.set_experiment_tag(found.experiment_id, SHARED + name, json.dumps(view))
    except Exception as error:  # whatever a server, its proxy or a client library raises
        reason = " ".join(str(error).split())[:300]
        raise TrackingError(f"{tracking_uri(root)}: {reason or type(error).__name__}") from error
    page = f"/#/experiments/{found.experiment_id}/runs?viewStateShareKey="
    return {name: f"{page}{name}{mode}" for name, (_, mode) in VIEWS.items()}
