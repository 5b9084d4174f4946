"""`dreamer tune --apply`: the best on new seeds, an honest verdict, figures that must recur."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import dreamer
from dvc_project import command, fresh_copy
from tuning import ROOT, TINY, a_plan

from dreamer.types import ConfigError, DataError
from pipeline.params import load_raw
from pipeline.presets import apply_values
from pipeline.stages.tuned import compare, main
from pipeline.tune import worker
from pipeline.tune.figures import Outcome
from pipeline.tune.final import Verdict, final_plan, judged, written
from pipeline.tune.ledger import open_ledger
from pipeline.tune.plan import read_plan
from pipeline.tune.worker import work

SPACE = {"policy.clip_ratio": [0.1, 0.2, 0.3, 0.35]}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMER_TRACKING", "off")


@pytest.fixture
def finals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Play study and finals with a made-up return; give the verdict and the plan of the finals."""

    def play(value: object) -> tuple[Verdict, object]:
        def figures(plan, point: dict, seed: int, evaluate_seed: int) -> Outcome:
            score = value(point["policy.clip_ratio"], seed)
            judges = {"episode/return": score, "evaluate_seed": float(evaluate_seed)}
            return Outcome(judges, (), None)

        monkeypatch.setattr(worker, "figures", figures)
        plan = a_plan(tmp_path, space=SPACE, seeds=[1, 2], finalists=2)
        work(plan)
        final = final_plan(open_ledger(plan, create=False))
        work(read_plan(final.write()))
        return judged(open_ledger(final)), final

    return play


def test_finalists_and_default_meet_on_new_seeds_and_episodes(finals) -> None:
    verdict, plan = finals(lambda clip, seed: 100 * clip + seed)
    points = [point["policy.clip_ratio"] for point in plan.finalists]
    assert points == [0.2, 0.35, 0.3], "the default, then the best two"
    assert verdict.winner is not None
    assert verdict.winner.params == {"policy.clip_ratio": 0.35}
    assert verdict.winner.user_attrs["values"].keys() == {"0", "11", "12", "13", "14", "15"}
    assert verdict.winner.user_attrs["metrics 11"]["evaluate_seed"] == 1000000.0
    assert verdict.chance == 2 / 64, "six of six seeds, two finalists to choose from"
    text = "\n".join(verdict.lines())
    assert "higher by 15 on average, on 6 of 6 seeds" in text
    assert "it is better" in text


def test_the_winner_is_written_with_comments_and_must_be_met_again(finals, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    verdict, plan = finals(lambda clip, seed: 100 * clip + seed)
    before = (tmp_path / "params.yaml").read_text()
    lines = list(written(plan, verdict, tmp_path))
    assert lines[0] == "policy.clip_ratio: 0.2 -> 0.35"
    assert (tmp_path / "params.yaml").read_text() == before.replace(
        "clip_ratio: 0.2\n", "clip_ratio: 0.35\n"
    )
    assert "\n  tuned:\n" in (tmp_path / "dvc.yaml").read_text()
    found = {"episode/return": 35.0, "evaluate_seed": 1000000.0}
    path = tmp_path / "reports" / "evaluate" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found))
    assert compare(tmp_path).startswith("the figures are those that tuning recorded: 2 of 2 equal")
    path.write_text(json.dumps(found | {"episode/return": 35.000000000000007}))
    with pytest.raises(DataError, match=r"episode/return 35\.00000000000001, was 35\.0"):
        compare(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(tmp_path)
    apply_values({"policy.epochs": 7}, tmp_path / "params.yaml")
    assert compare(tmp_path) == (
        "tuned.json was made with other parameters (policy.epochs 7, was 2): nothing to compare"
    )
    (tmp_path / "tuned.json").write_text("{}")
    with pytest.raises(DataError, match="found no record"):
        compare(tmp_path)


def test_a_default_that_is_not_beaten_stays(finals) -> None:
    verdict, _ = finals(lambda clip, seed: 100 * clip if seed in (1, 2) else -clip)
    assert verdict.winner is None
    assert list(verdict.lines())[-1].endswith(
        "the default is not beaten; params.yaml stays as it is"
    )


def test_a_difference_that_may_be_chance_is_called_so(finals) -> None:
    verdict, _ = finals(lambda clip, seed: clip * (10 if seed < 12 else -1))
    text = "\n".join(verdict.lines())
    assert "on 2 of 6 seeds" in text
    assert "that it is better is not shown" in text
    assert verdict.chance > 0.1


def test_finals_need_a_study_with_a_complete_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="one with a complete trial"):
        final_plan(open_ledger(a_plan(tmp_path)))
    answer = dreamer(capsys, "tune", "--apply", "--study=none")
    assert answer.status == 2
    assert "study: found 'none'; allowed: a study that was begun" in answer.err[-1]


def test_single_values_are_written_like_presets(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    apply_values({"world_model.world_lr": 1e-5, "env.active_modalities": ["a", "b"]}, path)
    raw = load_raw(path)
    assert raw["world_model"]["world_lr"] == 1e-5
    assert raw["env"]["active_modalities"] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"policy\.clip: found 'an unknown key'"):
        apply_values({"policy.clip": 1}, path)


@pytest.mark.slow
def test_dvc_repro_finds_the_figure_of_the_finals_or_fails(tmp_path: Path) -> None:
    folder = fresh_copy(tmp_path / "repository")
    # the pole cannot but be better than the double pendulum, which loses one each step
    apply_values({**TINY, "env.id": "Acrobot-v1"}, folder / "params.yaml")
    tune = ("dreamer", "tune", "--workers=2", "--set=tune.seeds=[1]", "--set=tune.finalists=1")
    tune += ("--set=tune.space={env.id: [Acrobot-v1, CartPole-v1]}", "--set=tune.final_seeds=[0]")
    command(folder, *tune)
    printed = command(folder, *tune, "--apply")
    assert "env.id: Acrobot-v1 -> CartPole-v1" in printed
    assert "the figures are those that tuning recorded" in command(folder, "dvc", "repro")
    record = json.loads((folder / "tuned.json").read_text())
    record["metrics"]["episode/return"] += 1
    (folder / "tuned.json").write_text(json.dumps(record))
    with pytest.raises(AssertionError, match="found other figures than tuning recorded"):
        command(folder, "dvc", "repro")
