"""A modality outside of the package goes through the pipeline, in whatever process a stage runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from builders import SMALL, generator
from gymnasium.utils.env_checker import check_env

from dreamer.modalities import MODALITY_CONFIGS
from dreamer.replay.episodes import read_episodes
from dreamer.saved_agent import load_agent
from dreamer.types import ConfigError, ObsSpec
from pipeline.params import load_raw, override
from pipeline.presets import preset_overrides
from pipeline.stages import collect, evaluate, pretrain, train
from pipeline.stages.command import run_stage
from pipeline.stages.session import Workspace

ROOT = Path(__file__).parents[2]
MODULES = {"collect": collect, "pretrain": pretrain, "train": train, "evaluate": evaluate}
CHANGES = {
    "env.id": "skin_of_mine:Touch-v0",
    "env.num_envs": 4,
    "collect.steps": 200,
    "train.env_steps": 400,
    "train.eval_every": 100,
    "replay.batch_size": 4,
    "imagination.horizon": 5,
}
# From a folder without the module, and then from the one that has it.
ELSEWHERE = """
import os, sys
from pipeline import cli
words = ["evaluate", sys.argv[1], "--episodes", "2"]
assert cli.main(words) == 2
os.chdir(sys.argv[2])
sys.exit(cli.main(words))
"""


def forget():
    """What a process has not imported yet."""
    sys.modules.pop("skin_of_mine", None)
    MODALITY_CONFIGS.pop("touch", None)
    gym.registry.pop("Touch-v0", None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A workspace in which every stage ran as if in a process of its own, and the module in src."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "src").mkdir()
    shutil.copy(ROOT / "examples" / "touch.py", folder / "src" / "skin_of_mine.py")
    raw = load_raw(ROOT / "params.yaml")
    raw = override(override(raw, preset_overrides("smoke", raw)), CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMER_TRACKING", "off")
        patch.syspath_prepend(folder / "src")
        for name, module in MODULES.items():
            forget()
            run_stage(name, module.run, raw, Workspace(folder))
        forget()
    yield folder
    forget()


def test_the_environment_keeps_the_rules():
    module = __import__("examples.touch").touch
    check_env(module.Touch(), skip_render_check=True)
    env = module.Touch()
    obs, _ = env.reset(seed=0)
    assert np.unravel_index(obs["touch"].argmax(), (16, 16)) == tuple(env.place)
    forget()


def test_the_tokens_are_patches():
    module = __import__("examples.touch").touch
    spec = {"touch": ObsSpec(shape=(16, 16), dtype="float32", kind="touch")}
    encoder = module.TouchEncoder(spec, SMALL, generator())
    skin = torch.zeros(2, 16, 16)
    skin[1, 4:8, 12:16] = torch.rand(4, 4)  # patch 1, 3
    one, other = encoder({"touch": skin}).view(2, 16, -1)
    changed = (one != other).any(-1)
    assert changed.nonzero().tolist() == [[1 * 4 + 3]]
    expected = encoder.patch(skin[1, 4:8, 12:16].reshape(1, 16))[0]
    torch.testing.assert_close(other[7], expected)


def test_every_stage_finds_it(root):
    spec, _ = read_episodes(root / "data" / "episodes")
    assert spec.obs["touch"].kind == "touch"
    assert spec.obs["touch"].module == "skin_of_mine"
    assert {path.name for path in (root / "reports" / "evaluate").iterdir()} >= {
        "metrics.json",
        "imagined.png",
        "goals.png",
    }


def test_without_its_module_an_agent_is_refused_in_one_line(root):
    forget()
    message = (
        r"observation touch: found .skin_of_mine:touch \(No module named 'skin_of_mine'\).*"
        "allowed: an importable module that enters touch"
    )
    with pytest.raises(ConfigError, match=message) as caught:
        load_agent(root / "models" / "agent" / "best", torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_another_process_reads_the_agent_from_the_folder_of_the_module(root, tmp_path):
    run = subprocess.run(
        [sys.executable, "-P", "-c", ELSEWHERE, root, root / "src"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "DREAMER_TRACKING": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "skin_of_mine:touch" in run.stderr.splitlines()[0]
    assert len(run.stderr.splitlines()) == 1
    assert "episode/return" in run.stdout
