"""`dreamer promote` and `rollback` on a real registry: what moves, what stays, what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import checksums
from registered import NAME, State, demand, save

from pipeline.page.gate import agent_digest
from pipeline.params import load_raw
from pipeline.tracking.store import connect

pytestmark = [
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
    pytest.mark.filterwarnings("ignore:::sqlalchemy"),
]


def gate():
    return json.loads(Path("reports/gate.json").read_text())


def refused_in_one_line(answer, message):
    assert answer.status == 2
    assert len(answer.err) == 1, answer.err
    assert message in answer.err[0]


def test_the_first_agent_above_the_floor_is_champion_and_the_same_command_moves_nothing(
    agents, run, project
):
    first = run("promote", agents[20])
    assert first.status == 0
    assert first.out[-2:] == [
        "verdict    passed: version 1 is the champion",
        f"use it     models:/{NAME}@champion",
    ]
    after, record = State(project), Path("reports/gate.json").read_bytes()
    assert after.aliases == {"champion": "1"}
    again = run("promote", agents[20])
    assert again.status == 0
    assert again.out[-1].endswith(f"version 1 of {NAME} is this very agent; nothing moves")
    assert State(project).aliases == after.aliases
    assert State(project).tags == after.tags
    assert Path("reports/gate.json").read_bytes() == record


def test_below_the_floor_stays_challenger_with_one_version_however_often_it_tries(
    agents, run, project
):
    for attempt in range(2):
        answer = run("promote", agents[5])
        assert answer.status == 1
        assert answer.err == []
        assert answer.out[-1] == "verdict    refused: no champion yet"
        assert gate()["reasons"][0] == "mean return 5 is below the floor, 10", attempt
    assert State(project).aliases == {"challenger": "1"}
    assert list(State(project).tags) == ["1"]
    assert State(project).tags["1"]["gate"] == "refused"


def test_a_better_champion_refuses(agents, run, project):
    assert run("promote", agents[30]).status == 0
    answer = run("promote", agents[20])
    assert answer.status == 1
    assert answer.out[-1] == "verdict    refused: version 1 stays champion"
    assert State(project).aliases == {"champion": "1", "challenger": "2"}
    found = gate()
    assert found["verdict"] == "refused"
    assert found["difference"] == {"mean": -10.0, "low": -10.0, "high": -10.0}
    assert found["reasons"][1].endswith("-10 to -10, whose lower end is not above -2")
    assert found["previous_champion"] is None


def test_a_record_of_another_agent_gives_way(agents, run, project):
    run("promote", agents[30])
    run("promote", agents[20])  # refused, and its record names the champion
    answer = run("promote", agents[30])
    assert answer.status == 0
    found = gate()
    assert found["verdict"] == "champion"
    assert found["challenger"] == {"agent": agent_digest(agents[30]), "version": "1"}
    assert found["reasons"] == [f"version 1 of {NAME} is this very agent"]


def test_what_gate_json_holds(agents, run, project):
    run("promote", agents[20])
    run("promote", agents[30])
    found = gate()
    assert found["verdict"] == "passed"
    assert found["model"] == NAME
    assert found["previous_champion"] == "1"
    sides = {"challenger": ("2", agents[30], 29.0), "champion": ("1", agents[20], 19.0)}
    for side, (version, agent, least) in sides.items():
        assert found[side]["version"] == version
        assert found[side]["agent"] == agent_digest(agent)
        assert found[side]["returns"] == [least, least + 1, least + 1, least + 2]
        assert found[side]["figures"]["episode/return"] == least + 1
    assert found["demands"]["floor"] == 10.0
    assert found["playing"] == {"episodes": 4, "num_envs": 2, "policy": "mode", "seed": 3000000}
    text = Path("reports/gate.json").read_text()
    assert text == json.dumps(found, sort_keys=True, indent=2) + "\n"


def test_rollback_walks_back_and_ends(agents, run, project):
    for mean in (20, 30, 40):
        assert run("promote", agents[mean]).status == 0
    assert State(project).aliases == {"champion": "3"}
    assert run("rollback").out == [
        f"{NAME}: version 2 is champion again, version 3 is not any more"
    ]
    assert State(project).aliases == {"champion": "2"}
    assert run("rollback", "--name", NAME).status == 0
    assert State(project).aliases == {"champion": "1"}
    answer = run("rollback")
    refused_in_one_line(answer, "found no champion before version 1; nothing to roll back to")
    assert State(project).aliases == {"champion": "1"}


def test_what_was_rolled_back_returns_only_when_told_to(agents, run, project):
    run("promote", agents[20])
    run("promote", agents[30])
    run("rollback")
    answer = run("promote", agents[30])
    assert answer.status == 1
    assert answer.out[-1] == (
        "verdict    refused: version 2 was rolled back; `dreamer promote --again` lets it try"
    )
    assert gate()["verdict"] == "refused"
    assert State(project).aliases == {"champion": "1", "challenger": "2"}
    assert run("promote", agents[30], "--again").status == 0
    assert State(project).aliases == {"champion": "2"}
    assert "rolled_back" not in State(project).tags["2"]
    assert run("rollback").status == 0
    assert State(project).aliases == {"champion": "1"}


def test_a_former_champion_that_wins_again_is_a_new_step_of_the_history(agents, run, project):
    demand(project, tolerance=100.0)  # whoever is above the floor passes
    for mean in (20, 30, 20):
        assert run("promote", agents[mean]).status == 0
    assert State(project).aliases == {"champion": "1"}
    assert list(State(project).tags) == ["2", "1"]
    for version in ("2", "1"):
        assert run("rollback").status == 0
        assert State(project).aliases == {"champion": version}
    assert run("rollback").status == 2


def test_rollback_passes_over_versions_that_were_deleted(agents, run, project):
    for mean in (20, 30, 40):
        run("promote", agents[mean])
    connect(project).delete_model_version(NAME, "2")
    assert run("rollback").status == 0
    assert State(project).aliases == {"champion": "1"}


def test_nothing_to_roll_back(run, project):
    refused_in_one_line(run("rollback"), "found no champion; nothing to roll back")
    line = "--name: found 'a/b'; allowed: 1 to 200 letters"
    refused_in_one_line(run("rollback", "--name", "a/b"), line)


def test_other_spaces_are_refused_before_anything_is_registered(agents, run, project):
    run("promote", agents[20])
    before, record = State(project), checksums(Path("reports"))
    wide = save(project.parent / "wide", 50, size=5)
    refused_in_one_line(run("promote", wide), f"{NAME}: found a challenger with observations v0 5")
    assert (State(project).aliases, State(project).tags) == (before.aliases, before.tags)
    assert checksums(Path("reports")) == record


def test_a_model_of_another_environment_is_refused(agents, run, project):
    run("promote", agents[20])
    demand(project, env="Acrobot-v1")
    other = save(project.parent / "other", 50, env="Acrobot-v1")
    answer = run("promote", other, "--name", NAME)
    refused_in_one_line(answer, f"{NAME}: found a registered model of CartPole-v1; allowed: one of")
    assert list(State(project).tags) == ["1"]
    assert run("promote", other).status == 0
    assert State(project, "dreamer-Acrobot-v1").aliases == {"champion": "1"}


def test_a_floor_of_another_environment_is_not_applied(agents, run, project):
    other = save(project.parent / "other", 50, env="Acrobot-v1")
    line = "promote.env: found 'CartPole-v1'; allowed: Acrobot-v1, the environment of the agent"
    refused_in_one_line(run("promote", other), line)
    assert not Path("reports").exists()


def test_a_damaged_champion_is_told_and_stays(agents, run, project):
    run("promote", agents[20])
    weights = next(project.glob("mlartifacts/**/tensors.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    refused_in_one_line(run("promote", agents[30]), "version 1, the champion, cannot be played: ")
    assert State(project).aliases == {"champion": "1"}
    assert list(State(project).tags) == ["1"]


def test_mistakes_about_the_agent(run, project):
    refused_in_one_line(run("promote", "nowhere"), "nowhere/meta.json: cannot be read: No such")
    refused_in_one_line(run("promote"), "meta.json: cannot be read: No such file")


def test_an_agent_of_a_training_brings_its_lineage(trained, run, project):
    """A real model from a real training, with real episodes."""
    folder = project / "outputs" / "mine"
    shutil.copytree(trained, folder)
    demand(project, floor=1.0)
    answer = run("promote", folder)
    assert answer.status == 0, answer
    assert not any(line.startswith("note") for line in answer.out), answer.out
    assert json.loads((folder / "reports/gate.json").read_text())["verdict"] == "passed"
    tags = State(project).tags["1"]
    raw = load_raw(folder / "params.yaml")
    assert tags["env"] == raw["env"]["id"]
    assert len(tags["data_digest"]) == 36
    assert len(tags["params_sha256"]) == 64
    figures = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    assert float(tags["evaluate.episode/return"]) == figures["episode/return"]
    assert {"git_commit", "git_dirty"} <= tags.keys()
    # A registered model answers by its alias.
    import mlflow.artifacts

    found = mlflow.artifacts.download_artifacts(
        artifact_uri=f"models:/{NAME}@champion",
        dst_path=str(project / "got"),
        tracking_uri=f"sqlite:///{project}/mlflow.db",
        registry_uri=f"sqlite:///{project}/mlflow.db",
    )
    names = {path.name for path in Path(found).iterdir()}
    assert {"MLmodel", "requirements.txt", "input_example.json", "code", "artifacts"} <= names


def test_an_agent_that_was_changed_by_hand_brings_none(trained, run, project):
    folder = project / "mine"
    shutil.copytree(trained, folder)
    demand(project, floor=1.0)
    shutil.copytree(folder / "models/agent/last", folder / "models/agent/best", dirs_exist_ok=True)
    (folder / "models/agent/last/meta.json").unlink()
    answer = run("promote", folder)
    assert answer.status == 0, answer
    assert "note       .stages does not tell of this agent; its data and parameters are not" in (
        "\n".join(answer.out)
    )
    assert not {"data_digest", "params_sha256", "train_run_id"} & State(project).tags["1"].keys()
