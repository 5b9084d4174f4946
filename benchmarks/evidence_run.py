"""One run of the evidence campaign: the stages, one after the other, and the row they end in.

A run works in a folder of its own, laid out like one of `dreamer train`: finished stages are
remembered by their fingerprints, an interrupted one goes on from its checkpoint. `clock.json`
beside the fingerprints holds what a row tells of time and place.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.evidence_rows import (
    COMMAND,
    Job,
    Row,
    changed_by,
    code_checksum,
    overrides_of,
    parameters_of,
    preset_raw,
    raw_of,
)
from benchmarks.final_rates import final_rates
from dreamer.agent import random_action
from dreamer.envs.episode import EpisodeStats
from dreamer.envs.make import EnvConfig
from dreamer.envs.vector import VectorEnv
from dreamer.nn.noise import Noise
from dreamer.saved_agent import load_agent
from dreamer.types import DataError, DreamerError
from pipeline.closure import ROOT
from pipeline.commands.settings import observe_spec
from pipeline.commands.train import claimed
from pipeline.params import Raw, from_raw
from pipeline.report.tables import summarise, write_json
from pipeline.stages import evaluate
from pipeline.stages.session import STAGES, Workspace, fingerprint_of, prepare
from pipeline.stages.skipping import RECORDS, run_unless_done
from pipeline.tracking import git_commit

LAST_VALIDATIONS = 3
FIGURES = {"best": "episode/", "last": "last/episode/"}  # of a row -> prefix in metrics.json


class CodeChangedError(DreamerError):
    """The code was edited while a run was at work, before its training began; run it again."""


class Circumstances(NamedTuple):
    """Where and by what a row was made.

    Attributes:
        cpu: Model. device: What tensors were on, `cpu` or `cuda`.
        side_by_side: How many runs the campaign had at work, at most.
        malloc_tuned: Whether glibc was told to keep memory, as the Makefile does.
        commit: Of the repository, empty without git. dirty: Whether tracked files other than
            this campaign's own page were changed.
        code: Checksum of all code that the stages import.
    """

    cpu: str
    device: str
    threads: int
    side_by_side: int
    malloc_tuned: bool
    python: str
    torch: str
    commit: str
    dirty: bool
    code: str


def circumstances(raw: Raw, side_by_side: int) -> Circumstances:
    """Where this process runs, once it is set up as stages are; a row does not name the machine."""
    git = git_commit(ROOT)
    return Circumstances(
        cpu=cpu_model(),
        device=prepare(from_raw(raw)).type,
        threads=raw["runtime"]["threads"],
        side_by_side=side_by_side,
        malloc_tuned="glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""),
        python=platform.python_version(),
        torch=torch.__version__,
        commit=git.get("git_commit", ""),
        dirty=bool(git) and changed_files(ROOT) != "",
        code=code_checksum(),
    )


def changed_files(root: Path) -> str:
    """What git says of changed tracked files; what a campaign itself rewrites does not count."""
    own = [":!docs/results.md", ":!docs/results/*.png"]
    words = ["status", "--porcelain", "--untracked-files=no", "--", *own]
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor, as Linux or else Python knows it."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def work(job: Job, side_by_side: int, folder: Path, results: Path) -> None:
    """Do what is left of a run and write its row.

    Args:
        side_by_side: How many runs are at work. folder: Of this run. results: Of all rows.

    Raises:
        CodeChangedError: If the code is no longer what this process has loaded.
        Interrupted: After a signal, once a checkpoint is written.
    """
    raw = raw_of(job)
    here = circumstances(raw, side_by_side)
    if job.seed is None:
        row = random_row(job, raw, here)
    else:
        with claimed(folder):
            row = trained_row(job, raw, here, Workspace(folder))
    write_json(results / f"{job.name}.json", row)


def trained_row(job: Job, raw: Raw, here: Circumstances, workspace: Workspace) -> Row:
    """Run the stages that are not done and put the row together."""
    for name in STAGES:
        # Fingerprints are made from files, results by what was loaded. Once training has begun
        # its fingerprint is taken, and what comes after it is no reason to throw it away.
        if name != "evaluate" and code_checksum() != here.code:
            raise CodeChangedError(f"{job.name}: the code changed before {name}; start it again")
        run_timed(name, raw, here, workspace)
    clock = read_clock(workspace)
    trained, points = clock["train"], validations(workspace)
    metrics = workspace.reports("train") / "metrics.csv"
    return (
        figures(workspace)
        | identity(job)
        | {
            "changed": changed_by(raw),
            "rates": final_rates(metrics, raw, preset_raw(job)),
            "parameters": parameters_of(job, raw),
            "validation": [[int(p["env_step"]), p["validation/return"]] for p in points],
            "last_validations": float(
                np.mean([p["validation/return"] for p in points[-LAST_VALIDATIONS:]])
            ),
            "env_steps": int(points[-1]["env_step"]),
            "updates": int(points[-1]["update"]),
            "seconds": {name: round(entry["seconds"], 1) for name, entry in clock.items()},
            "restarts": sum(entry["starts"] - 1 for entry in clock.values()),
            "unmeasured": sum(entry["starts"] - entry["ends"] for entry in clock.values()),
            "circumstances": trained["circumstances"],
            "fingerprint": trained["fingerprint"],
        }
        | ({"withheld": withheld(job.deprived, raw, workspace)} if job.deprived else {})
    )


def withheld(episodes: int, raw: Raw, workspace: Workspace) -> dict[str, dict[str, float]]:
    """Figures of the best agent with each of its modalities withheld, and with `nothing`."""
    params = from_raw(raw)
    agent = load_agent(workspace.agent / "best", prepare(params))
    config = dataclasses.replace(params.evaluate, episodes=episodes)
    found = {}
    for name in ("nothing", *agent.model.encoders):
        played = evaluate.play(agent, config, () if name == "nothing" else (name,))
        figures = evaluate.summary(played, config.seed)
        found[name] = {key.removeprefix("episode/"): value for key, value in figures.items()}
    return found


def identity(job: Job) -> Row:
    """What a row says of what was run, and how to run it again."""
    return {
        "preset": job.preset,
        "seed": job.seed,
        "variant": job.variant,
        "overrides": overrides_of(job, preset_raw(job)),
        "command": f"{COMMAND} --only {job.stem}",
    }


def run_timed(name: str, raw: Raw, here: Circumstances, workspace: Workspace) -> None:
    """Run a stage unless it is done, and add what it takes to its clock.

    A process that is killed outright cannot tell its time; its start stays without an end.
    """
    record = workspace.root / RECORDS / f"{name}.json"
    key, clock, stamp = fingerprint_of(name, raw, workspace), read_clock(workspace), mtime(record)
    entry = clock.get(name, {})
    if entry.get("fingerprint") != key:
        entry = {"fingerprint": key, "seconds": 0.0, "starts": 0, "ends": 0}
    begun = {**entry, "starts": entry["starts"] + 1, "circumstances": here._asdict()}
    write_json(clock_path(workspace), clock | {name: begun})
    begin = time.monotonic()
    try:
        run_unless_done(name, raw, workspace)
    finally:
        spent = entry["seconds"] + time.monotonic() - begin
        ended = {**begun, "seconds": spent, "ends": entry["ends"] + 1}
        kept = entry if entry["starts"] else begun  # done at a time that no clock tells
        skipped = stamp is not None and mtime(record) == stamp
        write_json(clock_path(workspace), clock | {name: kept if skipped else ended})


def clock_path(workspace: Workspace) -> Path:
    """Where the times of a run's stages are."""
    return workspace.root / RECORDS / "clock.json"


