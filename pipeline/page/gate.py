"""What the gate of the registry said of an agent, if it is this one: `reports/gate.json`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from dreamer.checkpoint import META
from dreamer.types import CheckpointError, DataError
from pipeline.page.sources import Source
from pipeline.page.trained import FACT
from pipeline.report.reading import read_json

GATE = Path("reports") / "gate.json"


def agent_digest(folder: Path) -> str:
    """Digest of an agent: of its metadata, in which the checksum of the weights is.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        return hashlib.sha256((folder / META).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{folder / META}: cannot be read: {error.strerror}") from error


def gate_facts(source: Source) -> Iterator[FACT]:
    """Verdict and reasons, if the gate has judged the agent that is here.

    Raises:
        DataError: What is there is no record of the gate.
    """
    agent, path = source.workspace.agent / "best", source.workspace.root / GATE
    found = read_json(path)
    if not found or not (agent / META).exists():
        return
    try:
        challenger, reasons = found["challenger"], "; ".join(found["reasons"])
        if challenger["agent"] == agent_digest(agent):
            yield "registered", f"version {challenger['version']} of {found['model']}"
            yield "verdict", f"{found['verdict']}: {reasons}"
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: found no record of the gate: {error}") from error
