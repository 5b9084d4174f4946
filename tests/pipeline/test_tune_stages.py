"""Stages that trials share: made once, waited for, gone on with when their maker was killed."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from tuning import GRID, a_plan, parameters

from pipeline.params import Params, of_stages, override
from pipeline.stages import skipping
from pipeline.stages.session import STAGES, Session
from pipeline.tune import stages, worker
from pipeline.tune.figures import Outcome
from pipeline.tune.ledger import open_ledger, values_of
from pipeline.tune.pictures import draw, importance, table
from pipeline.tune.worker import work

FIGURE = {"episode/return": 7.0}


class Fake:
    """Instead of a stage: writes what it read into its outs, and counts."""

    def __init__(self, name: str, ran: list[str], seconds: float) -> None:
        self.name, self.ran, self.seconds = name, ran, seconds

    def run(self, params: Params, session: Session) -> None:
        time.sleep(self.seconds)
        self.ran.append(self.name)
        for out in STAGES[self.name].outs:
            folder = session.workspace.root / out
            folder.mkdir(parents=True, exist_ok=True)
            model = params.world_model
            content = [params.seed, model.kl_scale, model.free_nats, params.policy.clip_ratio]
            (folder / "content.json").write_text(json.dumps(content))
        if self.name == "evaluate":
            path = session.workspace.reports("evaluate") / "metrics.json"
            path.write_text(json.dumps(FIGURE))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that ran; each takes a moment."""
    names: list[str] = []
    fakes = {name: Fake(name, names, 0.05) for name in STAGES}
    monkeypatch.setattr(skipping, "MODULES", fakes)
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    return names


def test_trials_share_what_their_parameters_agree_in(ran: list[str], tmp_path: Path) -> None:
    raw = of_stages(parameters())
    first = stages.train(raw, tmp_path)
    assert first.made == tuple(STAGES)
    assert first.metrics == FIGURE
    again = stages.train(raw, tmp_path)
    assert again.made == ()
    assert stages.train(override(raw, {"policy.clip_ratio": 0.1}), tmp_path).made == (
        "train",
        "evaluate",
    )
    assert Counter(ran) == {"collect": 1, "pretrain": 1, "train": 2, "evaluate": 2}
    assert not list(tmp_path.rglob(".runs"))


def test_who_comes_second_waits(ran: list[str], tmp_path: Path) -> None:
    raw = of_stages(parameters())
    clips = (0.1, 0.2, 0.3)
    threads = [
        threading.Thread(
            target=stages.train, args=(override(raw, {"policy.clip_ratio": clip}), tmp_path)
        )
        for clip in clips
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(ran) == {"collect": 1, "pretrain": 1, "train": 3, "evaluate": 3}


def test_what_a_killed_owner_left_is_made_again(ran: list[str], tmp_path: Path) -> None:
    raw = of_stages(parameters())
    stages.train(raw, tmp_path)
    (record,) = tmp_path.glob("pretrain/*/.stages/pretrain.json")
    record.unlink()  # as if it had been killed before it was done
    assert stages.train(raw, tmp_path).made == ("pretrain",)


def test_a_grid_pretrains_once_per_world_model_and_every_trial_tells_its_value(
    ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {
        "world_model.kl_scale": [0.5, 1],
        "world_model.free_nats": [0.1, 3],
        "policy.clip_ratio": [0.1, 0.2],
    }
    plan = a_plan(tmp_path, space=space)
    for fake in skipping.MODULES.values():
        monkeypatch.setattr(fake, "seconds", 0.0)
    work(plan)
    assert Counter(ran) == {"collect": 1, "pretrain": 4, "train": 8, "evaluate": 8}
    trials = open_ledger(plan).trials()
    assert [t.value for t in trials] == [7.0] * 8
    assert {name for t in trials for name in t.user_attrs["made"]} == set(STAGES)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Trainings (clip ratio, seed); the value is 100 times the clip ratio plus the seed."""
    calls: list[tuple[float, int]] = []

    def figures(_plan: object, point: dict, seed: int, _evaluate_seed: int) -> Outcome:
        calls.append((point["policy.clip_ratio"], seed))
        if point["policy.clip_ratio"] == 0.4:
            raise FloatingPointError("the loss is NaN\nand so on")
        return Outcome({"episode/return": 100 * point["policy.clip_ratio"] + seed}, (), None)

    monkeypatch.setattr(worker, "figures", figures)
    return calls


def test_a_trial_is_the_mean_over_its_seeds_and_a_hopeless_one_is_given_up(
    judged: list, tmp_path: Path
) -> None:
    space = {"policy.clip_ratio": [0.1, 0.2, 0.3]}
    work(a_plan(tmp_path, space=space, seeds=[1, 2, 3], prune_below=0.25))
    ledger = open_ledger(a_plan(tmp_path, space=space, seeds=[1, 2, 3], prune_below=0.25))
    states = {t.params["policy.clip_ratio"]: t.state.name for t in ledger.trials()}
    assert states == {0.2: "COMPLETE", 0.1: "PRUNED", 0.3: "COMPLETE"}
    assert [clip for clip, _ in judged] == [0.2] * 3 + [0.1] * 2 + [0.3] * 3
    best = next(iter(ledger.ranked()), None)
    assert best is not None
    assert best.value == pytest.approx(32.0)
    assert values_of(best) == pytest.approx({1: 31.0, 2: 32.0, 3: 33.0})


def test_a_training_that_breaks_fails_its_trial_alone(judged: list, tmp_path: Path) -> None:
    plan = a_plan(tmp_path, space={"policy.clip_ratio": [0.4, 0.1]}, seeds=[1])
    work(plan)
    ledger = open_ledger(plan)
    assert [t.state.name for t in ledger.standing()] == ["COMPLETE", "FAIL", "COMPLETE"]
    reason = ledger.trials()[1].user_attrs["reason"]
    assert reason == "FloatingPointError: the loss is NaN and so on"
    paths = draw(ledger, tmp_path)
    assert all(path.stat().st_size > 1000 for path in paths)
    lines = table(ledger.standing()).splitlines()
    assert lines[0] == "trial,state,value,policy.clip_ratio,seed 1,seconds"
    assert lines[2].startswith("1,FAIL,,0.4,")


def test_importance_finds_the_parameter_that_matters(judged: list, tmp_path: Path) -> None:
    plan = a_plan(tmp_path, space=GRID)
    work(plan)
    complete = open_ledger(plan).trials()
    shares = importance(complete)
    assert shares["policy.clip_ratio"] > 0.95
    assert importance(complete[:3]) == {}


def test_an_objective_that_is_no_figure_ends_the_study(judged: list, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"tune\.objective: found 'beauty'; allowed: one of"):
        work(a_plan(tmp_path, objective="beauty"))
