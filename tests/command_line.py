"""The `dreamer` command inside a test: what it printed, what it ended with, what is on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline import cli
from pipeline.progress import OURS

# The preset `smoke`, smaller still: a whole training in about two seconds.
SETTINGS = (
    "env.num_envs=4",
    "collect.steps=200",
    "train.eval_every=100",
    "replay.batch_size=4",
    "imagination.horizon=5",
)
TINY = ("--preset=smoke", "--steps=400", *(f"--set={setting}" for setting in SETTINGS))


class Answer(NamedTuple):
    """Exit status, lines on stdout, lines on stderr."""

    status: int
    out: list[str]
    err: list[str]


def dreamer(capsys: pytest.CaptureFixture[str], *words: object) -> Answer:
    """Run `dreamer WORDS` in this process."""
    capsys.readouterr()
    with own_logging():
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = int(str(stop.code or 0))
    captured = capsys.readouterr()
    return Answer(status, captured.out.splitlines(), captured.err.splitlines())


@contextmanager
def own_logging() -> Iterator[None]:
    """Take back what a command did to logging: its handler holds a stream of the test."""
    loggers = [logging.getLogger(name) for name in (None, *OURS)]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers[:]
    try:
        yield
    finally:
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def checksums(root: Path) -> dict[str, str]:
    """Path -> checksum of every file below `root`, folders with an empty one."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(root.rglob("*"))
    }
