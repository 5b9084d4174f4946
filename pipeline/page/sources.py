"""The files that a page is made from, read with one-line errors."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.types import DataError
from pipeline.params import Raw, leaves, load_raw
from pipeline.stages.session import Workspace

PARAMS, LOCK, RECORDS = "params.yaml", "dvc.lock", ".stages"
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A workspace and its parameters.

    Attributes:
        workspace: The repository of the pipeline, or a folder that `dreamer train` made.
        raw: Its parameters. repository: Whether DVC runs it.
    """

    workspace: Workspace
    raw: Raw
    repository: bool

    @property
    def flat(self) -> dict[str, Any]:
        """Parameters by dotted key."""
        return dict(leaves(self.raw))


def open_source(folder: Path, project: Path) -> Source:
    """Find out what a folder is.

    Args:
        folder: Of the training. project: Where runs are tracked, if `folder` is no repository.

    Raises:
        DataError: It is neither the repository of the pipeline nor a training.
    """
    repository = (folder / "dvc.yaml").exists()
    if not repository and not (folder / RECORDS).is_dir():
        raise DataError(
            f"{folder}: found no training; allowed: the repository of the pipeline, or a folder "
            "that `dreamer train` made"
        )
    workspace = Workspace(folder) if repository else Workspace(folder, project=project)
    return Source(workspace=workspace, raw=load_raw(folder / PARAMS), repository=repository)


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
