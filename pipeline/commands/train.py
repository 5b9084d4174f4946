"""`dreamer train`: the stages of the pipeline in one process, in a folder of their own.

The folder is a workspace like the repository. `.stages/<stage>.json` in it says what a finished
stage was made from and what it wrote, so that the same command again skips what is done; a stage
that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from dreamer.types import DataError, DreamerError
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
from pipeline.scratch import Interrupted, fingerprint
from pipeline.stages import collect, evaluate, pretrain, train
from pipeline.stages.command import run_stage
from pipeline.stages.session import STAGES, Workspace, fingerprint_of, prepare
from pipeline.tracking import tracking_uri
from pipeline.write_ahead_log import locked

MODULES: dict[str, ModuleType] = {
    "collect": collect,
    "pretrain": pretrain,
    "train": train,
    "evaluate": evaluate,
}
RECORDS = ".stages"

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


def run_unless_done(name: str, raw: Raw, workspace: Workspace) -> None:
    """Run a stage, unless its outs are whole and were made from the same things."""
    record = workspace.root / RECORDS / f"{name}.json"
    key = fingerprint_of(name, raw, workspace)
    if _is_done(name, key, record, workspace):
        return
    record.unlink(missing_ok=True)
    before = _files(name, workspace)
    run_stage(name, MODULES[name].run, raw, workspace)
    # What an earlier run left and this one did not replace does not belong to the outs.
    for path, identity in _files(name, workspace).items():
        if before.get(path) == identity:
            path.unlink()
    content = {"fingerprint": key, "outs": _checksum(name, workspace)}
    partial = record.with_suffix(".new")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
    partial.replace(record)


def _is_done(name: str, key: str, record: Path, workspace: Workspace) -> bool:
    """Whether the stage can be skipped; says so, or why not."""
    if not record.exists():
        return False
    try:
        content = json.loads(record.read_text(encoding="ascii"))
        outs = _checksum(name, workspace)
    except (ValueError, DataError) as error:
        log.info("%s: runs again: %s", name, error)
        return False
    if not isinstance(content, dict) or content.get("fingerprint") != key:
        log.info("%s: parameters, inputs or code changed since its last run; runs again", name)
        return False
    if content.get("outs") != outs:
        log.info("%s: what it wrote was changed since; runs again", name)
        return False
    log.info("%s: unchanged, skipped", name)
    return True


def _checksum(name: str, workspace: Workspace) -> str:
    """One checksum of all files that a stage wrote."""
    return fingerprint(name, {}, [workspace.root / out for out in STAGES[name].outs])


def _files(name: str, workspace: Workspace) -> dict[Path, tuple[int, int, int]]:
    """Files in the outs of a stage, with what changes when one is written."""
    outs = [workspace.root / out for out in STAGES[name].outs]
    files = [file for out in outs for file in sorted(out.rglob("*")) if file.is_file()]
    status = {file: file.stat() for file in files}
    return {f: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for f, s in status.items()}


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
