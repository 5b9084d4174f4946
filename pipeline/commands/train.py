"""`dreamer train`: the stages of the pipeline in one process, in a folder of their own.

The folder is a workspace like the repository. `.stages/<stage>.json` in it says what a finished
stage was made from and what it wrote, so that the same command again skips what is done; a stage
that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamer.types import DreamerError
from pipeline.commands.settings import (
    PARAMS,
    Resolved,
    Wishes,
    observe_spec,
    resolve,
    write_params,
)
from pipeline.commands.summary import figures_lines, read_figures
from pipeline.flat_config import check_dims
from pipeline.params import Raw
from pipeline.scratch import Interrupted
from pipeline.stages.session import STAGES, Workspace, prepare
from pipeline.stages.skipping import RECORDS, run_unless_done
from pipeline.tracking import tracking_uri
from pipeline.write_ahead_log import locked

log = logging.getLogger(__name__)


def run(wishes: Wishes, checkpoint: Path | None) -> Iterator[str]:
    """Train, or go on training, and tell what came of it.

    Args:
        wishes: About the parameters.
        checkpoint: Folder to read and write; by default one below `outputs`.

    Raises:
        DreamerError: On every mistake that can be found before the first file is written.
        Interrupted: After a signal, once a checkpoint is written.
    """
    resolved = resolve(wishes)
    prepare(resolved.params)
    check_dims(observe_spec(resolved.params.env), resolved.expectations)
    root = checkpoint or default_folder(resolved.raw)
    with claimed(root):
        _announce(resolved, root)
        write_params(root / PARAMS, resolved.raw)
        workspace = Workspace(root, project=Path.cwd())
        try:
            for name in STAGES:
                run_unless_done(name, resolved.raw, workspace)
        except Interrupted:
            log.info("Stopped; the same command goes on from here")
            raise
    yield from _farewell(root)


def default_folder(raw: Raw) -> Path:
    """Where a training goes that was not told: named after environment and seed."""
    name = re.sub(r"[^\w.-]+", "_", str(raw["env"]["id"])).strip("_")
    return Path("outputs") / f"{name}-seed{raw['seed']}"


@contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Keep other trainings out of the folder while one works there.

    Raises:
        DreamerError: Somebody does already, the folder holds something else, or cannot be made.
    """
    records = root / RECORDS
    if root.is_dir() and not records.is_dir() and any(root.iterdir()):
        raise DreamerError(
            f"{root}: found a folder with other things in it; allowed: a new or empty folder, or "
            "one that `dreamer train` made"
        )
    try:
        records.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DreamerError(f"{root}: cannot be made or written: {error.strerror}") from error
    with locked(records / "lock", wait=False) as held:
        if not held:
            raise DreamerError(f"{root}: another `dreamer train` is at work there")
        yield


def _announce(resolved: Resolved, root: Path) -> None:
    for note in resolved.notes:
        log.info("%s", note)
    log.info("Folder: %s", root)


def _farewell(root: Path) -> Iterator[str]:
    workspace = Workspace(root)
    figures = read_figures(workspace.reports("evaluate") / "metrics.json")
    yield from figures_lines(figures)
    yield f"agent      {workspace.agent / 'best'} (best by validation), {workspace.agent / 'last'}"
    pictures = sorted(path for path in (root / "reports").rglob("*.png"))
    yield from (f"picture    {path}" for path in pictures)
    yield f"play it    dreamer play {root}"
    yield f"curves     {how_to_see_curves(Path.cwd())}"


def how_to_see_curves(project: Path) -> str:
    """Command, or address, that shows the tracked runs."""
    uri = tracking_uri(project)
    if uri.startswith("http"):
        return uri
    if (project / "Makefile").exists() and (project / PARAMS).exists():
        return "make ui"
    return f"mlflow ui --backend-store-uri {uri}"
