"""The verdict where people look: in what CI shows and proposes, on the page, in the model card."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import dreamer

from dreamer.types import DataError
from pipeline.page.gate import agent_digest, gate_facts
from pipeline.page.sources import open_source

ROOT = Path(__file__).parents[3]


@pytest.fixture
def training(trained, tmp_path, monkeypatch):
    """A finished training to change."""
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "training")
    return tmp_path / "training"


def record(training, agent):
    found = {
        "challenger": {"version": "3", "agent": agent},
        "model": "dreamer-CartPole-v1",
        "verdict": "refused",
        "reasons": ["mean return 9 is below the floor, 475", "there is no champion"],
    }
    (training / "reports/gate.json").write_text(json.dumps(found))


def test_the_page_and_the_card_tell_the_verdict_of_this_agent(training, capsys):
    record(training, agent_digest(training / "models/agent/best"))
    assert dreamer(capsys, "report", training).status == 0
    line = "refused: mean return 9 is below the floor, 475; there is no champion"
    assert f"- **verdict**: {line}\n" in (training / "reports/model_card.md").read_text()
    assert f"<td>{line}</td>" in (training / "reports/report.html").read_text()


def test_the_verdict_of_another_agent_is_not_told(training, capsys):
    record(training, "0" * 64)
    assert dreamer(capsys, "report", training).status == 0
    assert "below the floor" not in (training / "reports/model_card.md").read_text()


def test_a_file_that_is_no_record_is_told(training):
    (training / "reports/gate.json").write_text('{"challenger": 3}')
    with pytest.raises(DataError, match="found no record of the gate"):
        list(gate_facts(open_source(training, training)))


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (0, "The agent is the champion."),
        (1, "**The gate refused the agent.**"),
        (2, "**The agent was not judged.**"),
    ],
)
def test_the_script_ends_as_the_command_does_and_puts_the_verdict_in_the_changes_once(
    tmp_path, status, word
):
    (tmp_path / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/gate", tmp_path / ".ci/gate")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/changes.md").write_text("# Changes\n\nNo difference.\n")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/dreamer"
    fake.write_text(f'#!/bin/sh\necho "said of $*"\nexit {status}\n')
    fake.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(2):
        done = subprocess.run(
            [tmp_path / ".ci/gate"], env=env, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (status, "said of promote\n")
    assert (tmp_path / "reports/changes.md").read_text() == (
        f"# Changes\n\nNo difference.\n## Gate\n\n{word}\n\n```\nsaid of promote\n```\n"
    )
