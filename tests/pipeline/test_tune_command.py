"""`dreamer tune`: real workers on trainings of a second, and mistakes in one line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import dreamer
from tuning import ROOT, TINY, a_plan

from dreamer.types import DreamerError
from pipeline.tune.crew import RESTARTS, Crew
from pipeline.tune.ledger import open_ledger
from pipeline.tune.plan import read_plan
from pipeline.write_ahead_log import read_events

WORDS = ("--preset=smoke", *(f"--set={key}={json.dumps(value)}" for key, value in TINY.items()))


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_a_study_runs_ends_and_has_nothing_to_do_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.json").write_text(json.dumps({"clip_ratio": [0.1, 0.2], "threads": 1}))
    words = (*WORDS, "--config=space.json", "--set=tune.seeds=[1]", "--study=first")
    answer = dreamer(capsys, "tune", *words)
    assert answer.status == 0, answer.err
    assert answer.out[1].startswith("trial    0  clip_ratio=0.2  ")
    assert answer.out[2].startswith("trial    1  clip_ratio=0.1  ")
    assert "stages run: collect 1, pretrain 1, train 2, evaluate 2" in answer.out[3]
    folder = Path("outputs/tune/first")
    for name in ("importance.png", "slices.png", "history.png", "trials.csv", "journal.log"):
        assert (folder / name).exists()
    again = dreamer(capsys, "tune", *words)
    assert again.out[0].endswith("2 of at most 30 trials done")
    assert not [line for line in again.out if line.startswith("trial")]
    assert again.out[1:] == answer.out[3:]
    _is_tracked(read_plan(folder / "plan.json").folder)


def _is_tracked(folder: Path) -> None:
    key = open_ledger(read_plan(folder / "plan.json")).study.user_attrs["key"]
    events = list(read_events(Path(".runs") / f"study-{key}-1"))
    assert events[0].body["parent_key"] == f"study-{key}"
    assert events[0].body["tags"]["optuna.state"] == "COMPLETE"
    names = {name for e in events if e.kind == "metrics" for name in e.body["values"]}
    assert {"episode/return", "seed 1/validation/return"} <= names
    assert len([e for e in events if e.kind == "finish"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set=tune.space={policy.clip: [1]}"], "policy.clip: found 'an unknown key'"),
        (["--set=tune.space={policy.clip_ratio: [7]}"], "policy.clip_ratio: found 7"),
        (["--workers=0"], "--workers: found 0; allowed: 1 or more"),
        (["--trials=0"], "tune.trials: found 0; allowed: 1 to"),
        (["--storage=sqlite:////nowhere/x.db"], "--storage: found 'sqlite:////nowhere/x.db'"),
        (["--study=a/b"], "--study: found 'a/b'; allowed: a name that a folder may have"),
        (["--config=none.json"], "none.json: found"),
        (
            ["--seed=5"],
            "13, 14, 15]; allowed: seeds with `seed`, 5",
        ),
        (["--env=Nothing-v0"], "Nothing-v0"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = dreamer(capsys, "tune", *words)
    assert answer.status == 2
    (line,) = [line for line in answer.err if "error" in line]
    assert line.startswith("dreamer: error: ")
    assert message in line
    assert not Path("outputs/tune/stages").exists()


def test_a_worker_that_is_killed_is_started_again_and_one_that_gives_up_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = a_plan(tmp_path).write()
    script = tmp_path / "pipeline" / "tune" / "worker.py"
    script.parent.mkdir(parents=True)
    for folder in (script.parent, script.parent.parent):
        (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a worker that does nothing but die
    script.write_text("import os\nos.kill(os.getpid(), 9)\n")
    with (
        pytest.raises(DreamerError, match=r"worker 0 gave up: it said nothing; see .*\.log"),
        Crew(plan, 1) as crew,
    ):
        for _ in crew.watch(0.01):
            pass
    assert crew._members[0].restarts == RESTARTS
    script.write_text("import sys\nprint('the disk is full')\nsys.exit(2)\n")
    with pytest.raises(DreamerError, match="the disk is full"), Crew(plan, 1) as crew:
        list(crew.watch(0.01))
    assert os.environ["DREAMER_TRACKING"] == "off"
