"""A file for a run that has ended, such as its report; the run's times and status stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.tracking.place import QUIET, environment, http_patience, project_root
from pipeline.tracking.store import TrackingError
from pipeline.tracking.uploader import Uploader
from pipeline.write_ahead_log import LogWriter, keep_copy, log_size


def attach(root: Path, key: str, paths: Sequence[Path], folder: str) -> str:
    """Log files as artifacts of a run that this project tracks.

    Args:
        root: Project root. key: Of the run. paths: Files. folder: Of the run's artifacts.

    Returns:
        What came of it, in words; a server that is away is no mistake, `dreamer sync` brings the
        files later.
    """
    if os.environ.get("DREAMER_TRACKING", "").lower() == "off":
        return "not logged, tracking is off"
    directory = project_root(root) / ".runs" / key
    if not log_size(directory):
        return "not logged, no run of these parameters and this code is tracked here"
    log = LogWriter(directory)
    for path in paths:
        log.append("artifact", {"path": keep_copy(directory, path), "folder": folder})
    log.close()
    try:
        with environment(QUIET | http_patience(5)):
            sent = Uploader(directory, root).upload()
    except TrackingError as error:
        return f"waits for `dreamer sync`: {error}"
    return "logged" if sent else "waits for the process that is uploading this run"
