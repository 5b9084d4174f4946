"""The parser of the `dreamer` command and of what stands behind it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

MISTAKE = 2
FOLDER = "folder of a checkpoint, or one that `dreamer train` wrote (then its best agent)"
SHAPE = argparse.RawDescriptionHelpFormatter

Run = Callable[[argparse.Namespace], Iterable[str]]


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line; argparse would print its usage first."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end the process with status 2."""
        where = self.prog.partition(" ")[2]
        prefix = f"{where}: " if where else ""
        self.exit(MISTAKE, f"dreamer: error: {prefix}{message}; see `{self.prog} --help`\n")


if TYPE_CHECKING:
    Choose = argparse._SubParsersAction[Parser]


def parser_of_commands(examples: str) -> tuple[Parser, Choose]:
    """The parser of `dreamer`, and where commands are added."""
    parser = Parser(
        prog="dreamer",
        description="Train, evaluate and look at DreamerV3 world-model agents.",
        epilog=examples,
        formatter_class=SHAPE,
        allow_abbrev=False,
    )
    return parser, parser.add_subparsers(dest="command", metavar="COMMAND", required=True)


def add_command(
    choose: Choose, name: str, summary: str, run: Run, examples: str | None = None
) -> Parser:
    """Add a command.

    Args:
        summary: What it does, in lower case and without a full stop.
        run: Takes the arguments and yields what to print; it imports what it needs.
        examples: Printed below the help.

    Returns:
        Its parser, for its arguments.
    """
    parser = choose.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=SHAPE,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def whole(text: str) -> int:
    """Read a whole number; `mlflow run` may write 3 as 3.0, and people 1e5."""
    try:
        number = float(text)
        if number.is_integer() and abs(number) < 2**53:
            return int(number)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a whole number")
