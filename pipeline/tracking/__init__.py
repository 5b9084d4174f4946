"""Tracking that cannot stop or slow a run: a write-ahead log first, MLflow in the background.

`Tracker` only appends to `.runs/<run key>/events.jsonl`. A daemon thread brings the log to the
tracking server with an `Uploader`, and `sync` does the same later for what an outage left behind. A
run is found on the server by its own key (tag `dreamer.run_key`), so it may begin while the server
is away and a resumed stage continues it.

Importing this takes no MLflow: the thread imports it when a run is under way.
"""

from pipeline.tracking.backlog import SyncReport, sync
from pipeline.tracking.place import git_commit, project_root, tracking_uri
from pipeline.tracking.store import TrackingError
from pipeline.tracking.tracker import RunIdentity, Tracker

__all__ = [
    "RunIdentity",
    "Tracker",
    "TrackingError",
    "SyncReport",
    "sync",
    "tracking_uri",
    "project_root",
    "git_commit",
]
