"""Scratch folders: what changes a fingerprint, one writer at a time, signals that only ask."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dreamer.types import DataError, DreamerError
from pipeline import scratch
from pipeline.scratch import Interrupted, Scratch, fingerprint

ROOT = Path(__file__).parents[2]
# Importing torch takes seconds and scratch folders need only the name of its tensors.
LIGHT = """
import sys, types
sys.modules["torch"] = types.ModuleType("torch")
sys.modules["torch"].Tensor = object
"""
STAGE = f"""
{LIGHT}
import time
from pipeline.scratch import Scratch
with Scratch("train", "a" * 64) as scratch:
    print("ready", flush=True)
    for _ in range(2000):
        if scratch.stop_requested:
            (scratch.path / "checkpoint").write_text("saved")
            raise scratch.interrupted()
        time.sleep(0.005)
"""


def start(code, folder, **environment):
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def finish(child):
    _, errors = child.communicate(timeout=10)
    return child.returncode, errors


@pytest.fixture
def project(tmp_path):
    """A little project: a dependency file, a dependency folder and a code file."""
    (tmp_path / "data/inner").mkdir(parents=True)
    (tmp_path / "data/inner/a.npz").write_text("episode")
    (tmp_path / "model").write_text("weights")
    (tmp_path / "code.py").write_text("pass")
    return tmp_path


def of(project, stage="train", **changes):
    params = {"seed": 0, "policy": {"lr": 0.1}} | changes
    return fingerprint(stage, params, [project / "data", project / "model"], [project / "code.py"])


def test_a_fingerprint_is_a_function_of_content(project, tmp_path_factory):
    before = of(project)
    assert len(before) == 64
    assert of(project, policy={"lr": 0.1}, seed=0) == before
    (project / "data/__pycache__").mkdir()
    (project / "data/__pycache__/x.pyc").write_text("x")
    os.utime(project / "model", (1, 1))
    assert of(project) == before
    moved = project.rename(tmp_path_factory.mktemp("elsewhere") / "project")
    assert of(moved) == before


def test_golden_fingerprint(tmp_path):
    """The sha256sum of a text written by hand: the four keys, sorted, without spaces."""
    (tmp_path / "model").write_text("weights")
    assert fingerprint("train", {"seed": 0}, [tmp_path / "model"]) == (
        "67467ebf574bd2e7f10d4e7399f434762bf5d61508b53dabe3cae62f9749c85d"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / "model").write_text("weightz"),
        lambda p: (p / "data/inner/a.npz").write_text("episodes"),
        lambda p: (p / "data/inner/b.npz").write_text(""),
        lambda p: (p / "data/inner/a.npz").rename(p / "data/inner/c.npz"),
        lambda p: (p / "code.py").write_text("pass "),
    ],
)
def test_every_content_changes_the_fingerprint(project, change):
    before = of(project)
    change(project)
    assert of(project) != before


def test_parameters_and_stage_change_the_fingerprint(project):
    seen = {of(project), of(project, seed=1), of(project, policy={"lr": 0.2}), of(project, "pre")}
    assert len(seen) == 4


def test_a_missing_dependency_is_one_line(tmp_path):
    with pytest.raises(DataError, match="nothing: cannot be read: No such file"):
        fingerprint("train", {}, [tmp_path / "nothing"])


def test_the_folder_is_below_dvc_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Scratch("train", "ab" * 32).path == tmp_path / ".scratch/train/abababababababab"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "parent"))
    assert Scratch("train", "ab" * 32).path == tmp_path / "parent/.scratch/train/abababababababab"


def test_content_survives_until_done(tmp_path):
    with Scratch("train", "a" * 64, tmp_path) as first:
        (first.path / "checkpoint").write_text("7")
    with Scratch("train", "a" * 64, tmp_path) as second:
        assert (second.path / "checkpoint").read_text() == "7"
        assert not second.stop_requested
        second.done()
    assert list((tmp_path / ".scratch/train").iterdir()) == []


def test_a_second_writer_stops_with_one_line(tmp_path):
    child = start(STAGE, tmp_path)
    with pytest.raises(DreamerError, match="train is already running") as caught:
        Scratch("train", "a" * 64, tmp_path).__enter__()
    assert f"process {child.pid} " in str(caught.value)
    assert "\n" not in str(caught.value)
    with Scratch("train", "b" * 64, tmp_path), Scratch("pretrain", "a" * 64, tmp_path):
        pass  # other runs are not in the way
    child.kill()
    finish(child)
    with Scratch("train", "a" * 64, tmp_path):
        pass  # the death of the owner frees the lock


def test_a_deleted_lock_is_not_trusted(tmp_path, monkeypatch):
    """The folder is deleted between opening and locking: the second try gets a real lock."""
    folder, flock, calls = tmp_path / "x", scratch.fcntl.flock, []

    def deleting_flock(file, operation):
        flock(file, operation)
        calls.append(operation)
        if len(calls) == 1:
            scratch._discard(folder)

    monkeypatch.setattr(scratch.fcntl, "flock", deleting_flock)
    lock = scratch._acquire(folder)
    assert len(calls) == 2
    assert (folder / "lock").stat().st_ino == os.fstat(lock.fileno()).st_ino
    lock.close()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_the_exit_code_tells(tmp_path, signum):
    child = start(STAGE, tmp_path)
    child.send_signal(signum)
    code, errors = finish(child)
    assert code == 128 + signum
    assert "Stopping train at its next checkpoint" in errors
    assert "Traceback" not in errors
    assert (tmp_path / ".scratch/train" / ("a" * 16) / "checkpoint").read_text() == "saved"


def test_a_second_interrupt_kills(tmp_path):
    code = STAGE.replace("scratch.stop_requested", "False")
    child = start(code, tmp_path)
    child.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert finish(child)[0] == -signal.SIGINT


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux only")
@pytest.mark.parametrize("under_dvc", [True, False])
def test_the_death_of_dvc_stops_its_stage_and_that_of_a_shell_does_not(tmp_path, under_dvc):
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {STAGE!r}])\n"
        "time.sleep(60)\n"
    )
    environment = {"DVC_ROOT": str(tmp_path)} if under_dvc else {}
    child = start(parent, tmp_path, **environment)
    folder = tmp_path / ".scratch/train" / ("a" * 16)
    stage_pid = int((folder / "lock").read_text())
    child.kill()
    child.wait()
    if under_dvc:
        finish(child)  # until the orphan has closed its output
        assert (folder / "checkpoint").read_text() == "saved"
    else:
        time.sleep(0.3)
        os.kill(stage_pid, signal.SIGTERM)  # still there
        finish(child)


def test_forked_workers_can_be_terminated_and_outlive_an_interrupt(tmp_path):
    code = f"""
{LIGHT}
import os, signal, time
from pipeline.scratch import Scratch
with Scratch("train", "a" * 64) as owner:
    worker = os.fork()
    if worker == 0:
        time.sleep(30)
        os._exit(0)
    os.kill(worker, signal.SIGINT)
    time.sleep(0.1)
    assert os.waitpid(worker, os.WNOHANG) == (0, 0)
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
    assert not owner.stop_requested
