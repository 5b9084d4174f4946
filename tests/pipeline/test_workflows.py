"""Workflows of continuous integration: they parse, and do nothing that cannot be done by hand."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.params import parse_yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))
# Who else may run code in a job: actions of GitHub itself.
USES = re.compile(r"actions/[a-z-]+(/[a-z]+)?@v\d+")
OUTSIDE = {'cat reports/changes.md >> "$GITHUB_STEP_SUMMARY"'}
CONTEXTS = {"github", "inputs", "matrix", "secrets", "vars"}
FUNCTIONS = {"always", "format"}


def load(name):
    return parse_yaml((FOLDER / name).read_text(), name)


def steps():
    return [step for name in NAMES for job in load(name)["jobs"].values() for step in job["steps"]]


RUNS = sorted({step["run"] for step in steps() if "run" in step})


def test_there_are_two():
    assert NAMES == ["retrain.yml", "tests.yml"]


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_says_when_on_what_for_how_long_and_what_it_may(name):
    workflow = load(name)
    assert {"name", "on", "permissions", "concurrency", "jobs"} <= workflow.keys()
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert 0 < job["timeout-minutes"] <= 360
        assert job["steps"][0]["uses"].startswith("actions/checkout@")


def test_a_step_is_a_command_or_an_action_and_no_text_of_users_gets_into_a_command():
    for step in steps():
        assert ("run" in step) != ("uses" in step)
        assert "${{" not in step.get("run", "")
        if "uses" in step:
            assert USES.fullmatch(step["uses"])


@pytest.mark.parametrize("name", NAMES)
def test_expressions_name_what_there_is(name):
    text = (FOLDER / name).read_text()
    expressions = re.findall(r"\$\{\{(.*?)\}\}", text)
    assert text.count("${{") == len(expressions)
    for expression in expressions:
        bare = re.sub(r"'[^']*'", "", expression)
        words = set(re.findall(r"(?<![\w.])[a-z]\w*", bare))
        assert words <= CONTEXTS | FUNCTIONS, expression


@pytest.mark.parametrize("run", RUNS)
def test_a_command_is_a_target_of_make_or_of_the_project(run):
    if run.startswith("make "):
        done = subprocess.run(
            ["make", "--dry-run", "--old-file=setup", *run.split()[1:]],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for script in re.findall(r"\.ci/\w+", done.stdout):
            assert os.access(ROOT / script, os.X_OK)
    else:
        assert run in OUTSIDE or run.startswith(".venv/bin/dreamer ")


def test_scripts_are_shell():
    scripts = [path for path in (ROOT / ".ci").iterdir() if not path.suffix]
    assert len(scripts) == 6
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert script.read_text().startswith("#!/usr/bin/env bash\n")


def test_the_gate_is_shown_and_proposed_even_if_it_refuses():
    """Its verdict is in what the page of the job and the pull request show."""
    steps = load("retrain.yml")["jobs"]["retrain"]["steps"]
    runs = [step.get("run", "") for step in steps]
    gate = runs.index("make gate")
    assert runs.index("make changes") < gate
    assert steps[gate]["continue-on-error"] is True
    shown = runs.index('cat reports/changes.md >> "$GITHUB_STEP_SUMMARY"')
    assert gate < shown < runs.index("make propose") < len(runs) - 1
    assert steps[-1]["run"] == "make gate"
    assert steps[-1]["if"] == f"steps.{steps[gate]['id']}.outcome == 'failure'"
    assert "continue-on-error" not in steps[-1]
