"""The study that workers share: every point once, none lost, whoever is killed."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from tuning import GRID, ROOT, WORKER, a_plan

from dreamer.types import ConfigError
from pipeline.tune import ledger as ledgers
from pipeline.tune.ledger import FAILED, INTERRUPTED, Ledger, open_ledger, point_of
from pipeline.tune.plan import read_plan
from pipeline.tune.presence import present
from pipeline.tune.space import default_point, name_of
from pipeline.tune.storage import masked, open_storage


def finish(ledger: Ledger, limit: int = 100) -> list[dict]:
    """Be the only worker until nothing is left; return the points in order."""
    points = []
    with present(ledger.plan.folder, ledger.storage) as presence:
        while (trial := ledger.next_trial(presence)) is not None and len(points) < limit:
            points.append(trial.params)
            ledger.study.tell(trial, -sum(map(float, trial.params.values())))
            presence.holds(None)
    return points


def test_a_grid_is_tried_point_by_point_and_the_default_first(tmp_path):
    ledger = open_ledger(a_plan(tmp_path))
    points = finish(ledger)
    assert points[0] == default_point(ledger.axes)
    assert len({name_of(point) for point in points}) == len(points) == 27
    best = next(iter(ledger.ranked()), None)
    assert best is not None
    assert best.params == {key: float(min(values)) for key, values in GRID.items()}
    assert finish(open_ledger(a_plan(tmp_path))) == [], "the same command again has nothing to do"


def test_the_number_of_trials_is_a_total(tmp_path):
    assert len(finish(open_ledger(a_plan(tmp_path, trials=4)))) == 4
    assert len(finish(open_ledger(a_plan(tmp_path, trials=7)))) == 3


def test_three_workers_of_which_one_is_killed_try_every_point_once(tmp_path):
    plan = a_plan(tmp_path)
    path, hung = plan.write(), tmp_path / "hung"
    open_ledger(plan)
    words = [sys.executable, "-c", WORKER, str(path)]
    workers = [
        subprocess.Popen([*words, how, str(hung)], cwd=ROOT) for how in ("hangs", "works", "works")
    ]
    while not hung.exists():
        assert workers[0].poll() is None
        time.sleep(0.05)
    workers[0].kill()
    assert [worker.wait(60) for worker in workers] == [-signal.SIGKILL, 0, 0]
    ledger = open_ledger(read_plan(path))
    complete = [t for t in ledger.trials() if t.state == TrialState.COMPLETE]
    times = Counter(name_of(t.params) for t in complete)
    assert len(times) == 27
    assert set(times.values()) == {1}
    (killed,) = [t for t in ledger.trials() if t.state != TrialState.COMPLETE]
    assert killed.user_attrs["ended"] == ledgers.STALE
    (again,) = [t for t in complete if t.params == killed.params]
    assert again.number > killed.number


def test_an_interrupted_trial_is_tried_again_and_a_failed_one_when_forgiven(tmp_path):
    ledger = open_ledger(a_plan(tmp_path, trials=3))
    with present(ledger.plan.folder, ledger.storage) as presence:
        first = ledger.next_trial(presence)
        assert first is not None
        ledger.void(first.number, INTERRUPTED)
        second = ledger.next_trial(presence)
        assert second is not None
        ledger.void(second.number, FAILED)
    points = finish(ledger)
    assert first.params in points
    assert second.params not in points
    ledger.forgive()
    assert finish(ledger) == [second.params]


def test_of_two_trials_with_one_point_the_first_is_valid(tmp_path):
    ledger = open_ledger(a_plan(tmp_path))
    for _ in range(2):  # as two machines may do that see the study begin at the same time
        point = default_point(ledger.axes)
        ledger.study.enqueue_trial(point, user_attrs={"point": point})
    assert len(finish(ledger)) == 27
    assert ledger.trials()[1].user_attrs["ended"] == ledgers.DUPLICATE


def test_a_far_worker_is_gone_when_it_is_silent_for_long(tmp_path):
    ledger = open_ledger(a_plan(tmp_path, trials=2))
    with present(ledger.plan.folder, ledger.storage) as presence:
        trial = ledger.next_trial(presence)
    assert trial is not None
    trial.set_user_attr("worker", "far")  # its file is on another machine
    ledger.recover()
    assert ledger.trials()[trial.number].state == TrialState.RUNNING
    trial.set_user_attr("beat", time.time() - 1000)
    ledger.recover()
    assert ledger.trials()[trial.number].user_attrs["ended"] == ledgers.STALE


def test_a_sampler_tries_no_point_twice_and_ends_with_the_space(tmp_path):
    space = {"world_model.kl_scale": [0.5, 1, 2], "policy.clip_ratio": [0.1, 0.2]}
    ledger = open_ledger(a_plan(tmp_path, search="tpe", space=space, trials=50))
    points = finish(ledger)
    assert points[0] == default_point(ledger.axes)
    assert len({name_of(point) for point in points}) == len(points) == 6


def test_a_sampler_of_ranges_stays_in_them_and_repeats_its_choices(tmp_path):
    space = {
        "world_model.kl_scale": {"low": 0.25, "high": 4, "log": True},
        "policy.epochs": {"low": 1, "high": 4},
    }
    first, second = (
        finish(open_ledger(a_plan(tmp_path / name, search="tpe", space=space, trials=12)))
        for name in ("a", "b")
    )
    assert first == second
    assert len({name_of(point) for point in first}) == 12
    assert all(0.25 <= point["world_model.kl_scale"] <= 4 for point in first)
    assert {point["policy.epochs"] for point in first} <= {1, 2, 3, 4}


def test_a_study_lies_in_a_database_by_url_as_well(tmp_path):
    storage = f"sqlite:///{tmp_path}/tune.db"
    points = finish(open_ledger(a_plan(tmp_path, storage=storage, trials=3)))
    assert len(points) == 3
    ledger = open_ledger(a_plan(tmp_path, storage=storage, trials=3))
    assert [point_of(t) for t in ledger.trials()] == points


def test_another_study_of_this_name_is_refused(tmp_path):
    open_ledger(a_plan(tmp_path))
    with pytest.raises(ConfigError, match=r"study: found 's'; allowed: .* same seeds; choose"):
        open_ledger(a_plan(tmp_path, seeds=[2]))
    with pytest.raises(ConfigError, match="a study that was begun"):
        open_ledger(a_plan(tmp_path / "other"), create=False)


@pytest.mark.parametrize(
    "url",
    ["sqlite:////nowhere/at/all.db", "nosuch://x", "postgresql://me:secret@127.0.0.1:1/x"],
)
def test_a_storage_that_cannot_be_opened_is_one_line_without_password(url):
    with pytest.raises(ConfigError) as caught:
        open_storage(url)
    message = str(caught.value)
    assert message.startswith("--storage: found ")
    assert "\n" not in message
    assert "secret" not in message


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    path = Path(tmp_path) / "notes.txt"
    path.write_text("not a journal\nbut notes\n")
    with pytest.raises(ConfigError, match="--storage: found"):
        open_storage(str(path))
    assert masked("a/b.log") == "a/b.log"


def test_a_database_leaves_the_logging_of_the_process_alone(tmp_path: Path) -> None:
    logger, handlers = logging.getLogger("dreamer.agent"), logging.getLogger().handlers[:]
    open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    assert not logger.disabled
    assert logging.getLogger().handlers == handlers
