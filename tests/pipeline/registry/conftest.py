"""A project with a real registry."""

from __future__ import annotations

import shutil

import pytest
from builders import SMALL
from command_line import dreamer
from registered import demand, save

from dreamer.envs.episode import EpisodeStats
from dreamer.world_model.sizes import SIZES
from pipeline.registry import contest, promote

LEFT_ALONE = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_ROOT", "DREAMER_PARENT_RUN_ID")
LEFT_ALONE += ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")


@pytest.fixture
def project(tmp_path, migrated, monkeypatch):
    """The current folder: parameters, and an empty registry."""
    for name in LEFT_ALONE:
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("DREAMER_LOG_LEVEL", "warning")
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    shutil.copyfile(migrated, root / "mlflow.db")
    demand(root)
    return root


@pytest.fixture
def told_returns(monkeypatch):
    """Episodes of no time, whose returns are the skill of the agent and a little more, and models
    that are nothing but their agent.
    """

    def play(agent, config):
        places = [(e, n) for e in range(config.num_envs) for n in range(2)]
        skill = float(agent.facts["skill"])
        return [EpisodeStats(env=e, episode=n, ret=skill + e + n, length=5) for e, n in places]

    def write_model(agent, target):
        shutil.copytree(agent, target / "artifacts" / "agent")

    monkeypatch.setitem(SIZES, "tiny", SMALL)
    monkeypatch.setattr(contest, "play", play)
    monkeypatch.setattr(promote, "write_model", write_model)


@pytest.fixture
def agents(project, told_returns):
    """Agents with mean returns of 5, which is below the floor, 20, 30 and 40."""
    return {mean: save(project.parent / f"agent{mean}", mean - 1) for mean in (5, 20, 30, 40)}


@pytest.fixture
def run(capsys, project):
    """Type a command."""
    return lambda *words: dreamer(capsys, *words)
