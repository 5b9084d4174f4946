"""`dreamer promote` and `rollback`: which agent the registry calls champion."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments.parser import FOLDER, add_command

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose

PROMOTE = """\
The agent becomes a version of a registered model and plays the same episodes as the champion; the
section `promote` of params.yaml says what it must reach: docs/registry.md. Ends with 0 if the agent
is the champion then, 1 if the gate refused it, 2 after a mistake.

examples:
  dreamer promote                                the agent that dvc repro trained here
  dreamer promote outputs/CartPole-v1-seed0
  dreamer promote outputs/trial --name dreamer-trials
"""
ROLLBACK = """\
examples:
  dreamer rollback                               of the environment of `promote` in params.yaml
  dreamer rollback --name dreamer-Pendulum-v1
"""
NAME = "registered model; default: dreamer-<environment>"


def add_promote(choose: Choose) -> None:
    """Let an agent challenge the champion."""
    summary = "register an agent, and make it champion if it passes the gate"
    add = add_command(choose, "promote", summary, _promote, PROMOTE).add_argument
    add("folder", metavar="CHECKPOINT", type=Path, nargs="?", default=Path(), help=FOLDER)
    add("--name", metavar="NAME", help=NAME)
    add("--again", action="store_true", help="even if the agent was rolled back")


def add_rollback(choose: Choose) -> None:
    """Take a promotion back."""
    summary = "make the champion before this one champion again"
    parser = add_command(choose, "rollback", summary, _roll_back, ROLLBACK)
    parser.add_argument("--name", metavar="NAME", help=NAME)


def _promote(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import promote

    wishes = promote.Wishes(folder=args.folder, name=args.name, again=args.again)
    return promote.run(wishes, Path.cwd())


def _roll_back(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import promote

    return promote.roll_back(args.name, Path.cwd())
