"""Verdicts and page of known rows, staleness, a real run stopped and resumed, a campaign."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import evidence, evidence_rows, evidence_run
from benchmarks.claims import MATRIX, Claim, conditions, spread, verdict
from benchmarks.evidence import PAGE, RESULTS, campaign, main
from benchmarks.evidence_rows import Job, differences, newer, parameters_of, raw_of, read_row
from benchmarks.evidence_run import (
    Circumstances,
    CodeChangedError,
    changed_files,
    cpu_model,
    read_clock,
    run_timed,
    work,
)
from benchmarks.markdown import number
from benchmarks.questions import QUESTIONS
from benchmarks.results_page import write_page
from benchmarks.selection import jobs_of
from dreamer.envs.vector import VectorEnv
from dreamer.types import ConfigError, DataError
from pipeline.params import from_raw, override
from pipeline.presets import list_presets
from pipeline.scratch import Interrupted
from pipeline.stages.session import STAGES, Session, Workspace
from pipeline.stages.skipping import RECORDS

CLAIM = Claim(preset="cartpole", seeds=(0, 1), text="It balances.", mean=475, each=450, ending=400)


def fake_row(seed: int, best: float, last: float, curve: list[float]) -> dict:
    job = Job("cartpole", seed)
    agents = {
        who: {
            "return": ret,
            "return_ci_low": ret - 1,
            "return_ci_high": ret + 1,
            "return_min": ret - 10,
            "return_max": ret + 10,
            "return_std": 2.0,
            "length": ret,
            "count": 100,
        }
        for who, ret in (("best", best), ("last", last))
    }
    return agents | {
        "preset": "cartpole",
        "seed": seed,
        "changed": {"seed": seed} if seed else {},
        "parameters": parameters_of(job, raw_of(job)),
        "validation": [[2000 * (i + 1), ret] for i, ret in enumerate(curve)],
        "last_validations": sum(curve[-3:]) / 3,
        "env_steps": 2000 * len(curve),
        "updates": 1750,
        "seconds": {"collect": 1.0, "pretrain": 30.0, "train": 750.0, "evaluate": 5.0},
        "restarts": 0,
        "unmeasured": 0,
        "circumstances": here(),
        "fingerprint": "f" * 64,
    }


def here(**changes: object) -> dict:
    return {
        "cpu": "Abacus 9000",
        "device": "cpu",
        "threads": 1,
        "side_by_side": 2,
        "malloc_tuned": True,
        "python": "3.12.1",
        "torch": "2.13.0",
        "commit": "0123456789abcdef",
        "dirty": False,
        "code": "c" * 64,
    } | changes


def random_row(idle: float | None = None) -> dict:
    job = Job("cartpole", None)
    parameters = parameters_of(job, raw_of(job))
    return {
        "preset": "cartpole",
        "seed": None,
        "parameters": parameters,
        "random": {"return": 22.25},
        "idle": idle and {"return": idle},
        "circumstances": here(),
    }


def put(folder: Path, *rows: dict) -> None:
    folder.mkdir(exist_ok=True)
    for row in rows:
        name = Job(row["preset"], row["seed"]).name
        (folder / f"{name}.json").write_text(json.dumps(row))


def page_of(tmp_path: Path, *rows: dict) -> str:
    put(tmp_path / "results", *rows)
    write_page((CLAIM,), (), tmp_path / "results", tmp_path / "results.md")
    return (tmp_path / "results.md").read_text()


GOOD = (
    fake_row(0, 500.0, 480.0, [20.0, 300.0, 450.0, 500.0]),
    fake_row(1, 460.0, 440.0, [30.0, 410.0, 430.0, 420.0]),
)


# --- claims ---------------------------------------------------------------------------------------


def test_the_matrix_names_presets_that_exist():
    assert {claim.preset for claim in MATRIX} <= set(list_presets())
    assert [(c.preset, c.seeds) for c in MATRIX] == [
        ("cartpole", (0, 1, 2, 3, 4)),
        ("pendulum", (0, 1, 2)),
        ("dmc_cartpole_balance", (0, 1, 2)),
        ("minigrid_empty", (0, 1, 2)),
    ]


def test_every_run_of_the_matrix_has_valid_parameters_and_its_seed():
    for job in jobs_of(MATRIX):
        raw = raw_of(job)
        assert raw["seed"] == (job.seed or 0)
        assert parameters_of(job, raw)["env.id"] == raw["env"]["id"]


def test_conditions_of_known_rows():
    found = [(c.found, c.needed, c.met) for c in conditions(CLAIM, GOOD, None)]
    ending = ((300 + 450 + 500) / 3 + (410 + 430 + 420) / 3) / 2
    assert found == [(480.0, 475, True), (460.0, 450, True), (pytest.approx(ending), 400, True)]


@pytest.mark.parametrize(
    ("best", "curve", "unmet"),
    [
        ((510.0, 449.9), [500.0] * 3, [2]),  # the worst
        ((474.0, 475.0), [500.0] * 3, [0]),  # the mean
        ((500.0, 500.0), [500.0, 350.0, 340.0], [3]),  # it fell at the end
    ],
)
def test_every_condition_can_fail_alone(best, curve, unmet):
    rows = [fake_row(seed, ret, ret, curve) for seed, ret in enumerate(best)]
    assert [i for i, c in enumerate(conditions(CLAIM, rows, 0.0)) if not c.met] == unmet
    assert verdict(CLAIM, rows, 0.0) == "not met"


def test_a_claim_stays_open_until_every_run_is_finished():
    assert [verdict(CLAIM, GOOD[:n], 0.0) for n in range(3)] == ["open", "open", "met"]
    assert not any(condition.met for condition in conditions(CLAIM, [], 0.0))


def test_a_threshold_itself_is_enough():
    rows = [fake_row(seed, 475.0, 0.0, [400.0] * 3) for seed in CLAIM.seeds]
    assert verdict(CLAIM, rows, 0.0) == "met"


def test_what_needs_no_learning_must_be_beaten():
    assert verdict(CLAIM, GOOD, 480.1) == "not met"
    assert verdict(CLAIM, GOOD, 480.0) == "met"


def test_spread_is_that_of_a_sample():
    assert spread([500.0, 460.0]) == (480.0, pytest.approx(800**0.5))
    assert spread([7.0]) == (7.0, 0.0)


# --- rows -----------------------------------------------------------------------------------------


def test_parameters_of_a_part_that_is_off_make_no_difference():
    off = {"policy.hierarchy": False, "policy.goal_lr": 1e-3, "policy.epochs": 2}
    now = off | {"policy.goal_lr": 3e-3, "policy.goal_every": 5}
    assert (differences(off, now), newer(off, now)) == ([], [])
    on = now | {"policy.hierarchy": True}
    assert differences(on, on | {"policy.goal_lr": 1e-3}) == [
        "policy.goal_lr: then 0.003, now 0.001"
    ]
    assert [line.split(":")[0] for line in differences(off, on)] == [
        "policy.hierarchy",
        "policy.goal_lr",
    ]
    assert newer({"policy.epochs": 2}, now) == ["policy.hierarchy"]


def test_differences_name_changed_added_and_removed_parameters():
    then = {"a": 1, "b": True, "gone": "x"}
    assert differences(then, dict(then)) == []
    assert differences(then, {"a": 2, "b": True, "new": 0.5}) == [
        "a: then 1, now 2",
        'gone: then "x", now not there',
    ]
    assert newer(then, {"a": 2, "b": True, "new": 0.5}) == ["new"]
    assert differences({"b": True}, {"b": 1}) == ["b: then true, now 1"]
    assert differences({"c": 1}, {"c": 1.0}) == ["c: then 1, now 1.0"]


def test_a_damaged_or_foreign_row_is_refused(tmp_path):
    job = Job("cartpole", 0)
    assert read_row(job, tmp_path) is None
    path = tmp_path / "cartpole-seed0.json"
    path.write_text('{"preset": "cartpole"')
    with pytest.raises(DataError, match=r"cartpole-seed0\.json: found no JSON"):
        read_row(job, tmp_path)
    path.write_text('{"preset": "cartpole", "seed": 0}')
    with pytest.raises(DataError, match="found no best, changed"):
        read_row(job, tmp_path)
    path.write_text(json.dumps(GOOD[1]))
    with pytest.raises(DataError, match="found cartpole seed 1; allowed: a row of cartpole-seed0"):
        read_row(job, tmp_path)


def test_more_threads_than_one_are_refused(monkeypatch):
    real = evidence_rows.load_raw

    def threaded(path):
        raw = real(path)
        return raw if "presets" in str(path) else raw | {"runtime": raw["runtime"] | {"threads": 2}}

    monkeypatch.setattr(evidence_rows, "load_raw", threaded)
    with pytest.raises(ConfigError, match=r"runtime\.threads: found 2; allowed: 1"):
        raw_of(Job("cartpole", 0))


def test_the_processor_is_read_from_cpuinfo(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Abacus 9000: the fast one\n\nprocessor\t: 1\n")
    assert cpu_model(file) == "Abacus 9000: the fast one"
    assert cpu_model(tmp_path / "none")  # what Python knows


# --- page -----------------------------------------------------------------------------------------


def test_page_of_known_rows(tmp_path):
    page = page_of(tmp_path, *GOOD, random_row())
    assert (
        "| [cartpole](#cartpole) | 2 of 2 | 480.0 +- 28.3 | 460.0 +- 28.3 | 22.25 | - | met |"
        in page
    )
    assert (
        "| 0 | 500.0 | 499.0 to 501.0 | 490.0 | 480.0 | 416.7 | 12.5 | 1,750 | 0123456789 |" in page
    )
    assert (
        "| 1 | 460.0 | 459.0 to 461.0 | 450.0 | 440.0 | 420.0 | 12.5 | 1,750 | 0123456789 |" in page
    )
    assert (
        "| all | 480.0 +- 28.3 |  | 450.0 | 460.0 +- 28.3 | 418.3 +- 2.4 | 25.0 | 3,500 |  |"
        in page
    )
    assert "- worst of the best agents, at least 450 needed: 460.0, met" in page
    p = GOOD[0]["parameters"]
    assert f"100 episodes, {p['evaluate.policy']} of the policy, seed 1000000 |\n" in page
    assert "Verdict: **met** (2 of 2 runs finished)." in page
    assert "Threads of a run: 1. Runs at a time, at most: 2." in page
    assert "- Processor: Abacus 9000. Tensors on: cpu." in page
    assert "--only cartpole" in page
    assert "Stale" not in page
    assert "not committed" not in page
    assert (tmp_path / "results" / "cartpole.png").read_bytes().startswith(b"\x89PNG")


def test_page_of_a_task_that_doing_nothing_solves(tmp_path):
    page = page_of(tmp_path, *GOOD, random_row(idle=490.0))
    assert "| 22.25 | 490.0 | not met |" in page
    assert "against what needs no learning, at least 490 needed: 480.0, not met" in page


def test_page_says_not_met(tmp_path):
    page = page_of(tmp_path, GOOD[0], fake_row(1, 300.0, 440.0, [500.0] * 3))
    assert "- mean of the best agents, at least 475 needed: 400.0, not met" in page
    assert "- worst of the best agents, at least 450 needed: 300.0, not met" in page
    assert "Verdict: **not met** (2 of 2 runs finished)." in page


def test_page_of_part_of_the_rows(tmp_path):
    page = page_of(tmp_path, GOOD[1])
    assert "| [cartpole](#cartpole) | 1 of 2 | 460.0 | 440.0 | - | - | open |" in page
    assert "Verdict: **open** (1 of 2 runs finished)." in page


def test_page_without_rows(tmp_path):
    page = page_of(tmp_path)
    assert "| [cartpole](#cartpole) | 0 of 2 | - | - | - | - | open |" in page
    assert "- mean of the best agents, at least 475 needed: not measured yet" in page
    assert "Verdict: **open** (0 of 2 runs finished)." in page
    assert "No run is finished yet." in page
    assert "| cartpole | - | - | - |" in page
    assert "png" not in page
    assert not list((tmp_path / "results").glob("*.png"))


def test_page_tells_stale_rows_uncommitted_code_and_lost_time(tmp_path):
    row = fake_row(0, 500.0, 500.0, [500.0] * 3) | {"unmeasured": 1, "restarts": 3}
    row["parameters"] |= {"policy.entropy_scale": 0.5}
    row["circumstances"] = here(dirty=True, cpu="Slide Rule")
    page = page_of(tmp_path, row, GOOD[1])
    assert re.search(
        r"Stale: cartpole-seed0 was made with other parameters "
        r"\(policy\.entropy_scale: then 0\.5, now [\de.-]+\)\.",
        page,
    )
    assert "cartpole-seed1 was made" not in page
    assert "Made with changes that were not committed: seed 0." in page
    assert "| > 12.5 (3) | 1,750 | 0123456789* |" in page
    assert "- Processor: Slide Rule, Abacus 9000." in page


def test_the_same_rows_make_the_same_bytes(tmp_path):
    def content() -> dict[str, bytes]:
        return {f.name: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}

    page_of(tmp_path, *GOOD)
    first = content()
    page_of(tmp_path, *GOOD)
    assert content() == first


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1238.44, "-1,238.4"), (475.0, "475.0"), (45.674, "45.67"), (0.9534, "0.953"), (None, "-")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_the_page_in_the_repository_is_the_one_of_its_rows(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.png"))
    write_page(MATRIX, QUESTIONS, tmp_path / "results", tmp_path / "results.md")
    now = (tmp_path / "results.md").read_text()
    assert PAGE.read_text() == now, "run `python -m benchmarks.evidence --page`"


# --- one real run ---------------------------------------------------------------------------------


def test_a_run_is_resumed_skips_finished_stages_and_ends_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    job, folder, results = Job("smoke", 3), tmp_path / "work", tmp_path / "results"
    real_save, calls = Session.save_if_due, []

    def stopped(self: Session, *args: object) -> None:
        if self.scratch.stage == "train":
            calls.append(args)
            if len(calls) == 2:
                self.scratch._signum = signal.SIGTERM
        real_save(self, *args)

    monkeypatch.setattr(Session, "save_if_due", stopped)
    with pytest.raises(Interrupted):
        work(job, 2, folder, results)
    assert not results.exists()
    done = {name: stamp(folder, name) for name in ("collect", "pretrain")}
    monkeypatch.setattr(Session, "save_if_due", real_save)
    work(job, 2, folder, results)
    assert {name: stamp(folder, name) for name in done} == done, "finished stages are not repeated"
    row = read_row(job, results)
    check_smoke_row(row, folder)
    work(job, 2, folder, results)
    assert read_row(job, results) == row, "a lost row is written again from the finished stages"


def stamp(folder: Path, stage: str) -> int:
    return (folder / ".stages" / f"{stage}.json").stat().st_mtime_ns


def check_smoke_row(row: dict, folder: Path) -> None:
    metrics = json.loads((folder / "reports" / "evaluate" / "metrics.json").read_text())
    assert row["best"]["return"] == metrics["episode/return"]
    assert row["last"]["return_ci_low"] == metrics["last/episode/return_ci_low"]
    assert row["changed"]["seed"] == 3
    assert row["changed"]["train.env_steps"] == row["parameters"]["train.env_steps"] == 600
    assert row["env_steps"] == row["validation"][-1][0] == 600
    returns = [ret for _, ret in row["validation"]]
    assert row["last_validations"] == pytest.approx(sum(returns[-3:]) / len(returns[-3:]))
    assert row["updates"] > 0
    assert row["seconds"].keys() == STAGES.keys()
    assert (row["restarts"], row["unmeasured"]) == (1, 0)
    assert row["circumstances"]["side_by_side"] == 2
    assert row["circumstances"]["threads"] == 1
    assert row["circumstances"]["device"] in ("cpu", "cuda")
    marker = json.loads((folder / ".stages" / "train.json").read_text())
    assert row["fingerprint"] == marker["fingerprint"]


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """`stage(key, seconds, error)` runs a pretended stage that takes so long; returns its clock."""
    (tmp_path / RECORDS).mkdir()
    workspace, now = Workspace(tmp_path), [0.0]
    record = tmp_path / RECORDS / "train.json"

    def run(key: str, seconds: float, error: BaseException | None = None) -> dict:
        def pretend(name: str, raw: dict, workspace: Workspace) -> None:
            if record.exists() and record.read_text() == key:
                return
            now[0] += seconds
            if error is not None:
                raise error
            record.write_text(key)

        monkeypatch.setattr(evidence_run, "run_unless_done", pretend)
        monkeypatch.setattr(evidence_run, "fingerprint_of", lambda *_: key)
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        with contextlib.suppress(BaseException if error else ()):
            run_timed("train", {}, Circumstances(**here()), workspace)
        entry = read_clock(workspace)["train"]
        return {name: entry[name] for name in ("seconds", "starts", "ends")}

    return run


def test_the_clock_adds_up_over_interruptions_and_stands_still_for_what_is_done(stage):
    assert stage("key", 10, Interrupted()) == {"seconds": 10, "starts": 1, "ends": 1}
    assert stage("key", 5) == {"seconds": 15, "starts": 2, "ends": 2}
    assert stage("key", 99) == {"seconds": 15, "starts": 2, "ends": 2}
    assert stage("other key", 7) == {"seconds": 7, "starts": 1, "ends": 1}


def test_a_killed_process_leaves_a_start_without_an_end(stage, tmp_path):
    stage("key", 10, Interrupted())
    path = tmp_path / RECORDS / "clock.json"
    clock = json.loads(path.read_text())
    clock["train"]["starts"] += 1  # as it stands while the stage is at work
    path.write_text(json.dumps(clock))
    assert stage("key", 5) == {"seconds": 15, "starts": 3, "ends": 2}


def test_a_change_of_code_before_training_is_noticed(tmp_path, monkeypatch):
    checksums = iter(["as loaded", "edited"])
    monkeypatch.setattr(evidence_run, "code_checksum", lambda: next(checksums))
    with pytest.raises(CodeChangedError, match="the code changed before collect"):
        work(Job("smoke", 0), 1, tmp_path / "work", tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_random_policy_is_measured(tmp_path):
    job = Job("smoke", None)
    work(job, 1, tmp_path / "work", tmp_path)
    row = read_row(job, tmp_path)
    assert row["random"]["count"] == 4
    assert row["idle"] is None  # there is no such action among one-hots
    assert row["random"]["return"] == row["random"]["length"]  # a point per step in CartPole
    assert set(row["parameters"]) == {
        key
        for key in parameters_of(Job("smoke", 0), raw_of(job))
        if key.startswith(("env.", "eva"))
    }


def test_idling_is_measured_where_actions_are_continuous(tmp_path):
    """Pendulum without torque is a known system: see `free_pendulum`."""
    raw = override(raw_of(Job("pendulum", None)), {"evaluate.episodes": 2, "evaluate.num_envs": 1})
    row = evidence_run.random_row(Job("pendulum", None), raw, Circumstances(**here()))
    params = from_raw(raw)
    env = VectorEnv(dataclasses.replace(params.env, num_envs=1), params.evaluate.seed)
    starts = []
    rows = env.reset()
    while len(starts) < 2:
        if rows["is_first"][0]:
            starts.append(rows[next(key for key in env.spec.obs)][0])
        rows = env.step(np.zeros((1, 1), np.float32))
    env.close()
    assert row["idle"]["return"] == pytest.approx(
        np.mean([free_pendulum(s) for s in starts]), rel=1e-3
    )
    assert row["idle"] != row["random"]


def free_pendulum(start: np.ndarray) -> float:
    """Return of 200 steps without torque: semi-implicit Euler, g = 10, length = mass = 1."""
    cos, sin, speed = (float(x) for x in start)
    angle, total = np.arctan2(sin, cos), 0.0
    for _ in range(200):
        total -= (np.mod(angle + np.pi, 2 * np.pi) - np.pi) ** 2 + 0.1 * speed**2
        speed = np.clip(speed + 15.0 * np.sin(angle) * 0.05, -8.0, 8.0)
        angle += speed * 0.05
    return total


# --- the campaign ---------------------------------------------------------------------------------


def starter(code: str, started: list[Job]):
    """Start interpreters that run `code`; {job} in it is the name of the job."""

    def start(job: Job) -> "subprocess.Popen[bytes]":
        started.append(job)
        command = [sys.executable, "-I", "-S", "-c", code.replace("{job}", job.name)]
        return subprocess.Popen(command, stdin=subprocess.PIPE)

    return start


@pytest.fixture(autouse=True)
def _closed_pipes(monkeypatch):
    """Close the pipes of children, which a campaign keeps open as long as it lives."""
    children, real = [], subprocess.Popen

    def popen(*args, **kwargs):
        children.append(real(*args, **kwargs))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    yield
    for child in children:
        if child.stdin:
            child.stdin.close()
        child.wait()


def test_runs_are_made_so_many_at_a_time(tmp_path):
    jobs = [Job("cartpole", seed) for seed in range(4)]
    code = f"import pathlib, time; p = pathlib.Path({str(tmp_path)!r}, '{{job}}')\n"
    code += "p.touch(); time.sleep(0.3); n = len(list(p.parent.iterdir())); p.unlink()\n"
    code += "raise SystemExit(0 if n <= 2 else 3)"
    started, finished = [], []
    assert campaign(jobs, 2, starter(code, started), finished.append) == {}
    assert started == jobs
    assert sorted(finished) == jobs


def test_a_failed_run_does_not_stop_the_others():
    jobs = [Job("cartpole", seed) for seed in range(3)]
    finished = []
    code = "raise SystemExit(2 if '{job}' == 'cartpole-seed1' else 0)"
    assert campaign(jobs, 2, starter(code, []), finished.append) == {jobs[1]: 2}
    assert sorted(finished) == [jobs[0], jobs[2]]


def test_a_run_whose_code_changed_is_started_again(tmp_path):
    mark = str(tmp_path / "mark")
    code = f"import pathlib; p = pathlib.Path({mark!r}); again = p.exists(); p.touch()\n"
    code += "raise SystemExit(0 if again else 75)"
    job, started = Job("cartpole", 0), []
    assert campaign([job], 1, starter(code, started), lambda _: None) == {}
    assert started == [job, job]


def test_a_signal_stops_the_runs_in_order(tmp_path):
    """They get SIGTERM, and the campaign waits until they have written what they write."""
    code = f"import pathlib, signal, time; p = pathlib.Path({str(tmp_path)!r}, '{{job}}')\n"
    code += (
        "def stop(*_):\n time.sleep(0.2); p.with_suffix('.saved').touch(); raise SystemExit(143)\n"
    )
    code += "signal.signal(signal.SIGTERM, stop); p.touch(); time.sleep(60)"
    before = signal.signal(signal.SIGTERM, evidence.raise_interrupted)
    jobs, started = [Job("cartpole", seed) for seed in range(3)], []

    def interrupt() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(Interrupted) as stopped:
            campaign(jobs, 2, starter(code, started), lambda _: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert started == jobs[:2]
    assert len(list(tmp_path.glob("*.saved"))) == 2


def test_a_run_follows_its_campaign_before_it_works(monkeypatch):
    done = []
    monkeypatch.setattr(evidence, "end_with_parent", lambda: done.append("follow"))
    monkeypatch.setattr(evidence, "work", lambda job, *_: done.append(job.name))
    evidence.work_as_child(Job("cartpole", 0), 1)
    assert done == ["follow", "cartpole-seed0"]


def test_only_missing_rows_are_made(tmp_path, monkeypatch):
    put(tmp_path / "results", *GOOD, random_row())
    started: list[Job] = []

    def record(jobs, workers, start, finished):
        started.extend(jobs)
        return {}

    for name, value in {"RESULTS": tmp_path / "results", "PAGE": tmp_path / "results.md"}.items():
        monkeypatch.setattr(evidence, name, value)
    monkeypatch.setattr(evidence, "campaign", record)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(["--only", "cartpole"]) == 0
    assert started == [Job("cartpole", 2), Job("cartpole", 3), Job("cartpole", 4)]
    assert "Verdict: **open** (2 of 5 runs finished)." in (tmp_path / "results.md").read_text()


def test_the_list_tells_fresh_stale_and_missing(tmp_path, monkeypatch, capsys):
    stale = fake_row(1, 460.0, 440.0, [420.0] * 3)
    stale["parameters"]["train.env_steps"] = 5
    code = evidence_rows.code_checksum()
    put(tmp_path, GOOD[0] | {"circumstances": here(code=code)}, stale)
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    monkeypatch.setattr(evidence, "WORK", tmp_path / "work")
    (tmp_path / "work" / "cartpole-seed2").mkdir(parents=True)
    assert main(["--list", "--only", "cartpole"]) == 0
    random, first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert random == "cartpole-random: missing"
    assert first == "cartpole-seed0: fresh, best 500, last 480, trained 12 min 30 s"
    assert second.startswith("cartpole-seed1: stale (train.env_steps: then 5, now ")
    assert "code changed since" in second
    assert third == "cartpole-seed2: begun"


def test_what_a_campaign_rewrites_is_no_change_of_the_code(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    files = ["docs/results.md", "docs/results/question-a.png", "docs/results/a-seed0.json", "a.py"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before\n")
    git("init")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "one")
    for name in files[:2]:
        (tmp_path / name).write_text("after\n")
    assert changed_files(tmp_path) == ""
    (tmp_path / "a.py").write_text("after\n")
    assert "a.py" in changed_files(tmp_path)
