"""Workers as processes: started, watched, started again when they are killed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from dreamer.types import DreamerError

RESTARTS = 3  # of one worker; who dies more often has a reason
PATIENCE = 60.0  # seconds in which a worker that was told to stop writes its checkpoint

log = logging.getLogger(__name__)


class Member(NamedTuple):
    """One worker: its process, its log and how often it was started again."""

    process: subprocess.Popen[bytes]
    log: Path
    restarts: int


class Crew:
    """`with Crew(path, 2) as crew: for _ in crew.watch(2.0): ...`; leaving stops who is at work.

    Args:
        plan: File that `Plan.write` wrote; logs go beside it. workers: How many.
    """

    def __init__(self, plan: Path, workers: int) -> None:
        self._plan = plan
        name = f"worker-{os.getpid()}"  # another command may work on the same study
        self._members = [self._start(plan.parent / f"{name}-{n}.log", 0) for n in range(workers)]

    def __enter__(self) -> Self:
        return self

    def watch(self, seconds: float) -> Iterator[None]:
        """Wait for all workers; yield every so many seconds and once they are done.

        Raises:
            DreamerError: A worker gave up; says why and where its log is.
        """
        while at_work := [n for n in range(len(self._members)) if self._renewed(n)]:
            yield
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._members[at_work[0]].process.wait(seconds)
        yield

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for member in self._at_work():
            member.process.send_signal(signal.SIGTERM)
        for member in self._members:
            try:
                member.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def _at_work(self) -> list[Member]:
        return [member for member in self._members if member.process.poll() is None]

    def _renewed(self, number: int) -> bool:
        """Whether a worker is at work, perhaps after being started again."""
        member = self._members[number]
        status = member.process.poll()
        if status is None:
            return True
        if status == 0:
            return False
        # A shell's way to say it, which a stage uses that wrote its checkpoint first.
        status = 128 - status if status > 128 else status
        if status < 0 and member.restarts < RESTARTS:
            name = signal.Signals(-status).name
            log.warning("worker %d ended by %s and is started again", number, name)
            self._members[number] = self._start(member.log, member.restarts + 1)
            return True
        raise DreamerError(f"worker {number} gave up: {_last_line(member.log)}; see {member.log}")

    def _start(self, path: Path, restarts: int) -> Member:
        words = [sys.executable, "-m", "pipeline.tune.worker", str(self._plan)]
        with path.open("ab" if restarts else "wb") as output:
            process = _spawn(words, output)
        return Member(process, path, restarts)


def _spawn(words: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env
    )


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
