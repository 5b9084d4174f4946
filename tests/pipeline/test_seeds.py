"""Stage `seeds`: what varies with the seed, to the bit, whoever is killed; and processes side by
side."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import checksums
from read_recorder import undeclared
from tuning import ROOT, TINY

from dreamer.types import ConfigError, DreamerError
from pipeline.commands.settings import write_params
from pipeline.page.facts import PLACARD, png_size
from pipeline.params import Raw, from_raw, load_raw, of_stages, override, seeds_config
from pipeline.presets import preset_overrides
from pipeline.report.variation import Repeat, band, variation
from pipeline.scratch import Interrupted
from pipeline.stages import seeds, side_by_side
from pipeline.stages.seeds import SEEDS, TRAINED_BY
from pipeline.stages.session import STAGES, Workspace, pipeline_key
from pipeline.stages.skipping import MODULES, run_unless_done
from pipeline.write_ahead_log import read_events

Launch = Callable[..., "subprocess.Popen[str]"]


def parameters(**changes: object) -> Raw:
    """A training of a second, and what the section `seeds` says."""
    raw = load_raw(ROOT / "params.yaml")
    raw = override(raw, preset_overrides("smoke", raw))
    return override(raw, {**TINY, **{key.replace("__", "."): v for key, v in changes.items()}})


def trained(folder: Path, raw: Raw) -> Path:
    """A folder in which the four stages ran."""
    folder.mkdir(exist_ok=True)
    (folder / ".stages").mkdir()
    for name in MODULES:
        run_unless_done(name, of_stages(raw), Workspace(folder))
    return folder


@pytest.fixture(scope="module")
def singles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Trainings with the seeds 0, 1 and 2, each made alone."""
    root = tmp_path_factory.mktemp("singles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMER_TRACKING", "off")
        return {seed: trained(root / str(seed), parameters(seed=seed)) for seed in (0, 1, 2)}


@pytest.fixture
def project(singles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a repository in which everything before the stage is done."""
    shutil.copytree(singles[0] / "reports", tmp_path / "project" / "reports")
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(side_by_side, "POLL_SECONDS", 0.02)
    return tmp_path / "project"


@pytest.fixture
def launch(project: Path) -> Iterator[Launch]:
    """Starts the stage as DVC does, in a group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(raw: Raw) -> subprocess.Popen[str]:
        write_params(project / "params.yaml", raw)
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages.seeds"],
            cwd=project,
            env=os.environ | {"DVC_ROOT": str(project)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(file)]


# Statistics ------------------------------------------------------------------------------------


def test_figures_of_three_seeds() -> None:
    returns = {5: (1.0, 2.0), 7: (2.0, 2.0), 9: (6.0, 8.0)}
    found = variation(
        [
            Repeat(seed, {"episode/return": best, "last/episode/return": last}, [])
            for seed, (best, last) in returns.items()
        ]
    )
    assert found["seeds/count"] == 3
    assert found["seeds/return"] == 3.0
    assert found["seeds/return_std"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert (found["seeds/return_min"], found["seeds/return_max"]) == (1.0, 6.0)
    assert {seed: found[f"seeds/return/{seed}"] for seed in returns} == {5: 1.0, 7: 2.0, 9: 6.0}
    assert found["seeds/last_return"] == 4.0
    assert found["seeds/last_return_std"] == pytest.approx(12**0.5)


def test_the_band_reaches_as_far_as_every_curve_does() -> None:
    curves = ([(0, 0.0), (100, 10.0), (200, 20.0)], [(50, 7.0), (100, 12.0)])
    found = band([Repeat(seed, {}, curve) for seed, curve in enumerate(curves)])
    half, full = 2**0.5, 2**0.5  # values differ by 2 at both steps: deviation 2 / sqrt(2)
    assert [row["env_step"] for row in found] == [50, 100]
    assert [row["mean"] for row in found] == [6.0, 11.0]
    assert [row["low"] for row in found] == pytest.approx([6.0 - half, 11.0 - full])
    assert [row["high"] for row in found] == pytest.approx([6.0 + half, 11.0 + full])


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"also": [1, 1]}, r"seeds\.also: found \[1, 1\]; allowed: each seed once"),
        ({"also": [-1]}, r"seeds\.also: found -1; allowed: 0 to"),
        ({"also": 3}, r"seeds\.also: found 3; allowed: a list, each item an integer"),
        ({"workers": 0}, r"seeds\.workers: found 0; allowed: 1 to"),
    ],
)
def test_mistakes_show_before_the_first_stage(changes: dict, message: str) -> None:
    raw = parameters(**{f"seeds__{key}": value for key, value in changes.items()})
    with pytest.raises(ConfigError, match=message):
        from_raw(raw)


def test_the_list_changes_no_training_and_by_default_there_is_nothing_to_do() -> None:
    raw = load_raw(ROOT / "params.yaml")
    assert seeds_config(raw).also == ()
    assert pipeline_key(override(raw, {"seeds.also": [1]})) == pipeline_key(raw)
    assert from_raw({key: raw[key] for key in raw if key != "seeds"})
    with pytest.raises(ConfigError, match=r"seeds: found 'no such section'"):
        seeds_config({})


