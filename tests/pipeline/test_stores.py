"""Tracking, agents and studies in PostgreSQL and S3, as with the files of one machine: real
servers, one of which dies in the middle of a run and comes back.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import services
from command_line import checksums, dreamer
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from optuna.trial import TrialState
from services import BUCKET, PATIENCE, MlflowServer, bucket, postgres, s3
from tuning import ROOT, TINY, WORKER, a_plan

from pipeline.serving.package import write_model
from pipeline.tracking import RunIdentity, Tracker, place, sync
from pipeline.tracking.store import connect, find_run
from pipeline.tune.ledger import open_ledger
from pipeline.tune.space import name_of
from pipeline.write_ahead_log import count_pending

WORDS = ("--preset=smoke", *(f"--set={key}={json.dumps(value)}" for key, value in TINY.items()))

pytestmark = [
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
    pytest.mark.filterwarnings("ignore:::sqlalchemy"),
    pytest.mark.filterwarnings("ignore:::botocore"),
]


@pytest.fixture(scope="module")
def cluster():
    """URL of a database cluster with an empty database for each of the tests."""
    with postgres() as url:
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            for name in ("served", "direct", "study", "tuned"):
                connection.execute(f"CREATE DATABASE {name}")
        yield url


@pytest.fixture(scope="module")
def store():
    """Variables of the S3 store."""
    with s3() as variables:
        yield variables


@pytest.fixture(scope="module")
def server(cluster, store, tmp_path_factory):
    """An MLflow server on both."""
    log = tmp_path_factory.mktemp("server") / "log"
    running = MlflowServer(f"{cluster}/served", store, log)
    running.start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    """An empty project that tracks wherever the test says."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("MLFLOW_RUN_ID", "DVC_ROOT", "DREAMER_TRACKING", place.PARENT_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)


