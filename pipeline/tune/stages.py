"""Backend `inprocess`: the stages of `dreamer train`, each made once for all trials.

A stage lies in `outputs/tune/stages/<stage>/<fingerprint>/`, named after its parameters, inputs and
code, so trials that agree in what a stage reads share it. Whoever comes second waits for the lock
of the folder, which the kernel releases when its owner is killed, and then finds the stage done, or
goes on from its checkpoint.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.closure import ROOT, import_closure
from pipeline.params import Raw, from_raw, subset
from pipeline.scratch import fingerprint
from pipeline.stages.session import STAGES, Workspace, prepare
from pipeline.stages.skipping import RECORDS, run_unless_done
from pipeline.tune.figures import Outcome, read_metrics
from pipeline.write_ahead_log import locked

log = logging.getLogger(__name__)


def train(raw: Raw, store: Path) -> Outcome:
    """Collect, pretrain, train and evaluate, as far as that was not done before.

    Args:
        raw: Parameters of the stages. store: Where stages keep what they made.

    Raises:
        DreamerError: The parameters do not fit each other or the environment.
        Interrupted: After a signal, once a checkpoint is written.
    """
    prepare(from_raw(raw))
    made: dict[str, Path] = {}
    mine = []
    for name, stage in STAGES.items():
        inputs = {dep: made[dep] for dep in stage.deps}
        folder = store / name / _key(name, raw, inputs)
        if _made(name, raw, folder, inputs):
            mine.append(name)
        made |= {out: folder / out for out in stage.outs}
    metrics = read_metrics(made["reports/evaluate"] / "metrics.json")
    return Outcome(metrics, tuple(mine), made["reports/train"] / "validation.csv")


def _key(name: str, raw: Raw, inputs: Mapping[str, Path]) -> str:
    code = [ROOT / path for path in import_closure(f"pipeline.stages.{name}")]
    return fingerprint(name, subset(raw, STAGES[name].params), inputs.values(), code)[:32]


def _made(name: str, raw: Raw, folder: Path, inputs: Mapping[str, Path]) -> bool:
    """Make a stage unless it is there; return whether this call did."""
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    with _owned(folder, name):
        for dep, path in inputs.items():
            _link(folder / dep, path)
        record = folder / RECORDS / f"{name}.json"
        before = record.stat().st_mtime_ns if record.exists() else None
        run_unless_done(name, raw, Workspace(folder))
        shutil.rmtree(folder / ".runs", ignore_errors=True)  # trials are tracked, not their stages
        return record.stat().st_mtime_ns != before


@contextmanager
def _owned(folder: Path, name: str) -> Iterator[None]:
    with locked(folder / "lock", wait=False) as free:
        if free:
            yield
            return
    log.info("%s: another worker is making the same one; waiting for it", name)
    with locked(folder / "lock"):
        yield


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink():  # left by a worker that was killed
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
