"""Processes side by side: started as places become free, and stopped in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

Job = TypeVar("Job")
Process = subprocess.Popen[bytes]
POLL_SECONDS = 0.1
REMIND_SECONDS = 10.0


def side_by_side(
    jobs: Iterable[Job],
    workers: int,
    *,
    start: Callable[[Job], Process],
    ended: Callable[[Job, int], None],
    meanwhile: Callable[[Collection[Job]], bool],
) -> None:
    """Do jobs, `workers` at a time; whoever is at work when this is left is stopped first.

    Args:
        start: Starts the process of a job. ended: Is told its exit status.
        meanwhile: Is told now and then who is at work; returns whether to go on.
    """
    waiting, running = deque(jobs), dict[Job, Process]()
    try:
        while (waiting or running) and meanwhile(running.keys()):
            while waiting and len(running) < workers:
                job = waiting.popleft()
                running[job] = start(job)
            time.sleep(POLL_SECONDS)
            for job in [job for job, process in running.items() if process.poll() is not None]:
                with running.pop(job) as process:  # closes its pipe
                    ended(job, process.wait())
    finally:
        stop(list(running.values()))


def spawn(words: Sequence[str], log: Path) -> Process:
    """Start a module of Python that writes into `log`, in place of what was there.

    It is a session of its own, so that Ctrl-C reaches only this process, which then stops it in
    order; and it reads from a pipe, whose end tells `end_with_parent` that this process is gone.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_with_parent() -> None:
    """From here on this process receives SIGTERM once the one that spawned it is gone."""

    def follow() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def stop(processes: Sequence[Process]) -> None:
    """Ask processes to write their checkpoints and end; wait until they have.

    They are reminded now and then, because a request during a stage that does not look for one is
    forgotten when the next stage begins.
    """
    try:
        while at_work := [process for process in processes if process.poll() is None]:
            for process in at_work:
                process.terminate()
            until = time.monotonic() + REMIND_SECONDS
            while time.monotonic() < until and any(p.poll() is None for p in at_work):
                time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            with process:
                if process.poll() is None:
                    process.kill()


def last_line(path: Path) -> str:
    """What a process said last, without the level of the message."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return re.sub(r"^[A-Z]+ - ", "", lines[-1]) if lines else "nothing was said yet"