def test_without_postgresql_they_are_skipped_and_fail_in_continuous_integration(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(services, "OF_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for value, outcome in (("true", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("CI", value)
        with pytest.raises(outcome, match="PostgreSQL is not installed"):
            services.postgres_programs()


def open_tracker(key, exit_wait):
    run = RunIdentity(experiment="exp", key=key, name=key, parent_key=None, tags={})
    root = Path.cwd()
    return Tracker(root / ".runs" / key, run, root=root, interval=0.1, exit_wait=exit_wait)


def curve(client, run):
    history = client.get_metric_history(run.info.run_id, "world/loss")
    return [(point.step, point.value) for point in history]


def test_a_training_is_tracked_registered_and_served_from_there(
    server, cluster, store, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    answer = dreamer(capsys, "train", *WORDS)
    assert answer.status == 0, answer.err
    assert sync(tmp_path).busy == ()
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("dreamer")
    runs = {r.data.tags["stage"]: r for r in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"pipeline", "collect", "pretrain", "train", "evaluate"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["train"].data.params["train.env_steps"] == "80"
    assert "episode/return" in runs["evaluate"].data.metrics
    assert runs["train"].data.tags["mlflow.parentRunId"] == runs["pipeline"].info.run_id
    inputs = {each.dataset.name for each in runs["train"].inputs.dataset_inputs}
    assert inputs == {"episodes", "world_model"}
    # it is there, and nowhere else
    with psycopg.connect(f"{cluster}/served") as connection:
        [(points,)] = connection.execute("SELECT count(*) FROM metrics").fetchall()
    assert points > 20
    keys = [each.key for each in bucket(store).objects.filter(Prefix="served/")]
    run_id = runs["train"].info.run_id
    assert [key for key in keys if run_id in key and key.endswith("tensors.safetensors")]
    assert not list(tmp_path.rglob("mlartifacts")) + list(tmp_path.rglob("mlflow.db"))
    _is_registered(client, runs["train"], tmp_path)


def _is_registered(client, run, root):
    """Register the agent as a model, and take it from where the alias points."""
    write_model(
        root / "outputs" / "CartPole-v1-seed0" / "models" / "agent" / "best", root / "model"
    )
    client.log_artifacts(run.info.run_id, str(root / "model"), "registered")
    client.create_registered_model("agent")
    source = f"{run.info.artifact_uri}/registered"
    version = client.create_model_version("agent", source, run.info.run_id)
    client.set_registered_model_alias("agent", "champion", version.version)
    download_artifacts("models:/agent@champion", dst_path=str(root / "taken"))
    assert checksums(root / "model").items() <= checksums(root / "taken").items()


def test_a_server_that_dies_in_the_middle_gets_all_of_it_when_it_is_back(
    server, store, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    (tmp_path / "plot.png").write_bytes(b"png")
    with open_tracker("k1", exit_wait=1) as tracker:
        tracker.metrics(0, {"world/loss": 0.0})
        directory = tmp_path / ".runs" / "k1"
        end = time.monotonic() + PATIENCE
        while count_pending(directory, server.uri):
            assert time.monotonic() < end
            time.sleep(0.05)
        server.kill()
        for step in range(1, 5):
            tracker.metrics(step, {"world/loss": float(step)})
        tracker.artifact(tmp_path / "plot.png", "plots")
    assert count_pending(directory, server.uri) == 6
    server.start()
    assert sync(tmp_path).uploaded == {"k1": 6}
    client = MlflowClient(server.uri)
    run = find_run(client, client.get_experiment_by_name("exp").experiment_id, "k1")
    assert run.info.status == "FINISHED"
    assert curve(client, run) == [(step, float(step)) for step in range(5)]
    objects = bucket(store).objects.filter(Prefix="served/")
    [plot] = [each for each in objects if each.key.endswith("plots/plot.png")]
    assert plot.get()["Body"].read() == b"png"


def test_without_a_server_between_the_database_and_the_store_do_as_well(
    cluster, store, monkeypatch, tmp_path
):
    uri = f"{cluster}/direct"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    connect(tmp_path).create_experiment("exp", f"s3://{BUCKET}/direct")
    (tmp_path / "plot.png").write_bytes(b"png")
    with open_tracker("k1", exit_wait=300) as tracker:
        tracker.metrics(3, {"world/loss": 0.5})
        tracker.artifact(tmp_path / "plot.png", "plots")
    client = connect(tmp_path)
    run = find_run(client, client.get_experiment_by_name("exp").experiment_id, "k1")
    assert curve(client, run) == [(3, 0.5)]
    [plot] = bucket(store).objects.filter(Prefix="direct/")
    assert plot.key == f"direct/{run.info.run_id}/artifacts/plots/plot.png"


def test_two_workers_share_a_study_in_the_database(cluster, tmp_path):
    plan = a_plan(tmp_path, storage=f"{cluster}/study", trials=8)
    ledger = open_ledger(plan)
    command = [sys.executable, "-c", WORKER, str(plan.write()), "", ""]
    workers = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    trials = ledger.trials()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({name_of(trial.params) for trial in trials}) == len(trials) == 8


@pytest.mark.slow
def test_tune_with_a_study_in_the_database(cluster, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "space.json").write_text(json.dumps({"clip_ratio": [0.1, 0.2, 0.3, 0.4]}))
    words = (*WORDS, "--config=space.json", "--set=tune.seeds=[1]", "--study=shared")
    words += (f"--storage={cluster}/tuned", "--workers=2")
    answer = dreamer(capsys, "tune", *words)
    assert answer.status == 0, answer.err
    ended = [line.split()[1] for line in answer.out if line.startswith("trial")]
    assert sorted(ended) == ["0", "1", "2", "3"]
    assert "stages run: collect 1, pretrain 1, train 4, evaluate 4" in "\n".join(answer.out)
    with psycopg.connect(f"{cluster}/tuned") as connection:
        rows = connection.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall()
    assert rows == [("COMPLETE", 4)]
