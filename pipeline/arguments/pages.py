"""`dreamer report` and `summary`: what a training came to, as a page and in words."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments.parser import add_command

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose

EXAMPLES = """\
Writes reports/report.html, which needs nothing beside it, and reports/model_card.md.

examples:
  dreamer report                                 of the pipeline that dvc repro ran here
  dreamer report --base main                     with the parameters that differ from main's
  dreamer report outputs/a --beside outputs/b --beside outputs/c
"""


def add_report(choose: Choose) -> None:
    """Write the page about a training."""
    summary = "write one page about a training, and its model card"
    add = add_command(choose, "report", summary, _report, EXAMPLES).add_argument
    add(
        "folder",
        metavar="TRAINING",
        type=Path,
        nargs="?",
        default=Path(),
        help="a folder that `dreamer train` made; default: the repository of the pipeline, here",
    )
    add(
        "--beside",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="another training, e.g. of another seed, to draw beside it; may be repeated",
    )
    add("--base", metavar="REV", default="HEAD", help="whose params.yaml holds the defaults")
    add("--out", metavar="DIR", type=Path, help="folder to write to; default: reports of TRAINING")


def add_summary(choose: Choose) -> None:
    """Say what came of `dvc repro`."""
    add_command(choose, "summary", "say what `make repro` learned and where to look", _summary)


def _report(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import report

    beside = tuple(args.beside)
    wishes = report.Wishes(folder=args.folder, beside=beside, base=args.base, out=args.out)
    return report.run(wishes, Path.cwd())


def _summary(_args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import summary

    return summary.run(Path())
