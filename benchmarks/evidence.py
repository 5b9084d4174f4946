"""Gather evidence of what is learned: `python -m benchmarks.evidence`.

Every run of the matrix in `benchmarks.claims` and of the questions in `benchmarks.questions` that
has no row in `docs/results/` yet is made, several at a time, each in a process with one thread. A
campaign can be stopped or killed at any time; the same command continues it. Rows are committed by
hand; to repeat a run, delete its row.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.claims import MATRIX
from benchmarks.evidence_rows import (
    RESULTS,
    Job,
    code_checksum,
    differences,
    newer,
    parameters_of,
    raw_of,
    read_row,
)
from benchmarks.evidence_run import CodeChangedError, work
from benchmarks.questions import QUESTIONS
from benchmarks.results_page import write_page
from benchmarks.selection import select
from dreamer.types import DreamerError
from pipeline.closure import ROOT
from pipeline.progress import configure_logging, duration
from pipeline.scratch import Interrupted
from pipeline.stages.side_by_side import end_with_parent, side_by_side

WORK = ROOT / ".scratch" / "evidence"
PAGE = ROOT / "docs" / "results.md"
CODE_CHANGED = 75  # sysexits.h, EX_TEMPFAIL: the same again may succeed
CHILD_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",  # rows of one table come from one kind of processor
    "DREAMER_TRACKING": "off",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
FROM_THE_CALLER = ("DVC_ROOT", "DVC_STAGE")  # a run belongs to no DVC stage

Launch = Callable[[Job], "subprocess.Popen[bytes]"]

log = logging.getLogger("benchmarks")


def launch(job: Job, workers: int, folder: Path = WORK) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own, which writes to a log beside its folder.

    It is a session of its own, so that Ctrl-C reaches the campaign alone, which then stops it in
    order; and it reads from a pipe, whose end tells it that the campaign is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%s: at work", job.name)
    environment = {key: value for key, value in os.environ.items() if key not in FROM_THE_CALLER}
    command = [sys.executable, "-m", "benchmarks.evidence", "--work", job.name]
    with log_of(job, folder).open("ab") as output:
        return subprocess.Popen(
            [*command, "--workers", str(workers)],
            cwd=ROOT,
            env=environment | CHILD_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def log_of(job: Job, folder: Path = WORK) -> Path:
    """Where a run writes what it says."""
    return folder / f"{job.name}.log"


def campaign(
    jobs: Iterable[Job], workers: int, start: Launch, finished: Callable[[Job], None]
) -> dict[Job, int]:
    """Do jobs, `workers` at a time; if anything is raised meanwhile, stop those at work first.

    Args:
        start: Starts the process of a job. finished: Called after each that succeeded.

    Returns:
        Job -> exit status of those that failed.
    """
    failed: dict[Job, int] = {}
    todo = list(jobs)
    while todo:
        again: list[Job] = []
        ended = partial(_ended, again=again, failed=failed, finished=finished)
        side_by_side(todo, workers, start=start, ended=ended, meanwhile=lambda _: True)
        todo = again
    return failed


def _ended(
    job: Job,
    status: int,
    *,
    again: list[Job],
    failed: dict[Job, int],
    finished: Callable[[Job], None],
) -> None:
    """Sort a run that ended by its exit status."""
    if status == CODE_CHANGED:
        log.info("%s: the code changed, to be started again", job.name)
        again.append(job)
    elif status:
        failed[job] = status
        log.error("%s: failed with status %d", job.name, status)
    else:
        finished(job)


def raise_interrupted(signum: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal by leaving whatever runs."""
    raise Interrupted(signum)


def gather(jobs: Sequence[Job], workers: int) -> int:
    """Do what is missing and rewrite the page after each run; return the exit status."""
    missing = [job for job in jobs if read_row(job, RESULTS) is None]
    for job in missing:
        raw_of(job)  # mistakes in the parameters show before the first run
    log.info("%d of %d rows to make, logs in %s", len(missing), len(jobs), shown(WORK))
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, raise_interrupted)

    def finished(job: Job) -> None:
        log.info("%s", describe(job, code_checksum()))
        write_page(MATRIX, QUESTIONS, RESULTS, PAGE)

    try:
        failed = campaign(missing, workers, lambda job: launch(job, workers), finished)
    except Interrupted:
        log.info("Stopped; the same command goes on from here")
        raise
    write_page(MATRIX, QUESTIONS, RESULTS, PAGE)
    for job in failed:
        log.error("%s: see the end of %s", job.name, shown(log_of(job)))
    return 1 if failed else 0


def describe(job: Job, code: str) -> str:
    """One line about a run: its figures, and whether parameters or code changed since."""
    row = read_row(job, RESULTS)
    if row is None:
        return f"{job.name}: {'begun' if (WORK / job.name).exists() else 'missing'}"
    now = parameters_of(job, raw_of(job))
    changes, later = differences(row["parameters"], now), newer(row["parameters"], now)
    words = [f"stale ({'; '.join(changes)})" if changes else "earlier" if later else "fresh"]
    if later:
        words.append(f"{len(later)} parameters are newer")
    if row["circumstances"]["code"] != code:
        words.append("code changed since")
    if job.seed is None:
        words.append(f"random {row['random']['return']:.4g}")
    else:
        words.append(f"best {row['best']['return']:.4g}, last {row['last']['return']:.4g}")
        words.append(f"trained {duration(row['seconds']['train'])}")
    return f"{job.name}: {', '.join(words)}"


def listing(jobs: Sequence[Job]) -> Iterator[str]:
    """One line per run, and how many are done."""
    code = code_checksum()
    yield from (describe(job, code) for job in jobs)
    done = sum(read_row(job, RESULTS) is not None for job in jobs)
    yield f"{done} of {len(jobs)} rows are there"


def shown(path: Path) -> str:
    """A path as people see it from the project's folder."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def work_as_child(job: Job, workers: int) -> None:
    """Do one run in this process; ends with the campaign that started it.

    Raises:
        SystemExit: After a signal, a mistake or a change of the code.
    """
    end_with_parent()
    try:
        work(job, workers, WORK / job.name, RESULTS)
    except CodeChangedError as error:
        log.info("%s", error)
        sys.exit(CODE_CHANGED)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        metavar="WHAT",
        help="a question, question/arm, a preset of the matrix, or preset-variant",
    )
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="say which rows there are, and stop")
    what.add_argument("--page", action="store_true", help="write docs/results.md, and stop")
    names = {job.name: job for job in select(None)}
    what.add_argument("--work", choices=names, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error(f"--workers: found {args.workers}; allowed: 1 or more")
    args.work = names.get(args.work)
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; mistakes end in one line and status 2."""
    args = parse(arguments)
    configure_logging("info")
    log.setLevel(logging.INFO)
    try:
        jobs = select(args.only)
        if args.work:
            work_as_child(args.work, args.workers)
        elif args.list:
            print("\n".join(listing(jobs)))
        elif args.page:
            write_page(MATRIX, QUESTIONS, RESULTS, PAGE)
        else:
            return gather(jobs, args.workers)
    except DreamerError as error:
        log.error("evidence: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
