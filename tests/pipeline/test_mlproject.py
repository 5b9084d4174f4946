"""MLproject: every entry point is a command of the project, with MLflow's own reading of the file;
runs lie in the caller's experiment, below the run that `mlflow run` opened."""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import dreamer
from dvc_project import attempt, fresh_copy
from mlflow import MlflowClient
from mlflow.projects.utils import load_project

from pipeline import cli, mlproject
from pipeline.arguments import parse, repro
from pipeline.params import load_raw
from pipeline.stages.session import STAGES

ROOT = Path(__file__).parents[2]
PROJECT = load_project(str(ROOT))
ENTRIES = sorted(PROJECT._entry_points)

pytestmark = [
    pytest.mark.filterwarnings("ignore:::mlflow"),
    pytest.mark.filterwarnings("ignore:::alembic"),
    pytest.mark.filterwarnings("ignore:::sqlalchemy"),
]


def line(entry, **parameters):
    """Command line of an entry point, as `mlflow run` makes it."""
    return PROJECT.get_entry_point(entry).compute_command(parameters, None)


def arguments(monkeypatch, entry, **parameters):
    """What the `dreamer` command is asked for."""
    asked = []
    monkeypatch.setattr(cli, "main", lambda words: asked.append(parse(words)) or 0)
    shell, script, *words = shlex.split(line(entry, **parameters))
    assert (shell, (ROOT / script).is_file()) == ("sh", True)
    assert mlproject.main(words) == 0
    return asked[0]


# What the file says ----------------------------------------------------------------------------


def test_the_entry_points_and_their_parameters():
    assert sorted(mlproject.ENTRIES) == ENTRIES
    for entry in ENTRIES:
        found = tuple(PROJECT.get_entry_point(entry).parameters)
        more = mlproject.OF_TUNE if entry == "tune" else ()
        assert sorted(found) == sorted(mlproject.PARAMETERS + more)


@pytest.mark.parametrize("entry", ENTRIES)
def test_nothing_said_is_the_bare_command(monkeypatch, entry):
    said = arguments(monkeypatch, entry)
    bare = parse(list(mlproject.ENTRIES[entry]))
    assert vars(said) == vars(bare)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_parameter_arrives(monkeypatch, entry):
    given = {"preset": "smoke", "env": "ALE/Pong-v5?a=b c", "steps": "1e3", "seed": "3.0"}
    given |= {"device": "cpu", "set": "policy.clip_ratio=0.1 'env.id=a b'"}
    if entry == "tune":
        given |= {"config": "a b.json", "study": "s", "storage": "postgresql://u@h/d"}
        given |= {"search": "tpe", "trials": "4.0", "workers": "2", "backend": "dvc"}
    said = arguments(monkeypatch, entry, **given)
    assert (said.preset, said.env, said.steps, said.seed) == ("smoke", "ALE/Pong-v5?a=b c", 1000, 3)
    assert (said.device, said.settings) == ("cpu", ["policy.clip_ratio=0.1", "env.id=a b"])
    if entry == "tune":
        assert (said.config, said.study, said.search) == (Path("a b.json"), "s", "tpe")
        assert (said.storage, said.trials, said.workers) == ("postgresql://u@h/d", 4, 2)
    else:
        assert said.stage == (None if entry == "main" else entry)


def test_the_stages_are_those_of_the_pipeline():
    assert tuple(STAGES) == repro.STAGES


@pytest.mark.parametrize("value", ["1", ""])
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_unknown_parameter_is_refused_with_one_line(capsys, entry, value):
    words = shlex.split(line(entry, polcy=value))
    with pytest.raises(SystemExit) as stop:
        mlproject.main(words[2:])
    [said] = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert "unknown argument '--polcy=" in said


