"""Optuna storages: a journal file by default, anything that Optuna knows by URL."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from dreamer.types import ConfigError

KINDS = "a path of a journal, or sqlite:///, postgresql:// or another URL that Optuna opens"


def open_storage(url: str) -> BaseStorage:
    """Open, and create if need be, what a study is kept in.

    Args:
        url: A URL with `://`, or the path of a journal file.

    Raises:
        ConfigError: It cannot be opened; says why, without a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if "://" in url:
                with loggers_kept():
                    return get_storage(url)
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(url))
            storage.get_all_studies()  # reads the file, which may be something else
            return storage
    # Each database driver has errors of its own, and none of them is imported here.
    except Exception as error:
        raise ConfigError("--storage", masked(url), f"{KINDS}: {_reason(error)}") from error


@contextmanager
def loggers_kept() -> Iterator[None]:
    """Undo what happens to loggers inside.

    Optuna's migrations of a database configure the logging of the whole process, which silences
    every logger that is there already.
    """
    known = [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(each, each.disabled, each.level, each.handlers[:]) for each in known]
    try:
        yield
    finally:
        for name in list(logging.root.manager.loggerDict):
            if (logger := logging.getLogger(name)) not in known:
                logger.setLevel(logging.NOTSET)
        for logger, disabled, level, handlers in before:
            logger.disabled, logger.handlers[:] = disabled, handlers
            logger.setLevel(level)


def masked(url: str) -> str:
    """A URL without its password."""
    password = urlsplit(url).password if "://" in url else None
    return url.replace(f":{password}@", ":***@") if password else url


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:200]
