"""`dreamer promote` and `dreamer rollback`: who is champion in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands.agents import agent_folder
from pipeline.commands.settings import PARAMS, find_params
from pipeline.page.gate import GATE
from pipeline.page.sources import RECORDS, Source, open_source
from pipeline.params import load_raw
from pipeline.registry.config import promote_config
from pipeline.registry.promote import Candidate, promote
from pipeline.registry.store import default_name, open_registry
from pipeline.stages.session import Workspace

REFUSED = 1  # exit status: the gate did not let the agent pass


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line says.

    Attributes:
        folder: Of an agent, or of a training. name: Of the registered model, or None.
        again: Let an agent try that was rolled back.
    """

    folder: Path
    name: str | None
    again: bool


def run(wishes: Wishes, project: Path) -> Iterator[str]:
    """Register an agent, and make it champion if it passes the gate.

    Args:
        project: The current folder, whose tracking server holds the registry.

    Raises:
        DreamerError: Something is wrong, or the registry cannot be reached.
        SystemExit: With status 1: the gate refused.
    """
    agent = agent_folder(wishes.folder)
    source = workspace_of(agent, project)
    root = source.workspace.root if source else Path()
    own = find_params()
    beside = [path for path in [root / PARAMS] if source and path.resolve() != own.resolve()]
    passed = yield from promote(
        Candidate(
            folder=agent,
            source=source,
            name=wishes.name,
            again=wishes.again,
            demands=[own, *beside],
            record=root / GATE,
            project=project,
        )
    )
    if not passed:
        raise SystemExit(REFUSED)


def workspace_of(agent: Path, project: Path) -> Source | None:
    """The workspace that an agent lies in: repository or training; None if it is neither."""
    root = agent.parent.parent.parent
    inside = agent.parent == Workspace(root).agent
    known = (root / "dvc.yaml").exists() or (root / RECORDS).is_dir()
    return open_source(root, project) if inside and known else None


def roll_back(name: str | None, project: Path) -> Iterator[str]:
    """Make the champion before this one champion again.

    Args:
        name: Of the registered model; None for the one of `promote.env` in params.yaml.

    Raises:
        DreamerError: There is none, or the registry cannot be reached.
    """
    if name is None:
        name = default_name(promote_config(load_raw(find_params())).env)
    with open_registry(project, name) as registry:
        old, new = registry.roll_back()
    yield f"{name}: version {new} is champion again, version {old} is not any more"
