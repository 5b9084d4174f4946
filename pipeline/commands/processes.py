"""Other commands as processes: DVC above all, with this environment's Python for the stages."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipeline.scratch import Interrupted


def environment_of_stages() -> dict[str, str]:
    """This process's environment, in which `pipeline/stages/run.sh` finds this Python."""
    folder = Path(sys.executable).parent
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path}


@contextmanager
def stoppable() -> Iterator[None]:
    """Leave by an exception on SIGTERM, as Python does on Ctrl-C."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
