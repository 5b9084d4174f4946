"""`dreamer repro`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.arguments.parser import add_command
from pipeline.arguments.training import add_parameters, parameters

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose

STAGES = ("collect", "pretrain", "train", "evaluate")
EXAMPLES = """\
DVC sees nothing but params.yaml, so parameters are written into it; comments stay.

examples:
  dreamer repro                                  the whole pipeline, as `dvc repro`
  dreamer repro --preset pendulum --seed 3       of a preset
  dreamer repro pretrain                         one stage with what it needs
"""


def add_repro(choose: Choose) -> None:
    """Write parameters into params.yaml and run the pipeline."""
    summary = "set parameters and run the pipeline with DVC"
    parser = add_command(choose, "repro", summary, _repro, EXAMPLES)
    parser.add_argument("stage", metavar="STAGE", nargs="?", choices=STAGES, help=", ".join(STAGES))
    add_parameters(parser)


def _repro(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import repro

    return repro.run(parameters(args), args.stage, args.log_level)
