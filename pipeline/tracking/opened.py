"""The run that `mlflow run` opened: figures of what was done under it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.tracking.place import QUIET, environment, http_patience, tracking_uri
from pipeline.tracking.store import TrackingError, connect


def tell(root: Path, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Give the run metrics and tags; they stand elsewhere too, so that nothing waits here.

    Args:
        root: Project root, for the default tracking URI. run_id: Of the run on the server.

    Raises:
        TrackingError: The server is away, or refuses.
    """
    try:
        with environment(QUIET | http_patience(5)):
            client = connect(root)
            for key, value in metrics.items():
                client.log_metric(run_id, key, value)
            for name, text in tags.items():
                client.set_tag(run_id, name, text)
    except Exception as error:  # whatever a server, its proxy or a client library raises
        reason = " ".join(str(error).split())[:300]
        raise TrackingError(f"{tracking_uri(root)}: {reason or type(error).__name__}") from error