print("ready", flush=True)
"""
    assert finish(start(code, tmp_path)) == (0, "")


def test_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Scratch("train", "a" * 64, tmp_path) as owner:
        assert signal.getsignal(signal.SIGTERM) != before[0]
        signal.raise_signal(signal.SIGTERM)
        assert owner.stop_requested
        assert isinstance(owner.interrupted(), Interrupted)
        assert owner.interrupted().code == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_other_threads_leave_signals_alone(tmp_path):
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Scratch("train", "a" * 64, tmp_path):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_old_folders_go_but_for_the_newest_three_and_the_locked(tmp_path, caplog):
    stage = tmp_path / ".scratch/train"
    for letter in "bcdefg":
        scratch._acquire(stage / (letter * 16)).close()
    for age, letter in enumerate("bcdefg"):
        os.utime(stage / (letter * 16) / "lock", (1000 - age, 1000 - age))
    (stage / f".{'z' * 16}.removed").mkdir()
    (stage / "notes").mkdir()  # not ours
    lock = scratch._acquire(stage / ("g" * 16))
    os.utime(stage / ("g" * 16) / "lock", (1, 1))
    caplog.set_level("INFO")
    with Scratch("train", "a" * 64, tmp_path):
        left = sorted(path.name for path in stage.iterdir())
    lock.close()
    assert left == [*(letter * 16 for letter in "abcdg"), "notes"]
    assert caplog.text.count("Deleting") == 2


def test_an_unusable_root_is_one_line(tmp_path):
    (tmp_path / ".scratch").write_text("a file")
    with pytest.raises(DreamerError, match="cannot be used: Not a directory"):
        Scratch("train", "a" * 64, tmp_path).__enter__()
