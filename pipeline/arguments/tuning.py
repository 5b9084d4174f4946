"""`dreamer tune`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.arguments.parser import add_command, whole
from pipeline.arguments.training import add_parameters, parameters

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose

EXAMPLES = """\
Tries the points of `tune.space` in params.yaml, or of the lists in a JSON file. The same command
again goes on with what is left, and may be typed in several terminals at once: docs/tuning.md.

examples:
  dreamer tune --workers 2
  dreamer tune --config space.json --search tpe --trials 40
  dreamer tune --set 'tune.space={policy.clip_ratio: [0.1, 0.2]}' --storage sqlite:///tune.db
"""


def add_tune(choose: Choose) -> None:
    """Search parameters."""
    summary = "search better parameters, or go on searching"
    parser = add_command(choose, "tune", summary, _tune, EXAMPLES)
    add_parameters(parser)
    add = parser.add_argument
    add("--study", metavar="NAME", help="default: named after environment and parameters")
    add("--storage", metavar="S", help="a journal file or an Optuna URL; default: a journal")
    add("--search", choices=("grid", "tpe"), help="default: tune.search of params.yaml")
    add("--trials", metavar="N", type=whole, help="in all, earlier ones included")
    add("--workers", metavar="W", type=whole, default=1, help="processes; default: %(default)s")
    add(
        "--backend",
        choices=("inprocess", "dvc"),
        default="inprocess",
        help="who trains; dvc: each training is a DVC experiment; default: %(default)s",
    )
    add(
        "--apply",
        action="store_true",
        help="train the best again on other seeds and write the winner into params.yaml",
    )


def _tune(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.tune import command

    wishes = command.Wishes(
        parameters=parameters(args),
        study=args.study,
        storage=args.storage,
        search=args.search,
        trials=args.trials,
        workers=args.workers,
        backend=args.backend,
    )
    return command.apply(wishes) if args.apply else command.run(wishes)
