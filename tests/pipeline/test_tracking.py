"""Tracking to a real database: outages, kills and races neither lose nor repeat a value."""

import json
import logging
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dreamer.types import ConfigError, DreamerError
from pipeline.tracking import (
    RunIdentity,
    Tracker,
    TrackingError,
    git_commit,
    place,
    sync,
    tracking_uri,
    uploader,
)
from pipeline.tracking.remote_run import clean_key
from pipeline.tracking.store import connect, find_run
from pipeline.tracking.uploader import Uploader
from pipeline.tracking.views import SHARED, VIEWS, keep_views
from pipeline.write_ahead_log import EVENTS_FILE, LogWriter, UploadState, count_pending, locked

ROOT = Path(__file__).parents[2]
CLOSED = "http://127.0.0.1:9"  # discard port: refused at once

pytestmark = [
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
    pytest.mark.filterwarnings("ignore:::sqlalchemy"),
]


def identity(key="k1", parent=None, **tags):
    return RunIdentity(experiment="exp", key=key, name=f"run {key}", parent_key=parent, tags=tags)


def directory(root, key="k1"):
    return root / ".runs" / key


def open_tracker(root, key="k1", parent=None, **tags):
    run = identity(key, parent, **tags)
    return Tracker(directory(root, key), run, root=root, interval=0.1, exit_wait=300)


def record(root, *steps, key="k1", value=float, rewind=None):
    """Log `loss` at these steps without any upload, as a process that is killed at the end."""
    log = LogWriter(directory(root, key))
    body = {"experiment": "exp", "key": key, "name": key, "parent_key": None, "tags": {}}
    log.append("start", body | {"parent_run_id": None})
    if rewind is not None:
        log.append("rewind", {"step": rewind})
    for step in steps:
        log.append("metrics", {"step": step, "values": {"world/loss": value(step)}})
    log.close()


def upload(root, key="k1"):
    return Uploader(directory(root, key), root).upload()


def run_of(root, key="k1"):
    client = connect(root)
    experiment = client.get_experiment_by_name("exp")
    return find_run(client, experiment.experiment_id, key)


def curve(root, key="k1", metric="world/loss"):
    """(step, value) in the order in which MLflow shows them."""
    history = connect(root).get_metric_history(run_of(root, key).info.run_id, metric)
    return [(m.step, m.value) for m in history]


