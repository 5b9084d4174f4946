"""Commands while the tracking server is away: they end as always, and `dreamer sync` makes up."""

import json
import shutil
import socket
import time
from pathlib import Path

import pytest
from command_line import dreamer
from mlflow import MlflowClient
from tuning import ROOT, TINY

from pipeline import cli, mlproject
from pipeline.tracking import RunIdentity, Tracker, place

CLOSED = "http://127.0.0.1:9"  # discard port: refused at once
WORDS = ("--preset=smoke", *(f"--set={key}={json.dumps(value)}" for key, value in TINY.items()))

pytestmark = [
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
    pytest.mark.filterwarnings("ignore:::sqlalchemy"),
]


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    """An empty project whose server is away."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "DVC_ROOT", "DREAMER_TRACKING", place.PARENT_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED)


def test_a_training_ends_without_the_server_and_is_delivered_later(
    capsys, monkeypatch, migrated, tmp_path
):
    began = time.monotonic()
    answer = dreamer(capsys, "train", *WORDS)
    assert answer.status == 0, answer.err
    assert time.monotonic() - began < 90  # MLflow by itself waits for 246 s in every call
    waiting = [line for line in answer.err if "run `dreamer sync`" in line]
    assert len(waiting) == 8, "each stage and its pipeline"
    away = dreamer(capsys, "sync")
    assert away.status == 2
    assert "events of 5 runs wait" in away.err[-1]
    shutil.copy(migrated, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    back = dreamer(capsys, "sync")
    assert (back.status, len(back.out)) == (0, 5)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("dreamer")
    runs = {r.data.tags["stage"]: r for r in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert "episode/return" in runs["pipeline"].data.metrics
    assert client.list_artifacts(runs["train"].info.run_id, "model")
    assert dreamer(capsys, "sync").out == ["nothing was left to upload"]


def test_a_server_that_takes_calls_and_never_answers_holds_nobody_up(monkeypatch):
    run = RunIdentity(experiment="exp", key="k1", name="k1", parent_key=None, tags={})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        directory = Path.cwd() / ".runs" / "k1"
        with Tracker(directory, run, root=Path.cwd(), interval=0.1, exit_wait=1) as tracker:
            caller, _ = silent.accept()  # the upload is under way
            began = time.monotonic()
            for step in range(100):
                tracker.metrics(step, {"world/loss": 0.0})
        assert time.monotonic() - began < 3
        caller.close()


def test_the_run_that_mlflow_opened_may_be_lost_while_a_pipeline_runs(
    capsys, caplog, monkeypatch, tmp_path
):
    figures = {"episode/return": 1.0, "episode/return_std": 0.0, "episode/return_min": 1.0}
    figures |= {"episode/return_ci_low": 1.0, "episode/return_ci_high": 1.0, "episode/count": 2}
    (tmp_path / "reports" / "evaluate").mkdir(parents=True)
    (tmp_path / "reports" / "evaluate" / "metrics.json").write_text(json.dumps(figures))
    monkeypatch.setattr(cli, "main", lambda words: 0)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef")
    assert mlproject.main(["main", "--preset", ""]) == 0
    assert "figures stand at the run of the pipeline alone" in caplog.text
