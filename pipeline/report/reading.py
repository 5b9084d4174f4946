"""Tables and figures that a stage wrote, read back with one-line errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from dreamer.types import DataError

Row = dict[str, float]


def read_rows(path: Path) -> list[Row]:
    """Rows of a table that a stage wrote, without empty cells; none if it is not there.

    Raises:
        DataError: It is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [{key: float(cell) for key, cell in row.items() if cell} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that a stage wrote; an empty one if it is not there.

    Raises:
        DataError: It is damaged.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: found a {type(found).__name__}; allowed: a JSON object")
    return found
