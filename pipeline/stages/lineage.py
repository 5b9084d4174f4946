"""What tracking is told about where a stage's inputs came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.scratch import fingerprint
from pipeline.tracking import Tracker

RAN = "stages"  # folder beside a pipeline run's log: one file per stage that ran under it


def mark_run(pipeline_folder: Path, stage: str, key: str) -> None:
    """Note that `stage` ran, as run `key`, under the pipeline run kept in `pipeline_folder`."""
    folder = pipeline_folder / RAN
    folder.mkdir(parents=True, exist_ok=True)
    (folder / stage).write_text(key, encoding="utf-8")


def link_reused(summary: Tracker, pipeline_folder: Path, upstream: Mapping[str, str]) -> None:
    """Tag the pipeline run with the runs of stages that DVC skipped because their results stand.

    Args:
        summary: Run of the whole pipeline.
        upstream: Earlier stage -> key of the run that made its outs.
    """
    skipped = {
        f"reused.{stage}": key
        for stage, key in upstream.items()
        if not (pipeline_folder / RAN / stage).exists()
    }
    if skipped:
        summary.tags(skipped)


def log_inputs(tracker: Tracker, root: Path, deps: tuple[str, ...]) -> None:
    """Record every input folder as a dataset with a digest of its contents."""
    for dep in deps:
        digest = fingerprint(dep, {}, [root / dep])
        tracker.dataset(dep.rsplit("/", 1)[-1], digest[:36], {"path": dep})
