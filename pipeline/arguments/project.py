"""`dreamer use`, `views` and `sync`: what is done to the repository and its tracking."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments.parser import add_command

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose

USE = """\
DVC sees nothing but params.yaml, so the preset is written into it; comments stay.

examples:
  dreamer use list
  dreamer use pendulum && dvc repro
"""


def add_use(choose: Choose) -> None:
    """Write a preset into params.yaml."""
    parser = add_command(choose, "use", "write a preset into params.yaml, or list them", _use, USE)
    parser.add_argument("name", metavar="NAME", help="a preset, or `list`")


def add_views(choose: Choose) -> None:
    """Keep views of the runs."""
    summary = "keep views of the runs in MLflow, and say where they open"
    add_command(choose, "views", summary, _views)


def add_sync(choose: Choose) -> None:
    """Upload what an outage left behind."""
    add_command(choose, "sync", "upload tracking data that an outage left behind", _sync)


def _use(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import project

    return project.use(args.name)


def _views(_args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import project

    return project.views(Path.cwd())


def _sync(_args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import project

    return project.sync_runs(Path.cwd())
