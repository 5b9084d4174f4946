"""Tables and figures as CSV and JSON: atomic, sorted or in order of appearance, no times."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamer.types import DataError, DreamerError

RESAMPLES = 10_000
CHUNK = 1_000_000  # resampled returns held in memory at once


def write_bytes(path: Path, content: bytes) -> None:
    """Make `path` hold exactly `content`, atomically; folders are made.

    Raises:
        DataError: It cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be what is wrong
            partial.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def write_csv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one line per row.

    Columns are all keys in the order of their first appearance. A cell is `repr` of the number, so
    that reading it gives the same float, or empty where a row has no such key.

    Raises:
        DataError: It cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if columns:
        writer.writerow(columns)
    writer.writerows([_cell(row[key]) if key in row else "" for key in columns] for row in rows)
    write_bytes(path, text.getvalue().encode())


def write_json(path: Path, obj: Mapping[str, Any]) -> None:
    """Write what JSON can hold, keys sorted, numbers of numpy included.

    Raises:
        DreamerError: A number is NaN or infinite.
        DataError: It cannot be written.
    """
    plain = _plain(obj, "")
    text = json.dumps(plain, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=True)
    write_bytes(path, (text + "\n").encode())


def summarise(returns: Sequence[float], lengths: Sequence[int], seed: int) -> dict[str, float]:
    """Figures of a set of episodes.

    Args:
        returns: Undiscounted return of each episode. lengths: Their agent steps.
        seed: Of the bootstrap.

    Returns:
        `episode/return` (mean), its `_std` (of the sample, n - 1), `_min`, `_max`, `_ci_low` and
        `_ci_high` (95 percent percentile bootstrap of the mean), `episode/length` (mean) and
        `episode/count`.

    Raises:
        DataError: There is no episode.
    """
    if not returns or len(returns) != len(lengths):
        raise DataError(
            f"episodes: found {len(returns)} returns and {len(lengths)} lengths; "
            "allowed: as many of both, at least one"
        )
    values = np.asarray(returns, np.float64)
    low, high = np.quantile(bootstrap_means(values, seed), (0.025, 0.975))
    return {
        "episode/return": float(values.mean()),
        "episode/return_std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "episode/return_min": float(values.min()),
        "episode/return_max": float(values.max()),
        "episode/return_ci_low": float(low),
        "episode/return_ci_high": float(high),
        "episode/length": float(np.mean(lengths)),
        "episode/count": len(values),
    }


def bootstrap_means(values: np.ndarray, seed: int) -> np.ndarray:
    """(10000,) means of resamples with replacement; a function of values and seed."""
    rng = np.random.Generator(np.random.Philox(seed))
    at_once = max(1, CHUNK // len(values))
    sizes = [min(at_once, RESAMPLES - done) for done in range(0, RESAMPLES, at_once)]
    means = [values[rng.integers(len(values), size=(n, len(values)))].mean(1) for n in sizes]
    return np.concatenate(means)


def _cell(value: float) -> str:
    # numpy's own repr names the type, Python's is the number alone.
    return str(int(value)) if isinstance(value, int | np.integer | np.bool_) else repr(float(value))


def _plain(node: Any, path: str) -> Any:  # noqa: ANN401
    """Python's own numbers in place of numpy's; refuses those that JSON has no word for."""
    if isinstance(node, Mapping):
        return {key: _plain(value, f"{path}.{key}" if path else key) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value, f"{path}[{i}]") for i, value in enumerate(node)]
    if isinstance(node, np.generic):
        node = node.item()
    if isinstance(node, float) and not math.isfinite(node):
        raise DreamerError(f"{path}: found {node}; allowed: finite numbers")
    return node