@pytest.fixture
def root(tmp_path, migrated, monkeypatch):
    """A project with a working local tracking server."""
    names = ["MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "DVC_ROOT", "DREAMER_TRACKING"]
    names += [place.PARENT_VARIABLE, "MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
    for name in [*names, "MLFLOW_HTTP_REQUEST_TIMEOUT"]:
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def faulty(root, monkeypatch):
    """Let `log_batch` fail `before` or `after` the server acted, while the list has entries."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    faults, sent = [], []
    real = MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), **kwargs):
        fault = faults.pop(0) if faults and metrics else None
        if fault == "before":
            raise MlflowException("connection refused")
        sent.extend(metrics)
        real(self, run_id, metrics=metrics, **kwargs)
        if fault == "after":
            raise MlflowException("connection reset")

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    return faults, sent


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, pipeline.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_run_arrives_whole(root):
    (root / "plot.png").write_bytes(b"png")
    (root / "agent").mkdir()
    (root / "agent" / "weights.safetensors").write_bytes(b"weights")
    with open_tracker(root, git_commit="abc") as tracker:
        tracker.params({"policy.clip_ratio": 0.2, "long": "x" * 9000})
        for step in (0, 8, 16):
            tracker.metrics(step, {"world/loss": step / 2, "a(b)[0]": float("nan")})
        tracker.tags({"note": "hello"})
        tracker.artifact(root / "plot.png", "plots")
        tracker.dataset(
            "episodes", "0123456789abcdef0123456789abcdef.dir", {"dvc_stage": "collect"}
        )
        tracker.model(root / "agent", "agent")
        (root / "plot.png").write_bytes(b"overwritten by the next run")
    run = run_of(root)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run k1")
    assert run.data.params == {"policy.clip_ratio": "0.2", "long": "x" * 6000}
    assert curve(root) == [(0, 0.0), (8, 4.0), (16, 8.0)]
    assert len(curve(root, metric="a_b__0_")) == 3
    assert {"git_commit": "abc", "note": "hello", "dreamer.model": "agent"}.items() <= (
        run.data.tags.items()
    )
    [data] = run.inputs.dataset_inputs
    assert (data.dataset.name, len(data.dataset.digest)) == ("episodes", 36)
    artifacts = root / "mlartifacts" / run.info.run_id / "artifacts"
    assert (artifacts / "plots" / "plot.png").read_bytes() == b"png"
    assert (artifacts / "agent" / "weights.safetensors").read_bytes() == b"weights"
    assert not list(directory(root).glob("kept/*"))
    assert count_pending(directory(root), tracking_uri(root)) == 0


def test_metrics_cost_the_caller_well_under_a_fifth_of_a_millisecond(root, monkeypatch):
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    values = {f"group/name_{i}": i / 7 for i in range(30)}
    seconds = []
    with open_tracker(root) as tracker:
        for step in range(300):
            start = time.perf_counter()
            tracker.metrics(step, values)
            seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 1e-4


def test_tracking_off_still_writes_the_log(root, monkeypatch):
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    with open_tracker(root) as tracker:
        tracker.metrics(0, {"world/loss": 1.0})
    assert sync(root).uploaded == {"k1": 3}
    assert curve(root) == [(0, 1.0)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_an_exception_is_the_status_of_the_run(root, monkeypatch, error, status):
    monkeypatch.setenv("DREAMER_TRACKING", "off")
    with pytest.raises(error), open_tracker(root):
        raise error
    lines = (directory(root) / EVENTS_FILE).read_text().splitlines()
    assert json.loads(lines[-1])["status"] == status


def test_a_server_that_is_never_there_costs_one_warning_and_no_time(root, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED)
    start = time.monotonic()
    with open_tracker(root) as tracker:
        for step in range(5):
            tracker.metrics(step, {"world/loss": 0.0})
    assert time.monotonic() - start < 8
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(messages) == 2
    assert "tracking continues on disk" in messages[0]
    assert messages[1] == "7 events not yet uploaded; run `dreamer sync`"
    with pytest.raises(TrackingError, match="7 events of 1 runs wait") as caught:
        sync(root)
    assert isinstance(caught.value, DreamerError)


def test_a_database_that_cannot_be_opened_fails_within_seconds(root, monkeypatch):
    record(root, 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/unmounted/mlflow.db")
    start = time.monotonic()
    with pytest.raises(TrackingError, match="folder of the database does not exist"):
        upload(root)
    assert time.monotonic() - start < 5


def test_a_database_that_somebody_holds_fails_within_seconds(root):
    record(root, 1)
    start = time.monotonic()
    with closing(sqlite3.connect(root / "mlflow.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TrackingError, match="database is locked"):
            upload(root)
    assert time.monotonic() - start < 15
    upload(root)
    assert curve(root) == [(1, 1.0)]


def test_a_server_down_from_the_start_that_comes_back_gets_everything(root, monkeypatch, migrated):
    monkeypatch.setattr(uploader, "FIRST_PAUSE", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mounted/mlflow.db")
    with open_tracker(root) as tracker:
        tracker.metrics(0, {"world/loss": 0.0})
        time.sleep(0.1)
        (root / "mounted").mkdir()
        shutil.copyfile(migrated, root / "mounted" / "mlflow.db")
        tracker.metrics(1, {"world/loss": 1.0})
    assert curve(root) == [(0, 0.0), (1, 1.0)]
    assert sync(root).uploaded == {}


@pytest.mark.parametrize("fault", ["before", "after"])
def test_an_outage_in_the_middle_loses_and_repeats_nothing(root, monkeypatch, faulty, fault):
    faults, sent = faulty
    monkeypatch.setattr(uploader, "FIRST_PAUSE", 0.1)
    with open_tracker(root) as tracker:
        for step in range(40):
            if step in (10, 20, 30):
                faults.append(fault)
            tracker.metrics(step, {"world/loss": float(step)})
            time.sleep(0.02)
    assert curve(root) == [(step, float(step)) for step in range(40)]
    assert [m.step for m in sent] == list(range(40))


@pytest.mark.parametrize("fault", ["before", "after"])
def test_death_between_sending_and_recording_is_repaired_by_asking_the_server(root, faulty, fault):
    faults, sent = faulty
    record(root, *range(5))
    faults.append(fault)
    with pytest.raises(TrackingError, match="connection re"):
        upload(root)
    record(root, *range(5, 8))
    upload(root)  # by a new process, which knows nothing but the files
    assert curve(root) == [(step, float(step)) for step in range(8)]
    assert [m.step for m in sent] == list(range(8))


def test_syncing_twice_uploads_once(root):
    record(root, 0, 1)
    record(root, 5, key="k2")
    assert sync(root).uploaded == {"k1": 3, "k2": 2}
    assert sync(root).uploaded == {}
    assert curve(root) == [(0, 0.0), (1, 1.0)]
    assert curve(root, "k2") == [(5, 5.0)]


def test_a_resumed_run_continues_the_same_curve(root):
    record(root, *range(0, 50, 10))
    upload(root)
    run_id = run_of(root).info.run_id
    record(root, *range(30, 80, 10), rewind=20, value=lambda step: step + 0.5)
    upload(root)
    assert run_of(root).info.run_id == run_id
    assert curve(root) == [
        (0, 0.0), (10, 10.0), (20, 20.0), (30, 30.0), (40, 40.0), (50, 50.5), (60, 60.5), (70, 70.5)
    ]  # fmt: skip


def test_sigkill_and_resume_lose_and_repeat_nothing(root):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.tracking import RunIdentity, Tracker\n"
        "root, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])\n"
        "run = RunIdentity(experiment='exp', key='k1', name='n', parent_key=None, tags={})\n"
        "with Tracker(root / '.runs/k1', run, root=root, interval=0.1) as tracker:\n"
        "    tracker.rewind(first - 1)\n"
        "    for step in range(first, last):\n"
        "        tracker.metrics(step, {'world/loss': step / 4}); print(step, flush=True)\n"
        "        time.sleep(0.01)\n"
    )
    command = [sys.executable, "-c", code, str(root)]
    state = root / ".runs" / "k1"
    uri = tracking_uri(root)
    with subprocess.Popen([*command, "0", "9999"], stdout=subprocess.PIPE, cwd=ROOT) as process:
        while not UploadState.load(state, uri).offset > 2000:  # in the middle of its uploads
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last += process.stdout.read().count(b"\n")
    assert last > 50
    resume = [*command, str(last - 20), str(last + 20)]
    subprocess.run(resume, stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
    assert curve(root) == [(step, step / 4) for step in range(last + 20)]
    assert run_of(root).info.status == "FINISHED"


def test_a_run_begun_on_another_machine_is_continued(root):
    record(root, *range(4))
    upload(root)
    shutil.rmtree(directory(root))
    record(root, *range(2, 6), rewind=1)
    upload(root)
    assert curve(root) == [(step, float(step)) for step in range(6)]


def test_a_deleted_run_is_made_anew_when_it_goes_on(root):
    record(root, 0)
    upload(root)
    connect(root).delete_run(run_of(root).info.run_id)
    assert sync(root).uploaded == {}
    record(root, 1)
    upload(root)
    assert curve(root) == [(0, 0.0), (1, 1.0)]


def test_parameters_are_kept_and_a_changed_one_becomes_a_tag(root, caplog):
    for ratio in (0.1, 0.1, 0.2):
        with open_tracker(root) as tracker:
            tracker.params({"policy.clip_ratio": ratio, "seed": 0})
    run = run_of(root)
    assert run.data.params == {"policy.clip_ratio": "0.1", "seed": "0"}
    assert run.data.tags["param_changed.policy.clip_ratio"] == "0.2"
    assert caplog.text.count("keeps its first") == 1


def test_an_event_that_the_server_rejects_does_not_block_the_rest(root, monkeypatch, caplog):
    monkeypatch.setattr(uploader, "clean_key", lambda key: key)
    log = LogWriter(directory(root))
    record(root, 0)
    log.append("metrics", {"step": 1, "values": {"not(legal)": 1.0}})
    record(root, 2)
    upload(root)
    assert curve(root) == [(0, 0.0), (2, 2.0)]
    assert "the server rejects metrics" in caplog.text


def test_a_thousand_and_more_metrics_are_cut_into_batches(root, faulty):
    log = LogWriter(directory(root))
    record(root, 0)
    log.append("metrics", {"step": 1, "values": {f"m{i}": float(i) for i in range(2500)}})
    upload(root)
    assert len(run_of(root).data.metrics) == 2501


def test_stages_share_a_parent_whoever_comes_first(root):
    for key in ("collect", "train"):
        with open_tracker(root, key, parent="pipeline1"):
            pass
    parent = run_of(root, "pipeline1")
    tags = [run_of(root, key).data.tags for key in ("collect", "train")]
    assert [t["mlflow.parentRunId"] for t in tags] == [parent.info.run_id] * 2
    assert parent.info.status == "FINISHED"
    assert sum(1 for _ in connect(root).search_runs(["1"])) == 3


def test_a_parent_that_its_child_made_goes_below_its_own_parent_once_it_begins(root):
    for key, parent in (("train", "seed1"), ("seed1", "pipeline1")):
        with open_tracker(root, key, parent=parent):
            pass
    middle, top = run_of(root, "seed1"), run_of(root, "pipeline1")
    assert run_of(root, "train").data.tags["mlflow.parentRunId"] == middle.info.run_id
    assert middle.data.tags["mlflow.parentRunId"] == top.info.run_id
    assert top.info.status == "FINISHED"
    assert sum(1 for _ in connect(root).search_runs(["1"])) == 3


def test_the_run_of_mlflow_run_becomes_the_parent(root, monkeypatch):
    client = connect(root)
    theirs = client.create_experiment("theirs")
    given = client.create_run(theirs).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with open_tracker(root, "stage", parent="whole"), open_tracker(root, "whole"):
        assert "MLFLOW_RUN_ID" not in os.environ
    stage, whole = (find_run(client, theirs, key) for key in ("stage", "whole"))
    assert whole.data.tags["mlflow.parentRunId"] == given
    assert stage.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert client.get_run(given).info.status == "RUNNING"  # its own command ends it
    assert client.get_experiment_by_name("exp") is None


def test_what_was_begun_before_mlflow_run_goes_on_where_it_is(root, monkeypatch):
    with open_tracker(root, "collect", parent="whole"), open_tracker(root, "whole"):
        pass
    client = connect(root)
    given = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    with open_tracker(root, "train", parent="whole"), open_tracker(root, "whole"):
        pass
    whole = run_of(root, "whole").info.run_id
    assert run_of(root, "train").data.tags["mlflow.parentRunId"] == whole
    assert len(client.search_runs(["0"])) == 1


def test_processes_that_come_first_together_do_not_collide(tmp_path, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DREAMER_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.tracking import RunIdentity, Tracker\n"
        "root, key = Path(sys.argv[1]), sys.argv[2]\n"
        "run = RunIdentity(experiment='exp', key=key, name=key, parent_key='p', tags={})\n"
        "with Tracker(root / '.runs' / key, run, root=root, exit_wait=300) as tracker:\n"
        "    tracker.metrics(0, {'world/loss': 1.0})\n"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), key] for key in ("a", "b")]
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, cwd=ROOT) for c in commands]
    assert [p.communicate()[1].decode() for p in processes] == ["", ""]
    assert [curve(tmp_path, key) for key in ("a", "b")] == [[(0, 1.0)]] * 2
    client = connect(tmp_path)
    assert sorted(e.name for e in client.search_experiments()) == ["Default", "exp"]
    assert len(client.search_runs(["1"])) == 3


def test_sync_leaves_a_run_to_its_own_process(root):
    record(root, 0)
    with locked(directory(root) / "upload.lock"):
        assert sync(root).busy == ("k1",)
    assert sync(root).uploaded == {"k1": 2}


def test_http_patience_is_short_only_while_tracking_and_never_overrides(root, monkeypatch):
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    with open_tracker(root):
        assert os.environ[name] == "5"
        with open_tracker(root, "k2"):
            assert os.environ[name] == "5"
        assert os.environ[name] == "5"
    assert name not in os.environ
    monkeypatch.setenv(name, "77")
    with open_tracker(root):
        assert os.environ[name] == "77"
    assert os.environ[name] == "77"


def test_where_a_project_tracks_to(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "parent"))
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/parent/mlflow.db"
    for uri in ("http://host:5000", f"sqlite:///{tmp_path}/other.db", "sqlite://"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert tracking_uri(tmp_path) == uri


@pytest.mark.parametrize(
    ("key", "clean"),
    [
        ("episode/return", "episode/return"),
        ("loss[0]", "loss_0_"),
        ("a(b)", "a_b_"),
        ("/a//b/../c", "a/c"),
        ("..", "_"),
        ("", "_"),
        ("\u00e9", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_keys_become_legal(key, clean):
    assert clean_key(key) == clean


@pytest.mark.parametrize("key", ["", "a b", "a'b", "x" * 201])
def test_a_key_that_cannot_be_searched_for_is_refused(key):
    with pytest.raises(ConfigError, match="run key"):
        identity(key)
    with pytest.raises(ConfigError, match="parent key"):
        identity(parent=key) if key else identity(parent="/")


def test_the_commit_and_whether_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    clean = git_commit(tmp_path)
    (tmp_path / "new").write_text("untracked")
    assert git_commit(tmp_path) == clean
    assert (len(clean["git_commit"]), clean["git_dirty"]) == (40, "false")
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == clean | {"git_dirty": "true"}
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) == {}


# Views -----------------------------------------------------------------------------------------


def test_views_are_tags_of_the_experiment_and_links_name_them(root):
    assert keep_views(root, "exp") == {}
    record(root, 1)
    upload(root)
    links = keep_views(root, "exp")
    assert keep_views(root, "exp") == links
    experiment = connect(root).get_experiment_by_name("exp")
    assert links.keys() == VIEWS.keys()
    for name, (view, _) in VIEWS.items():
        assert json.loads(experiment.tags[SHARED + name]) == view
        page = f"/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={name}"
        assert links[name].startswith(page)


def test_views_tell_that_the_server_is_away(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://127.0.0.1:9/none")
    with pytest.raises(TrackingError, match="postgresql"):
        keep_views(root, "exp")
