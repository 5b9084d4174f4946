"""What a page is made from: a folder and its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamer.types import DataError
from pipeline.params import Raw, leaves, load_raw
from pipeline.stages.session import Workspace

PARAMS, LOCK, RECORDS = "params.yaml", "dvc.lock", ".stages"


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
