"""Every preset goes through all stages in seconds, and its agent senses what the preset says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from drawing import can_draw
from gymnasium.wrappers import TimeLimit

from dreamer.envs import vector
from dreamer.envs.spaces import modality
from dreamer.saved_agent import load_agent
from pipeline.params import Raw, load_raw, override
from pipeline.presets import list_presets, preset_overrides
from pipeline.stages import collect, evaluate, pretrain, train
from pipeline.stages.command import run_stage
from pipeline.stages.session import Workspace

ROOT = Path(__file__).parents[2]
MODULES = {"collect": collect, "pretrain": pretrain, "train": train, "evaluate": evaluate}
TINY = {  # on top of the preset and of `smoke`
    "env.num_envs": 2,
    "collect.steps": 40,
    "replay.batch_size": 2,
    "replay.seq_len": 8,
    "world_model.size": "tiny",
    "pretrain.updates": 1,
    "imagination.horizon": 5,
    "imagination.starts": 2,
    "meta.check": 0,
    "train.env_steps": 80,
    "train.updates_per_env_step": 0.05,
    "train.extra_world_updates": 0,
    "train.eval_every": 80,
    "train.eval_episodes": 1,
    "evaluate.episodes": 2,
}
SENSES = {  # of presets whose agents have several; those of all others are vectors
    "atari_sound": {"audio", "image", "vector"},
    "babyai": {"grid", "text"},
    "crafter": {"image", "vector"},
    "cue_bits": {"audio", "image", "text", "vector"},
    "cue_bits_memory": {"audio", "image", "text", "vector"},
    "dmc_pixels": {"image", "vector"},
    "minigrid_doorkey": {"grid", "vector"},
    "minigrid_empty": {"image", "vector"},
    "split_cartpole": {"audio", "image", "text", "vector"},
}
SLOW = {"atari_sound", "crafter", "dmc_pixels"}  # their games are


@pytest.fixture(autouse=True)
def _short_episodes_and_no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    real = vector.make_env
    monkeypatch.setattr(vector, "make_env", lambda *words: TimeLimit(real(*words), 12))
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.delenv("MUJOCO_GL", raising=False)


def tiny(preset: str) -> Raw:
    raw = load_raw(ROOT / "params.yaml")
    for name in (preset, "smoke"):
        raw = override(raw, preset_overrides(name, raw))
    return override(raw, TINY)


def marked(preset: str) -> object:
    marks = [pytest.mark.slow] if preset in SLOW else []
    if preset == "dmc_pixels":
        marks.append(pytest.mark.skipif(not can_draw(), reason="MuJoCo cannot draw here"))
    return pytest.param(preset, marks=marks)


@pytest.mark.parametrize("preset", [marked(name) for name in list_presets() if name != "smoke"])
def test_a_preset_runs_from_the_first_step_to_the_evaluation(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, workspace = tiny(preset), Workspace(tmp_path)
    if preset not in SENSES:  # pictures of vectors are the cartpole's, which other tests draw
        monkeypatch.setattr(evaluate, "pictures", lambda *_: None)
    for name, module in MODULES.items():
        run_stage(name, module.run, raw, workspace)
    agent = load_agent(workspace.agent / "last", torch.device("cpu"))
    assert {modality(spec) for spec in agent.model.spec.obs.values()} == SENSES.get(
        preset, {"vector"}
    )
    assert agent.facts["update"] == 2
    metrics = json.loads((workspace.reports("evaluate") / "metrics.json").read_text())
    assert metrics["episode/length"] >= 1
    assert (workspace.reports("evaluate") / "imagined.png").exists() == (preset in SENSES)
