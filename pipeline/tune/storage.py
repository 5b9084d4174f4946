"""Optuna storages: a journal file by default, anything that Optuna knows by URL."""

from __future__ import annotations

import warnings
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
                return get_storage(url)
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            storage = JournalStorage(JournalFileBackend(url))
            storage.get_all_studies()  # reads the file, which may be something else
            return storage
    # Each database driver has errors of its own, and none of them is imported here.
    except Exception as error:
        raise ConfigError("--storage", masked(url), f"{KINDS}: {_reason(error)}") from error


def masked(url: str) -> str:
    """A URL without its password."""
    password = urlsplit(url).password if "://" in url else None
    return url.replace(f":{password}@", ":***@") if password else url


def _reason(error: Exception) -> str:
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:200]