def test_dvc_follows_all_that_trainings_read_and_the_list_but_not_the_workers() -> None:
    assert set(SEEDS.params) == {*TRAINED_BY, "seeds.also"}
    read = {name for stage in STAGES.values() for name in stage.params}
    assert undeclared(read, TRAINED_BY) == set()
    assert set(TRAINED_BY) <= read


# The stage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("also", [[], [0]])
def test_without_further_seeds_there_is_nothing_to_see(project: Path, also: list[int]) -> None:
    seeds.run(parameters(seeds__also=also), Workspace(project))
    outs = project / "reports" / "seeds"
    assert (outs / "metrics.json").read_text() == "{}\n"
    assert (outs / "band.csv").read_text() == ""
    assert png_size(outs / "curves.png")[1] <= PLACARD
    assert sorted(path.name for path in project.iterdir()) == ["reports"]


def test_seeds_equal_single_trainings_to_the_bit_however_many_at_a_time(
    project: Path, singles: dict[int, Path]
) -> None:
    raw = parameters(seeds__also=[2, 0, 1])
    seeds.run(raw, Workspace(project))
    outs = project / "reports" / "seeds"
    found = json.loads((outs / "evaluations.json").read_text())
    curves = rows(outs / "validation.csv")
    for seed, single in singles.items():
        figures = json.loads((single / "reports/evaluate/metrics.json").read_text())
        assert found[str(seed)] == figures
        expected = rows(single / "reports/train/validation.csv")
        mine = [(r["env_step"], r["validation/return"]) for r in curves if r["seed"] == seed]
        assert mine == [(r["env_step"], r["validation/return"]) for r in expected]
    metrics = json.loads((outs / "metrics.json").read_text())
    assert metrics["seeds/count"] == 3
    mean = sum(figures["episode/return"] for figures in found.values()) / 3
    assert metrics["seeds/return"] == pytest.approx(mean)
    assert png_size(outs / "curves.png")[1] > PLACARD
    _are_tracked(project, raw)


@pytest.mark.slow
def test_one_at_a_time_gives_the_same_as_three(project: Path) -> None:
    raw, found = parameters(seeds__also=[1, 2, 3]), []
    for workers in (1, 3):
        seeds.run(override(raw, {"seeds.workers": workers}), Workspace(project))
        found.append(checksums(project / "reports" / "seeds"))
        shutil.rmtree(project / ".scratch")
    assert found[0] == found[1]


def _are_tracked(project: Path, raw: Raw) -> None:
    """Each training is a pipeline of its own, below that of the first seed."""
    for seed in (1, 2):
        key = pipeline_key(override(raw, {"seed": seed}))
        started = next(iter(read_events(project / ".runs" / key)))
        assert started.body["parent_key"] == pipeline_key(raw)
        assert started.body["name"] == f"CartPole-v1 seed {seed}"
    (own,) = (project / ".runs").glob("seeds-*")
    assert next(iter(read_events(own))).body["parent_key"] == pipeline_key(raw)
    names = {n for e in read_events(own) if e.kind == "metrics" for n in e.body["values"]}
    assert {"seeds/return", "seeds/return_std", "seeds/return/2"} <= names


