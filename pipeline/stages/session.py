"""What every stage runs in: its place on disk, device, scratch folder and tracked run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dreamer import checkpoint
from dreamer.types import ConfigError
from pipeline.closure import ROOT, import_closure
from pipeline.params import Params, Raw, leaves, of_stages, subset
from pipeline.scratch import Scratch, fingerprint
from pipeline.stages.lineage import link_reused, log_inputs, mark_run
from pipeline.tracking import RunIdentity, Tracker, git_commit, project_root

log = logging.getLogger(__name__)

EXPERIMENT = "dreamer"


@dataclass(frozen=True)
class Workspace:
    """Where a pipeline reads and writes: the repository, or the folder of one `dreamer train`.

    Attributes:
        root: The folder. project: Where runs are tracked, if that is another one.
        part_of: Key of the tracked pipeline that this one is a part of, if any.
    """

    root: Path
    project: Path | None = None
    part_of: str | None = None

    @property
    def episodes(self) -> Path:
        """Collected episodes."""
        return self.root / "data" / "episodes"

    @property
    def world_model(self) -> Path:
        """Pretrained world model with its optimiser state."""
        return self.root / "models" / "world_model"

    @property
    def agent(self) -> Path:
        """Trained agent: `best` by validation, and `last`."""
        return self.root / "models" / "agent"

    def reports(self, stage: str) -> Path:
        """Tables and pictures of a stage."""
        return self.root / "reports" / stage


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage as `dvc.yaml` declares it.

    Attributes:
        params: Sections and keys that it reads. deps, outs: Paths relative to the workspace.
    """

    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]


STAGES = {
    "collect": Stage(params=("seed", "env", "collect"), deps=(), outs=("data/episodes",)),
    "pretrain": Stage(
        params=(
            "seed",
            "device",
            "runtime.threads",
            "replay",
            "world_model",
            "optimizer",
            "pretrain",
        ),
        deps=("data/episodes",),
        outs=("models/world_model", "reports/pretrain"),
    ),
    "train": Stage(
        params=(
            "seed",
            "device",
            "runtime",
            "env",
            "replay",
            "world_model",
            "imagination",
            "policy",
            "intrinsic",
            "meta",
            "optimizer",
            "train",
        ),
        deps=("data/episodes", "models/world_model"),
        outs=("models/agent", "reports/train"),
    ),
    "evaluate": Stage(
        params=("device", "runtime.threads", "evaluate"),
        deps=("models/agent",),
        outs=("reports/evaluate",),
    ),
}


@dataclass(kw_only=True)
class Session:
    """A running stage.

    Attributes:
        workspace: Where it reads and writes.
        device: Where tensors live.
        scratch: Folder of checkpoints, and whether the stage should stop.
        tracker: The tracked run. summary: The run of the whole pipeline, for final figures.
    """

    workspace: Workspace
    device: torch.device
    scratch: Scratch
    tracker: Tracker
    summary: Tracker
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def checkpoints(self) -> Path:
        """Folder of this stage's checkpoints."""
        return self.scratch.path / "checkpoints"

    def resume(self) -> dict[str, Any] | None:
        """State of the newest readable checkpoint, or None to start anew."""
        latest = checkpoint.read_latest(self.checkpoints)
        if latest is None:
            return None
        step, tensors, meta = latest
        log.info("Resuming after step %d", step)
        return checkpoint.unflatten(tensors, meta["state"])

    def save_if_due(
        self,
        step: int,
        seconds: float,
        state: Callable[[], dict[str, Any]],
        stored: Callable[[], None],
    ) -> None:
        """Checkpoint every so many seconds; when asked to stop, checkpoint and leave.

        Args:
            step: Number of the checkpoint. seconds: Wall-clock time between checkpoints.
            state: Makes the state. stored: Called once it is on the disk.

        Raises:
            Interrupted: After a signal, once the checkpoint is written.
        """
        stopping = self.scratch.stop_requested
        if not stopping and time.monotonic() - self.saved_at < seconds:
            return
        tensors, meta = checkpoint.flatten(state())
        checkpoint.write_step(self.checkpoints, step, tensors, {"state": meta})
        stored()
        self.saved_at = time.monotonic()
        if stopping:
            raise self.scratch.interrupted()


