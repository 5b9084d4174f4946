"""What can be typed after `dreamer`: each command's words, and the function that runs it.

Commands themselves are imported when they run, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence

from pipeline.arguments import agents, pages, project, registry, repro, serving, training, tuning
from pipeline.arguments.parser import Parser, parser_of_commands

EXAMPLES = """\
examples:
  dreamer train                                  CartPole-v1, parameters of params.yaml
  dreamer train --env Pendulum-v1 --steps 24000  another environment
  dreamer play outputs/CartPole-v1-seed0         record an episode of what was learned
  dreamer use list                               tasks with tuned parameters
"""
IN_ORDER_OF_HELP = (
    training.add_train,
    repro.add_repro,
    tuning.add_tune,
    agents.add_evaluate,
    agents.add_play,
    agents.add_inspect,
    serving.add_package,
    serving.add_serve,
    pages.add_report,
    registry.add_promote,
    registry.add_rollback,
    project.add_use,
    project.add_views,
    project.add_sync,
    pages.add_summary,
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the words after `dreamer`.

    Returns:
        The arguments of the command, and as `run` the function that takes them and yields what
        to print.

    Raises:
        SystemExit: After a mistake, which is on stderr then, and after `--help`.
    """
    parser, choose = parser_of_commands(EXAMPLES)
    for add in IN_ORDER_OF_HELP:
        add(choose)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command: Parser = choose.choices[args.command]
        known = re.findall(r"--[a-z-]+", command.format_help())
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        command.error(f"unknown argument {unknown[0]!r}{hint}")
    return args
