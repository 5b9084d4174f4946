"""How a stage is run: by DVC as `python -m pipeline.stages.NAME`, or inside `dreamer train`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dreamer.types import DreamerError
from pipeline.params import Params, Raw, from_raw, load_raw
from pipeline.progress import configure_logging
from pipeline.stages.session import Session, Workspace, open_session

Run = Callable[[Params, Session], None]
log = logging.getLogger(__name__)


def run_stage(name: str, run: Run, raw: Raw, workspace: Workspace) -> None:
    """Run one stage in a workspace with the parameters `raw`."""
    params = from_raw(raw)
    with open_session(name, params, raw, workspace) as session:
        run(params, session)


def main(name: str, run: Run) -> None:
    """Run a stage with `params.yaml` of the current folder; mistakes end in one line and status
    2.
    """
    configure_logging(os.environ.get("DREAMER_LOG_LEVEL", "info"))
    try:
        run_stage(name, run, load_raw("params.yaml"), Workspace(Path.cwd()))
    except DreamerError as error:
        log.error("%s: %s", name, error)
        sys.exit(2)
