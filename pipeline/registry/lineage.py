"""What a version's tags say of where its agent came from; nothing that is not shown to be of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.closure import ROOT
from pipeline.page.lineage import outdated, read_lock
from pipeline.page.sources import LOCK, RECORDS, Source
from pipeline.params import of_stages
from pipeline.report.reading import read_json
from pipeline.scratch import fingerprint
from pipeline.stages.session import STAGES, fingerprint_of, pipeline_key, run_key
from pipeline.tracking import git_commit

FIGURES = ("episode/return", "episode/return_ci_low", "episode/return_ci_high", "episode/count")
Tags = dict[str, str]


class Lineage(NamedTuple):
    """Where an agent came from.

    Attributes:
        tags: For its version. training, pipeline: Keys of the tracked runs that made it, if known.
        note: What is not known, or nothing.
    """

    tags: Tags
    training: str | None
    pipeline: str | None
    note: str


def lineage_of(agent: Path, source: Source | None) -> Lineage:
    """Gather what can be shown to belong to an agent.

    Args:
        agent: Its folder. source: The workspace that it lies in, if it does.
    """
    code = git_commit(source.workspace.root if source and source.repository else ROOT)
    if source is None:
        return Lineage(code, None, None, "the agent lies in no workspace; its data are not known")
    made = _locked(source) if source.repository else _recorded(source)
    if "train" not in made:
        where = LOCK if source.repository else RECORDS
        note = f"{where} does not tell of this agent; its data and parameters are not known"
        return Lineage(code, None, None, note)
    tags = code | made["train"]
    if "evaluate" in made and agent.name == "best":
        tags |= dict(_figures(source))
    if source.repository and STAGES.keys() & outdated(source):
        return Lineage(tags, None, None, "params.yaml changed since; parameters are not known")
    raw = source.raw
    text = json.dumps(of_stages(raw), sort_keys=True)
    tags["params_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    training = fingerprint_of("train", raw, source.workspace)
    return Lineage(tags, run_key("train", training), pipeline_key(raw), "")


def _locked(source: Source) -> dict[str, Tags]:
    """Stage -> tags, of the stages whose outs are here as dvc.lock names them."""
    root, lock = source.workspace.root, source.workspace.root / LOCK
    if not lock.exists():
        return {}
    named = {
        out["path"]: str(out["md5"])
        for stage in read_lock(lock).values()
        for out in stage.get("outs", ())
    }
    md5 = hashlib.md5(lock.read_bytes(), usedforsecurity=False).hexdigest()
    tags = {f"dvc_md5.{Path(path).name}": named[path] for path in _artefacts() if path in named}
    return {
        name: tags | {"dvc_lock_md5": md5}
        for name in ("train", "evaluate")
        if all(named.get(out) == dvc_md5(root / out) for out in STAGES[name].outs)
    }


def _artefacts() -> list[str]:
    """Outs that hold data and models."""
    outs = [out for stage in STAGES.values() for out in stage.outs]
    return [out for out in outs if not out.startswith("reports")]


def _recorded(source: Source) -> dict[str, Tags]:
    """Stage -> tags, of the stages whose outs are here as `dreamer train` left them."""
    root, found = source.workspace.root, {}
    for name in ("train", "evaluate"):
        outs = [root / out for out in STAGES[name].outs]
        record = read_json(root / RECORDS / f"{name}.json")
        if all(out.exists() for out in outs) and record.get("outs") == fingerprint(name, {}, outs):
            # The digest of the data set that tracking shows (`pipeline.stages.lineage`).
            data = STAGES["collect"].outs[0]
            found[name] = {"data_digest": fingerprint(data, {}, [source.workspace.episodes])[:36]}
    return found


def _figures(source: Source) -> Iterator[tuple[str, str]]:
    path = source.workspace.reports("evaluate") / "metrics.json"
    figures = read_json(path)
    yield from ((f"evaluate.{key}", f"{figures[key]:.10g}") for key in FIGURES if key in figures)


def dvc_md5(folder: Path) -> str:
    """Digest that DVC gives a folder: md5 of the list of its files in JSON."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
    )
    rows = [
        {"md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": name}
        for name, path in files
    ]
    text = json.dumps(rows, sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"
