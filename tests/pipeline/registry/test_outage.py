"""A registry that is away, fails on the way, or a command that dies between two steps."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from registered import NAME, State

pytestmark = [
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
    pytest.mark.filterwarnings("ignore:::sqlalchemy"),
]
CLOSED = "http://127.0.0.1:9"  # discard port: refused at once


class Killed(BaseException):
    """Stands for `kill -9`."""


def die(monkeypatch, method, moment, error=Killed):
    """Let a call to the server die, the last one of its kind for `set_registered_model_alias`."""
    from mlflow import MlflowClient

    real = getattr(MlflowClient, method)
    last = method == "set_registered_model_alias"

    def deadly(self, *args, **kwargs):
        if last and "champion" not in args:
            return real(self, *args, **kwargs)
        if moment == "after":
            real(self, *args, **kwargs)
        raise error

    monkeypatch.setattr(MlflowClient, method, deadly)


@pytest.mark.parametrize("words", [("promote",), ("rollback",)])
def test_a_registry_that_is_away_is_told_at_once(agents, run, monkeypatch, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED)
    began = time.monotonic()
    answer = run(*words, *([agents[20]] if words == ("promote",) else []))
    assert time.monotonic() - began < 30  # MLflow alone would try for four minutes
    assert answer.status == 2
    assert len(answer.err) == 1, answer.err
    assert answer.err[0].startswith(f"dreamer: error: the registry cannot be reached: {CLOSED}: ")
    assert not Path("reports").exists()


def test_a_password_in_the_address_is_not_told(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED.replace("//", "//me:secret@"))
    answer = run("rollback")
    assert answer.status == 2
    assert "http://***@127.0.0.1:9: " in answer.err[0]
    assert "secret" not in answer.err[0]


@pytest.mark.parametrize("method", ["log_artifacts", "set_registered_model_alias"])
def test_a_registry_that_fails_on_the_way_leaves_the_champion(
    agents, run, project, monkeypatch, method
):
    from mlflow.exceptions import MlflowException

    assert run("promote", agents[20]).status == 0
    with monkeypatch.context() as patch:
        die(patch, method, "before", MlflowException("connection reset\nby peer"))
        answer = run("promote", agents[30])
    assert answer.status == 2
    assert len(answer.err) == 1, answer.err
    assert "the registry failed: sqlite:///" in answer.err[0]
    assert answer.err[0].endswith(": connection reset by peer")
    assert State(project).aliases["champion"] == "1"
    assert run("promote", agents[30]).status == 0
    assert State(project).aliases == {"champion": "2"}


@pytest.mark.parametrize(
    ("method", "moment"),
    [
        ("create_model_version", "after"),
        ("set_registered_model_tag", "after"),
        ("set_registered_model_alias", "after"),
        *(
            pytest.param(method, moment, marks=pytest.mark.slow)
            for method, moment in (
                ("create_run", "after"),
                ("log_artifacts", "after"),
                ("create_model_version", "before"),
                ("set_model_version_tag", "after"),
                ("log_artifact", "before"),
                ("set_terminated", "after"),
                ("set_registered_model_alias", "before"),
                ("delete_registered_model_alias", "before"),
            )
        ),
    ],
)
def test_a_promotion_that_is_killed_goes_on(agents, run, project, monkeypatch, method, moment):
    assert run("promote", agents[20]).status == 0
    with monkeypatch.context() as patch:
        die(patch, method, moment)
        with pytest.raises(Killed):
            run("promote", agents[30])
    moved = (method, moment) == ("set_registered_model_alias", "after")
    assert State(project).aliases["champion"] == ("2" if moved else "1")
    assert run("promote", agents[30]).status == 0
    assert State(project).aliases == {"champion": "2"}
    assert sorted(State(project).tags) == ["1", "2"]
    assert run("rollback").status == 0
    assert State(project).aliases["champion"] == "1"
    assert run("rollback").status == 2


@pytest.mark.parametrize(
    ("method", "moment", "champion"),
    [
        ("set_registered_model_alias", "after", "2"),
        pytest.param("set_registered_model_alias", "before", "3", marks=pytest.mark.slow),
    ],
)
def test_a_rollback_that_is_killed_loses_no_step(
    agents, run, project, monkeypatch, method, moment, champion
):
    for mean in (20, 30, 40):
        assert run("promote", agents[mean]).status == 0
    with monkeypatch.context() as patch:
        die(patch, method, moment)
        with pytest.raises(Killed):
            run("rollback")
    assert State(project).aliases == {"champion": champion}
    while champion != "1":
        champion = str(int(champion) - 1)
        assert run("rollback").out == [
            f"{NAME}: version {champion} is champion again, version {int(champion) + 1} is not any "
            "more"
        ]
    assert run("rollback").status == 2
