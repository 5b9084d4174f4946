"""`dreamer sync`: upload what outages of the tracking server left behind."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.tracking.place import QUIET, environment, http_patience, project_root, tracking_uri
from pipeline.tracking.store import TrackingError
from pipeline.tracking.uploader import Uploader
from pipeline.write_ahead_log import count_pending

logger = logging.getLogger(__name__)


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
    with environment(QUIET | http_patience(60)):
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
