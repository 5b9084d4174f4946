"""Stages outside of DVC, in a folder of their own: each runs unless what it wrote is still right.

`.stages/<stage>.json` in the folder says what a finished stage was made from and what it wrote.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import ModuleType

from dreamer.types import DataError
from pipeline.params import Raw
from pipeline.scratch import fingerprint
from pipeline.stages import collect, evaluate, pretrain, train
from pipeline.stages.command import run_stage
from pipeline.stages.session import STAGES, Workspace, fingerprint_of

MODULES: dict[str, ModuleType] = {
    "collect": collect,
    "pretrain": pretrain,
    "train": train,
    "evaluate": evaluate,
}
RECORDS = ".stages"

log = logging.getLogger(__name__)


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
