"""Retraining in fresh clones that share a remote, with the commands that continuous integration
runs and with DVC itself; a pipeline of seconds stands in for the real one.
"""

import csv
import io
import json
import re
import time
from pathlib import Path

import pytest
from dvc_project import BIN, attempt, command, fresh_copy

pytestmark = pytest.mark.slow
STAGES = ("collect", "pretrain", "train", "evaluate", "seeds")
GH = """#!/bin/sh
printf '%s\\n' "$@" > "$GH_SAID"
"""


def make(folder, *words, **variables):
    """A target of the Makefile, with the environment that is here."""
    words = ("make", "--old-file=setup", f"VENV={BIN.parent}", *words)
    return attempt(folder, *words, **variables)


def made(folder, *words, **variables):
    done = make(folder, *words, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def ran(printed):
    return [stage for stage in STAGES if f"Running stage '{stage}'" in printed]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bare repository without a lock; clones of it find the remote of .dvc/config beside them."""
    folder = tmp_path_factory.mktemp("project")
    work = fresh_copy(folder / "work")
    command(folder, "git", "clone", "-q", "--bare", str(work), str(folder / "origin"))
    return folder / "origin"


def clone(origin, name):
    folder = origin.parent / name
    command(origin.parent, "git", "clone", "-q", str(origin), name)
    return folder


@pytest.fixture(scope="module")
def first(origin):
    """A clone that trained, and gave what it made to the remote."""
    folder = clone(origin, "first")
    assert ran(made(folder, "retrain")) == list(STAGES)
    return folder


@pytest.fixture(scope="module")
def locked(origin, first):
    """A clone that found all of it on the remote, and committed the lock."""
    folder = clone(origin, "second")
    began = time.monotonic()
    printed = made(folder, "retrain")
    took = time.monotonic() - began
    assert ran(printed) == []
    assert all(f"Stage '{stage}' is cached" in printed for stage in STAGES)
    assert took < 60, f"{took:.0f} s, though nothing is trained"
    command(folder, "git", "add", "dvc.lock")
    command(folder, "git", "commit", "-q", "-m", "lock")
    command(folder, "git", "push", "-q", "origin", "HEAD")
    return folder


def test_the_second_clone_trains_nothing_and_has_the_same(first, locked):
    assert (first / "dvc.lock").read_bytes() == (locked / "dvc.lock").read_bytes()
    weights = "models/agent/best/tensors.safetensors"
    assert (first / weights).read_bytes() == (locked / weights).read_bytes()


def test_a_clone_of_a_committed_lock_pulls_and_has_nothing_to_do(origin, locked):
    folder = clone(origin, "pulled")
    assert made(folder, "lock-check")  # without data
    command(folder, "dvc", "pull")
    assert "up to date" in command(folder, "dvc", "status")
    assert ran(command(folder, "dvc", "repro")) == []


def test_the_lock_check_fails_where_the_lock_is_old(origin, locked):
    for name, data in (("edited", False), ("edited-data", True)):
        folder = clone(origin, name)
        if data:
            command(folder, "dvc", "pull")
        params = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(params.replace("clip_ratio: 0.2", "clip_ratio: 0.1"))
        done = make(folder, "lock-check")
        assert done.returncode != 0
        assert "is not of this code and these parameters" in done.stderr


def test_a_retraining_is_proposed_once_with_its_differences(origin, locked, tmp_path):
    folder = clone(origin, "changed")
    made(folder, "retrain")
    assert "nothing to propose" in made(folder, "propose")
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("clip_ratio: 0.2", "clip_ratio: 0.1"))
    assert ran(made(folder, "retrain")) == ["train", "evaluate", "seeds"]
    made(folder, "changes")
    changes = (folder / "reports/changes.md").read_text()
    assert re.search(r"\| params.yaml +\| policy.clip_ratio +\| 0.2 +\| 0.1 +\|", changes)
    assert re.search(r"\| reports/evaluate/metrics.json +\| episode/return +\|", changes)
    assert (folder / "dvc_plots/index.html").exists()
    assert "policy.clip_ratio" in (folder / "reports/report.html").read_text()
    assert make(folder, "gate").returncode != 0  # an agent of seconds is far below the floor
    told = (folder / "reports/changes.md").read_text()
    assert told.startswith(changes)
    assert "## Gate\n\n**The gate refused the agent.**\n" in told
    assert "verdict    refused: no champion yet" in told
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    path = f"{tmp_path}:{BIN}:/usr/bin:/bin"
    made(folder, "propose", PATH=path, GH_SAID=str(tmp_path / "said"))
    said = (tmp_path / "said").read_text().split("\n")
    branch = said[said.index("--head") + 1]
    assert said[said.index("--body-file") + 1] == "reports/changes.md"
    names = command(origin, "git", "show", "--name-only", "--format=", branch).split()
    assert names == ["dvc.lock", "params.yaml"]
    command(folder, "git", "checkout", "-q", "-")
    command(folder, "git", "checkout", "-q", branch, "--", "dvc.lock", "params.yaml")
    assert "is there already" in made(folder, "propose", PATH=path)


def test_a_queue_of_experiments_runs_and_shows(origin, locked):
    folder = clone(origin, "queue")
    command(folder, "dvc", "pull")
    sweep = ("-S", "policy.clip_ratio=0.1,0.3", "-S", "train.env_steps=400")
    command(folder, "dvc", "exp", "run", "--queue", *sweep)
    command(folder, "dvc", "queue", "start", "-j", "1")
    deadline = time.monotonic() + 300
    while "Queued" in (status := command(folder, "dvc", "queue", "status")) or "Running" in status:
        assert time.monotonic() < deadline, status
        time.sleep(2)
    assert status.count("Success") == 2, status
    shown = command(folder, "dvc", "exp", "show", "--csv", "--no-pager")
    rows = list(csv.DictReader(io.StringIO(shown[shown.index("Experiment,") :])))
    tried = {row["Experiment"]: row["policy.clip_ratio"] for row in rows if row["Experiment"]}
    assert sorted(tried.values()) == ["0.1", "0.3"]
    command(folder, "dvc", "plots", "diff", *tried, "-o", "plots")
    page = (folder / "plots/index.html").read_text()
    assert all(name in page for name in tried)


def test_an_agent_is_registered_by_a_tag_and_fetched_by_its_stage(origin, locked, tmp_path):
    for words in (("register", "policy"), ("assign", "policy", "--stage", "prod")):
        command(locked, "gto", *words)
    assert {"policy@v0.0.1", "policy#prod#1"} <= set(command(locked, "git", "tag").split())
    out = tmp_path / "agent"
    stage = ("--stage", "prod", "-o", str(out))
    command(tmp_path, "dvc", "artifacts", "get", str(locked), "policy", *stage)
    meta = json.loads((out / "meta.json").read_text())["meta"]
    assert meta["kind"] == "agent"
    original = locked / "models/agent/best/tensors.safetensors"
    assert (out / "tensors.safetensors").read_bytes() == original.read_bytes()
    command(locked, "git", "push", "-q", "--tags", "origin")
    place = f"url={origin.parent / 'dreamer-storage'}"
    words = ("--stage", "prod", "--remote-config", place, "-o", str(tmp_path / "far"))
    command(tmp_path, "dvc", "artifacts", "get", str(origin), "policy", *words)
    assert (tmp_path / "far/tensors.safetensors").read_bytes() == original.read_bytes()


def test_an_experiment_with_seeds_goes_from_clone_to_clone(origin, locked):
    place = ("dvc", "remote", "modify", "--local", "storage", "url", "../dreamer-storage")
    here, there = clone(origin, "here"), clone(origin, "there")
    for folder in (here, there):
        command(folder, *place)
    command(here, "dvc", "pull")
    seeds = ("-S", "seeds.also=[1, 2]")
    printed = command(here, "dvc", "exp", "run", "-n", "varied", *seeds)
    assert ran(printed) == ["seeds"]
    metrics = json.loads((here / "reports/seeds/metrics.json").read_text())
    assert metrics["seeds/count"] == 3
    assert "seeds/return_std" in command(here, "dvc", "metrics", "diff")
    command(here, "dvc", "plots", "diff", "-o", "plots")
    assert "curves.png" in (here / "plots/index.html").read_text()
    command(here, "dvc", "exp", "push", "origin", "varied")
    command(there, "dvc", "exp", "pull", "origin", "varied")
    command(there, "dvc", "exp", "apply", "varied")
    assert json.loads((there / "reports/seeds/metrics.json").read_text()) == metrics
    assert ran(command(there, "dvc", "repro")) == []


def test_another_remote_by_name(origin, first, locked, tmp_path):
    folder = clone(origin, "elsewhere")
    other = tmp_path / "other"
    # Nothing is there yet, so the cache of the first clone is lent: only pushing is looked at.
    command(folder, "dvc", "cache", "dir", "--local", str(first / ".dvc/cache"))
    made(folder, "retrain", REMOTE=str(other))
    assert {path.name for path in Path(other).iterdir()} == {"files", "runs"}
    assert command(folder, "git", "status", "--porcelain") == ""
