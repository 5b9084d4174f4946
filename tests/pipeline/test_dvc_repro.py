"""The promise to users of DVC, with DVC itself, on the preset of seconds: the same bits twice,
nothing to do a second time, and only what depends on a changed parameter runs again."""

import json
from pathlib import Path

import pytest
from dvc_project import command, fresh_copy


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fresh_copy(tmp_path_factory.mktemp("first"))
    command(folder, "dvc", "repro")
    return folder


def test_two_fresh_copies_give_the_same_lock(reproduced: Path, tmp_path: Path) -> None:
    other = fresh_copy(tmp_path / "second")
    command(other, "dvc", "repro")
    assert (other / "dvc.lock").read_bytes() == (reproduced / "dvc.lock").read_bytes()


def test_only_the_lock_is_new_and_a_second_repro_does_nothing(reproduced: Path) -> None:
    assert command(reproduced, "git", "status", "--porcelain").split() == ["??", "dvc.lock"]
    again = command(reproduced, "dvc", "repro")
    assert "Running stage" not in again
    assert "up to date" in again


def test_metrics_and_plots_show(reproduced: Path, tmp_path: Path) -> None:
    assert "episode/return" in command(reproduced, "dvc", "metrics", "show")
    command(reproduced, "dvc", "plots", "show", "-o", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    for plot in ("learning curve", "world-model losses", "imagined.png", "frames.png"):
        assert plot in page


def test_a_policy_parameter_runs_training_and_evaluation_only(reproduced: Path) -> None:
    command(reproduced, "git", "add", "-A")
    command(reproduced, "git", "commit", "-q", "-m", "lock")
    printed = command(reproduced, "dvc", "exp", "run", "-S", "policy.clip_ratio=0.1")
    assert [name for name in ("collect", "pretrain") if f"Running stage '{name}'" in printed] == []
    assert "Running stage 'train'" in printed
    assert "Running stage 'evaluate'" in printed


@pytest.mark.slow
def test_four_modalities_and_another_task_for_one_experiment(tmp_path: Path) -> None:
    folder = fresh_copy(tmp_path, preset="cue_bits")
    command(folder, "dvc", "repro")
    scores = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    assert {"episode/bit0", "episode/bit1", "episode/bit2"} <= scores.keys()
    assert scores["episode/length"] == 10
    command(folder, "git", "add", "-A")
    command(folder, "git", "commit", "-q", "-m", "lock")
    spread = 'env.id="CueBits-v0?spread=true&reward=mean"'
    printed = command(folder, "dvc", "exp", "run", "-S", spread)
    assert all(f"Running stage '{stage}'" in printed for stage in ("collect", "train", "evaluate"))
    scores = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    assert scores["episode/length"] == 30
