"""One training of the stage `seeds`, in a process and a folder of its own.

`python -m pipeline.stages.one_seed FOLDER` runs the stages of a training with the parameters that
the folder holds; a stage that is done is skipped, one that was interrupted goes on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from dreamer.types import DreamerError
from pipeline.params import Raw
from pipeline.progress import configure_logging
from pipeline.report.tables import write_json
from pipeline.stages.session import STAGES, Workspace
from pipeline.stages.side_by_side import Process, end_with_parent, spawn
from pipeline.stages.skipping import RECORDS, run_unless_done
from pipeline.write_ahead_log import locked

ORDER = "order.json"  # what the process is to do

log = logging.getLogger(__name__)


def start(raw: Raw, folder: Path, part_of: str) -> Process:
    """Train with the parameters `raw` in a new process, which writes to a log beside the folder.

    The process gets its parameters from here, so that `params.yaml` may be edited meanwhile.

    Args:
        part_of: Key of the tracked pipeline that the training belongs to.
    """
    write_json(folder / ORDER, {"parameters": raw, "part_of": part_of})
    return spawn([__name__, str(folder)], log_of(folder))


def log_of(folder: Path) -> Path:
    """What the process says."""
    return folder.with_suffix(".log")


def train(folder: Path) -> None:
    """Do what is written in the folder."""
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    workspace = Workspace(folder, project=Path.cwd(), part_of=order["part_of"])
    (folder / RECORDS).mkdir(exist_ok=True)
    # Whoever is still here was left by a stage that was killed, and is about to end.
    with locked(folder / RECORDS / "lock"):
        for name in STAGES:
            run_unless_done(name, order["parameters"], workspace)


def main(folder: Path) -> None:
    """Train; mistakes end in one line and status 2."""
    configure_logging(os.environ.get("DREAMER_LOG_LEVEL", "info"))
    end_with_parent()
    try:
        train(folder)
    except DreamerError as error:
        log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
