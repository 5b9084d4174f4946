"""Trials as DVC experiments: what DVC is told, who waits for whom, and one with DVC itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from dvc_project import command, fresh_copy
from tuning import ROOT, TINY, parameters

from dreamer.types import ConfigError, DataError
from pipeline.params import of_stages, override
from pipeline.presets import apply_values
from pipeline.tune import experiments

FIGURES = {"episode/return": 3.0}


def test_dvc_is_told_what_differs_from_the_working_tree(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    raw = of_stages(parameters())
    assert experiments.settings(raw, tmp_path) == []
    changed = {"policy.clip_ratio": 0.1, "env.id": "X-v0?a=1", "env.active_modalities": ["a"]}
    assert experiments.settings(override(raw, changed), tmp_path) == [
        *("-S", 'env.id="X-v0?a=1"'),
        *("-S", 'env.active_modalities=["a"]'),
        *("-S", "policy.clip_ratio=0.1"),
    ]
    with pytest.raises(ConfigError, match=r"env\.modalities: found"):
        experiments.settings(override(raw, {"env.modalities": {"a": "image"}}), tmp_path)


def test_a_folder_without_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--backend: found 'dvc'; allowed: inprocess, or dvc in"):
        experiments.check_repository(tmp_path)


@pytest.fixture
def dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float]]:
    """Instead of DVC: names of experiments with the times at which they began and ended."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    runs: list[tuple[str, float, float]] = []

    def run(words: list[str], project: Path, locks: tuple) -> subprocess.CompletedProcess[str]:
        output = ""
        if words[:2] == ["git", "for-each-ref"]:
            output = "\n".join(f"c0ffee refs/exps/0c/31/{name}" for name, *_ in runs)
        elif "run" in words:
            began = time.monotonic()
            time.sleep(0.2)
            runs.append((words[words.index("-n") + 1], began, time.monotonic()))
            output = "Running stage 'train':\nRunning stage 'evaluate':\n"
        elif "get" in words:
            Path(words[-1]).write_text(json.dumps(FIGURES))
        return subprocess.CompletedProcess(words, 0, output)

    monkeypatch.setattr(experiments, "_run", run)
    return runs


def test_who_shares_a_pretraining_waits_for_the_first_and_then_no_more(
    dvc: list, tmp_path: Path
) -> None:
    raw, store = of_stages(parameters()), tmp_path / "store"
    points = [{"policy.clip_ratio": clip} for clip in (0.1, 0.2, 0.3)]
    points += [{"world_model.kl_scale": 2.0}]

    def train(point: dict) -> None:
        outcome = experiments.train(override(raw, point), store, tmp_path)
        assert outcome.metrics == FIGURES

    threads = [threading.Thread(target=train, args=(point,)) for point in points]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dvc) == 4
    assert len({name for name, *_ in dvc}) == 4
    by_start = sorted(dvc, key=lambda run: run[1])
    assert by_start[2][1] >= min(by_start[0][2], by_start[1][2]), "the third waited for the first"
    again = experiments.train(override(raw, points[0]), store, tmp_path)
    assert again.made == ()
    assert len(dvc) == 4


def test_what_dvc_complains_of_is_quoted(
    dvc: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str], *_: object) -> subprocess.CompletedProcess[str]:
        failed = "run" in words
        return subprocess.CompletedProcess(words, int(failed), "a\nERROR: no\n" if failed else "")

    monkeypatch.setattr(experiments, "_run", run)
    with pytest.raises(DataError, match=r"dvc exp run tune-[0-9a-f]{16}: ERROR: no"):
        experiments.train(of_stages(parameters()), tmp_path / "store", tmp_path)


@pytest.mark.slow
def test_a_study_of_experiments_pretrains_once_and_leaves_the_working_tree(tmp_path: Path) -> None:
    folder = fresh_copy(tmp_path / "repository")
    apply_values(TINY, folder / "params.yaml")
    before = command(folder, "git", "status", "--short")
    tune = ("dreamer", "tune", "--backend=dvc", "--workers=2", "--set=tune.seeds=[1]", "--study=s")
    printed = command(folder, *tune, "--set=tune.space={policy.clip_ratio: [0.1, 0.2, 0.3]}")
    assert "stages run: collect 1, pretrain 1, train 3, evaluate 3" in printed
    assert command(folder, "git", "status", "--short") == before
    assert command(folder, "dvc", "exp", "list", "--name-only").count("tune-") == 3