def fingerprint_of(name: str, raw: Raw, workspace: Workspace) -> str:
    """Fingerprint of a stage: its parameters, its inputs and its code."""
    stage = STAGES[name]
    code = [ROOT / path for path in import_closure(f"pipeline.stages.{name}")]
    inputs = [workspace.root / path for path in stage.deps]
    return fingerprint(name, subset(raw, stage.params), inputs, code)


def pipeline_key(raw: Raw) -> str:
    """Key of the run that all stages of one pipeline belong to: parameters and code."""
    code = sorted({path for name in STAGES for path in import_closure(f"pipeline.stages.{name}")})
    hashes = [hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in code]
    text = json.dumps([EXPERIMENT, of_stages(raw), hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def run_key(name: str, fingerprint: str) -> str:
    """Key of a stage's tracked run."""
    return f"{name}-{fingerprint[:32]}"


def identities(
    name: str, key: str, raw: Raw, part_of: str | None = None
) -> tuple[RunIdentity, RunIdentity]:
    """The tracked run of a stage, and that of the whole pipeline.

    Args:
        name: Of the stage. key: Its fingerprint. part_of: Key of the pipeline that this one is a
            part of, if any.
    """
    whole_key = pipeline_key(raw)
    tags = {"stage": name, "env": str(raw["env"]["id"])} | git_commit(ROOT)
    own = RunIdentity(
        experiment=EXPERIMENT, key=run_key(name, key), name=name, parent_key=whole_key, tags=tags
    )
    whole = RunIdentity(
        experiment=EXPERIMENT,
        key=whole_key,
        name=f"{raw['env']['id']} seed {raw['seed']}",
        parent_key=part_of,
        tags=tags | {"stage": "pipeline"},
    )
    return own, whole


def upstream_keys(name: str, raw: Raw, workspace: Workspace) -> dict[str, str]:
    """Keys of the runs of the stages before `name`, as far as their inputs are there."""
    before = list(STAGES)[: list(STAGES).index(name)]
    return {
        stage: run_key(stage, fingerprint_of(stage, raw, workspace))
        for stage in before
        # `dvc repro --allow-missing` leaves out what the stage at hand does not read.
        if all((workspace.root / dep).exists() for dep in STAGES[stage].deps)
    }


@contextlib.contextmanager
def open_session(name: str, params: Params, raw: Raw, workspace: Workspace) -> Iterator[Session]:
    """Run a stage: lock its scratch folder, track it, and clean up after success.

    Args:
        name: Of the stage. params, raw: The same parameters, built and as read.
    """
    device = prepare(params) if "device" in STAGES[name].params else torch.device("cpu")
    key = fingerprint_of(name, raw, workspace)
    root = project_root(workspace.project or workspace.root)
    own, whole = identities(name, key, raw, workspace.part_of)
    runs = root / ".runs"
    with (
        Scratch(name, key, workspace.root) as scratch,
        Tracker(runs / own.key, own, root=root) as tracker,
        Tracker(runs / whole.key, whole, root=root) as summary,
    ):
        tracker.params(dict(leaves(subset(raw, STAGES[name].params))))
        summary.params(dict(leaves(of_stages(raw))))
        log_inputs(tracker, workspace.root, STAGES[name].deps)
        link_reused(summary, runs / whole.key, upstream_keys(name, raw, workspace))
        mark_run(runs / whole.key, name, own.key)
        yield Session(
            workspace=workspace, device=device, scratch=scratch, tracker=tracker, summary=summary
        )
        scratch.done()


def prepare(params: Params) -> torch.device:
    """Set threads and determinism, choose the device.

    Raises:
        ConfigError: If CUDA is asked for and there is none.
    """
    torch.set_num_threads(params.runtime.threads)
    if params.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "cuda", "cpu or auto: no CUDA device is visible here")
    cuda = params.device == "cuda" or (params.device == "auto" and torch.cuda.is_available())
    # The same switch as `use_deterministic_algorithms`, which also imports the compiler (seconds).
    # CUDA has no deterministic kernel for a few operations (cumsum): there it warns, and the same
    # bits are promised on CPUs only.
    torch.set_deterministic_debug_mode("warn" if cuda else "error")
    return torch.device("cuda" if cuda else "cpu")