@pytest.fixture
def began(project: Path, singles: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds whose trainings begin; each is copied from the single one, and seed 3 fails."""
    seeds_seen: list[int] = []
    (project / "copies.py").write_text(
        "import shutil, sys\n"
        "if sys.argv[1].endswith('/3'):\n"
        "    sys.exit('one\\nthe disk is full')\n"
        "shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)\n"
    )

    def begin(plan: seeds.Plan, seed: int) -> side_by_side.Process:
        seeds_seen.append(seed)
        plan.workspace(seed).mkdir(parents=True)
        words = ["copies", str(singles[0].with_name(str(seed))), str(plan.workspace(seed))]
        return side_by_side.spawn(words, seeds.log_of(plan.workspace(seed)))

    monkeypatch.setattr(seeds, "begin", begin)
    return seeds_seen


def test_a_longer_list_trains_only_what_is_new(
    project: Path, began: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def evaluated(also: list[int]) -> set[str]:
        seeds.run(parameters(seeds__also=also), Workspace(project))
        return set(json.loads((project / "reports/seeds/evaluations.json").read_text()))

    assert evaluated([1]) == {"0", "1"}
    assert evaluated([1, 2]) == {"0", "1", "2"}
    assert began == [1, 2]
    both = checksums(project / "reports" / "seeds")
    assert evaluated([2]) == {"0", "2"}
    assert evaluated([1, 2]) == {"0", "1", "2"}
    assert checksums(project / "reports" / "seeds") == both
    assert began == [1, 2]
    (group,) = (project / ".scratch" / "seeds").iterdir()
    assert {path.name for path in group.iterdir()} == {
        "lock",
        *("1.json", "1.log"),
        *("2.json", "2.log"),
    }
    (group / "1.json").write_text("{")
    evaluated([1, 2])
    assert began == [1, 2, 1]
    assert "seed 1: trained again: " in caplog.text


def test_a_seed_that_fails_is_named_and_the_others_go_on(
    project: Path, began: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    message = r"^seed 3: the disk is full \(status 1; see .*/\.scratch/seeds/\w{16}/3\.log\)$"
    with pytest.raises(DreamerError, match=message):
        seeds.run(parameters(seeds__also=[3, 2], seeds__workers=1), Workspace(project))
    assert began == [3, 2]
    assert "seed 2: return " in caplog.text
    assert not (project / "reports" / "seeds").exists()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_work(project: Path) -> list[int]:
    """Processes of trainings of this project."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and b"one_seed" in words and str(project).encode() in words:
            found.append(int(entry.name))
    return found


LONG = {"train__env_steps": 4000, "train__eval_every": 2000}  # some seconds


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [("SIGKILL", -9), ("SIGTERM", 143), ("SIGINT", 130)])
def test_stopped_and_resumed_equals_uninterrupted(
    project: Path, launch: Launch, signum: str, status: int
) -> None:
    raw = parameters(**LONG, train__checkpoint_seconds=1, seeds__also=[1, 2])
    process = launch(raw)
    until(lambda: len(list(project.glob(".scratch/seeds/*/*/.scratch/train/*/checkpoints/*"))) > 1)
    process.send_signal(getattr(signal, signum))
    assert process.wait(60) == status
    until(lambda: not at_work(project), 30)
    assert not (project / "reports" / "seeds").exists()
    assert list(project.glob(".scratch/seeds/*/*/.scratch/train/*/checkpoints/*")), "kept"
    again = launch(raw)
    _, said = again.communicate()
    assert again.returncode == 0, said
    logs = list(project.glob(".scratch/seeds/*/*.log"))
    assert len(logs) == 2
    assert any("Resuming after step" in log.read_text() for log in logs)
    assert not list(project.glob(".scratch/seeds/*/*/models")), "only what came of it is left"
    resumed = checksums(project / "reports" / "seeds")
    shutil.rmtree(project / ".scratch")
    assert launch(raw).wait() == 0
    assert checksums(project / "reports" / "seeds") == resumed


# Side by side ----------------------------------------------------------------------------------


def sleeper(log: Path, seconds: float, status: int = 0) -> side_by_side.Process:
    code = f"import sys, time; time.sleep({seconds}); sys.exit({status})"
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-c", code], stdout=output)


def test_as_many_at_a_time_as_there_are_places(tmp_path: Path) -> None:
    running: set[int] = set()
    most, ends = [0], {}

    def start(job: int) -> side_by_side.Process:
        running.add(job)
        most[0] = max(most[0], len(running))
        return sleeper(tmp_path / "log", 0.1, job % 2)

    def ended(job: int, status: int) -> None:
        running.remove(job)
        ends[job] = status

    side_by_side.side_by_side(range(5), 2, start=start, ended=ended, meanwhile=lambda _: True)
    assert most[0] == 2
    assert ends == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0}


def test_leaving_stops_who_is_at_work_and_begins_nothing_new(tmp_path: Path) -> None:
    started: list[side_by_side.Process] = []
    looks = iter((True, False))

    def start(job: int) -> side_by_side.Process:
        started.append(sleeper(tmp_path / "log", 60))
        return started[-1]

    began = time.monotonic()
    side_by_side.side_by_side(
        range(3), 2, start=start, ended=lambda *_: None, meanwhile=lambda _: next(looks)
    )
    assert time.monotonic() - began < 10
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 2


def test_a_process_ends_with_the_one_that_spawned_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "waits.py").write_text(
        "import time\nfrom pipeline.stages.side_by_side import end_with_parent\n"
        "end_with_parent()\nprint('here', flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    process = side_by_side.spawn(["waits"], tmp_path / "log")
    until(lambda: "here" in (tmp_path / "log").read_text(), 20)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == -signal.SIGTERM
    assert side_by_side.last_line(tmp_path / "log") == "here"
    (tmp_path / "log").write_text("INFO - one\nERROR - the disk is full\n")
    assert side_by_side.last_line(tmp_path / "log") == "the disk is full"
    (tmp_path / "log").write_text("")
    assert side_by_side.last_line(tmp_path / "log") == "nothing was said yet"


def test_a_stop_is_told_from_a_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while trainings are at work: the stage ends as interrupted, and names no culprit."""

    def begin(plan: seeds.Plan, seed: int) -> side_by_side.Process:
        plan.workspace(seed).mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGINT)
        return sleeper(seeds.log_of(plan.workspace(seed)), 60)

    monkeypatch.setattr(seeds, "begin", begin)
    with pytest.raises(Interrupted) as stopped:
        seeds.run(parameters(seeds__also=[1, 2], seeds__workers=1), Workspace(project))
    assert stopped.value.code == 130