def read_clock(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Stage -> fingerprint, seconds, starts, ends and circumstances; empty for a new run."""
    path = clock_path(workspace)
    return dict(json.loads(path.read_text(encoding="ascii"))) if path.exists() else {}


def mtime(path: Path) -> int | None:
    """When a file was written, in nanoseconds, or None if there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def figures(workspace: Workspace) -> Row:
    """Evaluation figures of the best and the last agent: `return`, `return_ci_low`, ..."""
    path = workspace.reports("evaluate") / "metrics.json"
    metrics = json.loads(path.read_text(encoding="ascii"))
    return {
        who: {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        for who, prefix in FIGURES.items()
    }


def validations(workspace: Workspace) -> list[dict[str, float]]:
    """Rows of the validation table, in the order of training.

    Raises:
        DataError: There is none.
    """
    path = workspace.reports("train") / "validation.csv"
    with path.open(encoding="ascii", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    if not rows:
        raise DataError(f"{path}: found no validation; needed at least one")
    return rows


def random_row(job: Job, raw: Raw, here: Circumstances) -> Row:
    """What needs no learning, on the episodes that agents are evaluated on.

    Uniformly random actions (`random`), and with continuous ones the middle of each range (`idle`,
    otherwise None): no force is what the mode of an untrained policy comes close to.
    """
    params = from_raw(raw)
    env = dataclasses.replace(params.env, num_envs=params.evaluate.num_envs)

    def returns(scale: float) -> dict[str, float]:
        episodes = play_untaught(env, params.evaluate.episodes, params.evaluate.seed, scale)
        summary = summarise([e.ret for e in episodes], [e.length for e in episodes], 0)
        return {key.removeprefix("episode/"): value for key, value in summary.items()}

    return identity(job) | {
        "parameters": parameters_of(job, raw),
        "random": returns(1.0),
        "idle": returns(0.0) if observe_spec(env).action.kind == "continuous" else None,
        "circumstances": here._asdict(),
    }


def play_untaught(env: EnvConfig, episodes: int, seed: int, scale: float) -> list[EpisodeStats]:
    """Play the episodes that an evaluation plays, with random actions times `scale`."""
    envs, noise = VectorEnv(env, seed), Noise(seed, torch.device("cpu"))
    quota = [len(range(index, episodes, envs.num_envs)) for index in range(envs.num_envs)]
    finished: list[EpisodeStats] = []
    rows, step = envs.reset(), 0
    while len(finished) < episodes:
        action = scale * random_action(envs.spec.action, envs.num_envs, noise, step)
        action[rows["is_last"]] = 0.0
        rows, step = envs.step(action), step + 1
        finished += [e for e in envs.pop_finished() if e.episode < quota[e.env]]
    envs.close()
    return finished
