"""Where a training comes from: commit, lock files, digests, and what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dreamer.types import DataError
from pipeline.closure import ROOT
from pipeline.page.sources import LOCK, PARAMS, Source
from pipeline.params import Raw, leaves, load_raw, parse_yaml, subset
from pipeline.report.reading import read_json
from pipeline.scratch import fingerprint
from pipeline.stages.seeds import NAME, SEEDS
from pipeline.stages.session import STAGES
from pipeline.tracking import git_commit

Fact = tuple[str, str]
MISSING = "(not there)"


class Difference(NamedTuple):
    """A parameter whose value is not the base's."""

    key: str
    base: str
    here: str


def lineage(source: Source) -> Iterator[Fact]:
    """Name and value of what the outs were made from; what is unknown is left out."""
    root = source.workspace.root
    tags = git_commit(root if source.repository else ROOT)
    if tags:
        dirty = ", with uncommitted changes" if tags["git_dirty"] == "true" else ""
        yield "code now, git commit", tags["git_commit"] + dirty
    if source.repository and (root / LOCK).exists():
        yield "dvc.lock, md5", _md5(root / LOCK)
        yield from _locked(root / LOCK)
    versions = (root if source.repository else ROOT) / "requirements.lock"
    if versions.exists():
        yield "requirements.lock, md5", _md5(versions)
    episodes = source.workspace.episodes
    if episodes.exists():
        # The digest of the data set that tracking shows (`pipeline.stages.lineage`).
        out = STAGES["collect"].outs[0]
        yield "data/episodes, digest in MLflow", fingerprint(out, {}, [episodes])[:36]
    weights = read_json(source.workspace.agent / "best" / "meta.json").get("sha256")
    if weights:
        yield "weights of the agent, sha256", str(weights)


def _locked(lock: Path) -> Iterator[Fact]:
    """DVC's digests of the outs."""
    for stage in read_lock(lock).values():
        for out in stage.get("outs", ()):
            if out["path"].startswith(("data", "models")):
                yield f"{out['path']}, md5 in DVC", str(out["md5"])


def read_lock(lock: Path) -> dict[str, Any]:
    """Stages of a `dvc.lock`.

    Raises:
        DataError: It holds something else.
    """
    return stages_of(lock.read_text(encoding="utf-8"), str(lock))


def stages_of(text: str, name: str) -> dict[str, Any]:
    """Stages of the text of a `dvc.lock`; `name` says in errors where it is from.

    Raises:
        DataError: It holds something else.
    """
    document = parse_yaml(text, name)
    if not isinstance(document, dict) or not isinstance(document.get("stages"), dict):
        raise DataError(f"{name}: found no stages; allowed: a lock file of DVC")
    return dict(document["stages"])


def outdated(source: Source) -> list[str]:
    """Stages whose outs DVC made with other parameters than there are now, or not at all."""
    lock = source.workspace.root / LOCK
    if not source.repository:
        return []
    stages = read_lock(lock) if lock.exists() else {}
    declared = STAGES | ({NAME: SEEDS} if NAME in source.raw else {})
    return [n for n, s in declared.items() if not _agrees(source.raw, s.params, stages.get(n))]


def _agrees(raw: Raw, params: tuple[str, ...], stage: dict[str, Any] | None) -> bool:
    if stage is None:
        return False
    locked = stage.get("params", {}).get(PARAMS, {})
    now = dict(leaves(subset(raw, params)))
    # The lock holds `runtime.threads` as one dotted key, and sections as they are.
    return repr(sorted(leaves(locked))) == repr(sorted(now.items()))


def base_params(source: Source, revision: str) -> tuple[str, Raw]:
    """What parameters are compared with, and its name.

    Args:
        revision: Of the repository; the folder of a training is compared with `params.yaml` of
            its project.

    Raises:
        DataError: git does not know the revision, or no parameters are there.
    """
    if not source.repository:
        project = source.workspace.project or Path.cwd()
        path = next((p for p in (project / PARAMS, ROOT / PARAMS) if p.exists()), None)
        if path is None:
            raise DataError(f"{project / PARAMS}: found no file; allowed: one to compare with")
        return f"{PARAMS} of the project", load_raw(path)
    command = ["git", "-C", str(source.workspace.root), "show", f"{revision}:./{PARAMS}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or "git failed"
        raise DataError(f"--base {revision}: {reason}; allowed: a revision with {PARAMS}")
    return f"{PARAMS} at {revision}", dict(parse_yaml(done.stdout, PARAMS))


def differences(base: Raw, here: Raw) -> list[Difference]:
    """Values that are not equal, in the order of `here`; 1, 1.0 and true are three."""
    old, new = dict(leaves(base)), dict(leaves(here))
    keys = [*new, *(key for key in old if key not in new)]
    return [
        Difference(key, _shown(old, key), _shown(new, key))
        for key in keys
        if _shown(old, key) != _shown(new, key)
    ]


def _shown(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else MISSING


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