def test_settings_whose_quotation_does_not_end_are_refused(capsys):
    assert mlproject.main(["main", "--set", "env.id='CartPole-v1"]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said == "dreamer: error: main: set: No closing quotation"


# dreamer repro ---------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with parameters and a pipeline that fails at once."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {evaluate: {cmd: 'false'}}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--set", "policy.clip_ratio=7"], "policy.clip_ratio"),
        (["--preset", "smoke", "--env", "NoSuchEnv-v0"], "NoSuchEnv"),
        (["--preset", "smokey"], "smokey"),
        (["evaluat"], "evaluat"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(capsys, project, words, reason):
    before = (project / "params.yaml").read_bytes()
    answer = dreamer(capsys, "repro", *words)
    assert (answer.status, len(answer.err)) == (2, 1)
    assert reason in answer.err[0]
    assert (project / "params.yaml").read_bytes() == before


def test_parameters_are_written_with_their_comments_and_the_failure_of_dvc_is_told(capfd, project):
    answer = dreamer(capfd, "repro", "--preset=smoke", "--seed=5", "--set=policy.clip_ratio=0.1")
    assert answer.status == 2
    assert answer.err[-1].startswith("dreamer: error: dvc repro ended with status")
    assert "params.yaml: seed: 0 -> 5" in answer.out
    raw = load_raw("params.yaml")
    assert (raw["seed"], raw["policy"]["clip_ratio"], raw["collect"]["steps"]) == (5, 0.1, 300)
    assert "# cpu | cuda | auto" in (project / "params.yaml").read_text()


def test_without_a_pipeline_here_it_says_so(capsys, project):
    (project / "dvc.yaml").unlink()
    answer = dreamer(capsys, "repro")
    assert answer.err == [
        "dreamer: error: dvc.yaml: found 'no such file'; allowed: the folder of a project, as the "
        "current one"
    ]


# A job that a shell put into the background ignores Ctrl-C, and so do its children.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.cli import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_stop_waits_for_the_checkpoint_of_the_stage(tmp_path, signum, status):
    folder = fresh_copy(tmp_path)
    words = [sys.executable, "-c", INTERRUPTIBLE, "repro", "--set=train.env_steps=600000"]
    env = {**os.environ, "DREAMER_TRACKING": "off", "PYTHONPATH": str(folder)}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=said, stderr=said)
    while not list((folder / ".scratch").glob("train/*/lock")):
        assert process.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.2)
    process.send_signal(signum)
    assert process.wait() == status
    [steps] = (folder / ".scratch" / "train").glob("*/checkpoints")
    assert list(steps.iterdir())
    with (steps.parent / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody is at work there any more


# mlflow run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory, migrated):
    """A copy of the project with a tracking database of its own."""
    folder = fresh_copy(tmp_path_factory.mktemp("mlproject"))
    shutil.copy(migrated, folder / "mlflow.db")
    return folder


def mlflow_run(repository, entry, *words):
    uri = f"sqlite:///{repository}/mlflow.db"
    command = ["mlflow", "run", ".", "-e", entry, "--env-manager", "local", *words]
    return attempt(repository, *command, DREAMER_TRACKING="", MLFLOW_TRACKING_URI=uri)


def tree(repository, experiment):
    """Name of a run -> name of its parent, of one experiment."""
    client = MlflowClient(f"sqlite:///{repository}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    runs = {run.info.run_id: run for run in client.search_runs([found.experiment_id])}
    parents = {key: runs.get(run.data.tags.get("mlflow.parentRunId")) for key, run in runs.items()}
    names = {key: run.info.run_name for key, run in runs.items()}
    return {names[key]: above and above.info.run_name for key, above in parents.items()}


def test_mlflow_run_collects_below_the_run_that_it_opened(repository):
    words = ("--experiment-name", "mine", "--run-name", "opened", "-P", "seed=3.0")
    done = mlflow_run(repository, "collect", *words, "-P", "set=collect.steps=200")
    assert done.returncode == 0, done.stderr[-3000:]
    assert tree(repository, "mine") == {
        "opened": None,
        "CartPole-v1 seed 3": "opened",
        "collect": "CartPole-v1 seed 3",
    }
    assert (repository / "data" / "episodes").is_dir()
    assert load_raw(repository / "params.yaml")["collect"]["steps"] == 200


@pytest.mark.slow
def test_mlflow_run_refuses_an_unknown_parameter(repository):
    done = mlflow_run(repository, "main", "-P", "sede=1")
    assert done.returncode != 0
    said = [row for row in done.stderr.splitlines() if row.startswith("dreamer: error")]
    assert said == [
        "dreamer: error: repro: unknown argument '--sede=1', did you mean --seed?; "
        "see `dreamer repro --help`"
    ]


@pytest.mark.slow
def test_mlflow_run_of_the_other_entry_points(repository):
    for entry in ("pretrain", "train", "evaluate", "main"):
        words = ("--experiment-name", "others", "--run-name", entry)
        done = mlflow_run(repository, entry, *words)
        assert done.returncode == 0, done.stderr[-3000:]
    assert tree(repository, "others")["main"] is None
    client = MlflowClient(f"sqlite:///{repository}/mlflow.db")
    experiment = client.get_experiment_by_name("others").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert runs["main"].data.metrics.keys() >= {"episode/return", "episode/length"}
    assert runs["main"].data.metrics == runs["evaluate"].data.metrics


@pytest.mark.slow
def test_mlflow_run_tunes_below_the_run_that_it_opened(repository):
    space = "tune.space={policy.clip_ratio:[0.1,0.2]}"
    more = f"'{space}' tune.seeds=[1] train.env_steps=600"
    words = ("-P", f"set={more}", "-P", "study=s", "-P", "trials=2", "-P", "search=grid")
    words += ("--experiment-name", "tuned", "--run-name", "opened")
    done = mlflow_run(repository, "tune", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert tree(repository, "tuned") == {
        "opened": None,
        "tune s": "opened",
        "trial 0": "tune s",
        "trial 1": "tune s",
    }
