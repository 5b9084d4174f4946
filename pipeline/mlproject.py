"""Entry points of `MLproject`: what `mlflow run` says, as words of the `dreamer` command.

Usage: python -m pipeline.mlproject ENTRY [--NAME VALUE]...
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import cli
from pipeline.arguments.parser import MISTAKE
from pipeline.tracking.place import adopt_mlflow_run

ENTRIES = {
    "main": ("repro",),
    "collect": ("repro", "collect"),
    "pretrain": ("repro", "pretrain"),
    "train": ("repro", "train"),
    "evaluate": ("repro", "evaluate"),
    "tune": ("tune",),
}
PARAMETERS = ("preset", "env", "steps", "seed", "device", "set")
OF_TUNE = ("config", "study", "storage", "search", "trials", "workers", "backend")
EVALUATED = ("main", "evaluate")  # entries after which there are figures of this pipeline

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run an entry point.

    Args:
        argv: Its name, then names and values of parameters by turns.

    Returns:
        Exit status, as of the `dreamer` command.
    """
    entry, *said = argv
    try:
        words = [*ENTRIES[entry], *translated(said)]
    except ValueError as error:
        print(f"dreamer: error: {entry}: set: {error}", file=sys.stderr)
        return MISTAKE
    # Pipelines and studies are children of the run that MLflow opened; nobody may continue it.
    opened = adopt_mlflow_run()
    status = cli.main(words)
    if status == 0 and opened and entry in EVALUATED:
        _tell_figures(opened)
    return status


def translated(said: Sequence[str]) -> Iterator[str]:
    """Leave out what was not given; make settings of `--set 'a=1 b=2'`.

    MLflow hands on parameters that MLproject does not list: they stay, for the command to refuse.

    Raises:
        ValueError: A quotation in the settings does not end.
    """
    optional = {f"--{name}" for name in (*PARAMETERS, *OF_TUNE)}
    for name, value in zip(said[::2], said[1::2], strict=True):
        if name == "--set":
            yield from (f"--set={setting}" for setting in shlex.split(value))
        elif value or name not in optional:
            yield f"{name}={value}"


def _tell_figures(run_id: str) -> None:
    """Show the figures at the run that MLflow opened, and which pipeline they are of."""
    from pipeline.commands.settings import PARAMS
    from pipeline.commands.summary import read_figures
    from pipeline.params import load_raw
    from pipeline.stages.session import Workspace, pipeline_key
    from pipeline.tracking import TrackingError
    from pipeline.tracking.opened import tell

    root = Path.cwd()
    figures = read_figures(Workspace(root).reports("evaluate") / "metrics.json")
    try:
        tell(root, run_id, figures, {"dreamer.pipeline": pipeline_key(load_raw(PARAMS))})
    except TrackingError as error:
        log.warning("figures stand at the run of the pipeline alone: %s", error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
