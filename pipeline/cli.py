"""The `dreamer` command: it runs what `pipeline.arguments` read, and answers mistakes.

A mistake of the user is one line on stderr and status 2; anything unexpected keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterable, Sequence

from pipeline.arguments import parse
from pipeline.arguments.parser import MISTAKE

INTERRUPTED, CLOSED_PIPE = 130, 141
# What a disk or its owner may refuse; other operating-system errors are ours and keep a traceback.
REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after `dreamer`; those of this process unless given.

    Returns:
        Exit status: 0, 2 after a mistake of the user, 130 after Ctrl-C.

    Raises:
        SystemExit: From argparse, from a stage that a signal stopped (128 + signal), and from a
            gate that refused (1).
    """
    args = parse(argv)
    if "" not in sys.path:  # `--env module:Id` may lie in the current folder, as for `python -m`
        sys.path.append("")
    try:
        for line in _lines(args):
            print(line, flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `dreamer inspect ... | head`
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except Exception as error:
        mistake = _explained(error)
        if mistake is None:
            raise
        print(mistake, file=sys.stderr)
        return MISTAKE
    return 0


def _lines(args: argparse.Namespace) -> Iterable[str]:
    """Run the command that was typed; it yields what to print."""
    from pipeline.progress import configure_logging

    level = getattr(args, "log_level", None) or os.environ.get("DREAMER_LOG_LEVEL") or "info"
    configure_logging(level)
    lines: Iterable[str] = args.run(args)
    return lines


def _explained(error: Exception) -> str | None:
    """One line for a mistake that the user can act on, None for anything else."""
    from dreamer.types import DreamerError
    from pipeline.progress import ERASE, on_terminal

    if isinstance(error, DreamerError):
        reason = str(error)
    elif isinstance(error, OSError) and error.errno in REFUSALS:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    else:
        return None
    line = f"dreamer: error: {' '.join(reason.split())}"
    return (ERASE if on_terminal(sys.stderr) else "") + line


if __name__ == "__main__":
    sys.exit(main())
