"""Backend `dvc`: each training is a DVC experiment, with DVC's cache in place of our folders.

`dvc exp run --temp` works on a copy, so that many run at once; what it leaves is an experiment that
`dvc exp show` lists and `dvc exp apply` brings into the working tree. DVC itself would let two
experiments train the same world model side by side: here who comes second waits until the first has
put it into the cache. Locks are handed down to DVC, for it outlives a worker that is killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dreamer.types import ConfigError, DataError
from pipeline.commands.processes import environment_of_stages, stoppable
from pipeline.commands.settings import PARAMS
from pipeline.params import Raw, leaves, load_raw, of_stages, subset
from pipeline.stages.session import STAGES, pipeline_key
from pipeline.tune.figures import Outcome, read_metrics

METRICS = "reports/evaluate/metrics.json"
SHARED = ("collect", "pretrain")  # stages that trials wait for


def check_repository(project: Path) -> None:
    """Refuse a folder in which there are no experiments.

    Raises:
        ConfigError: It is no repository with a commit and a `dvc.yaml`.
    """
    commit = _run(["git", "rev-parse", "--verify", "-q", "HEAD"], project, ())
    if commit.returncode or not (project / "dvc.yaml").exists():
        allowed = "inprocess, or dvc in a git repository with dvc.yaml and a commit"
        raise ConfigError("--backend", "dvc", allowed)


def train(raw: Raw, store: Path, project: Path) -> Outcome:
    """Run one experiment, unless there is one of these parameters and this code.

    Args:
        raw: Parameters of the stages. store: Folder for locks. project: The repository.

    Raises:
        DataError: DVC failed; quotes its last line.
        ConfigError: A parameter that differs has a value that DVC cannot be told.
        Interrupted: After a signal.
    """
    key = pipeline_key(raw)
    name = f"tune-{key[:16]}"
    parameters = [name for stage in SHARED for name in STAGES[stage].params]
    text = json.dumps(subset(raw, dict.fromkeys(parameters)), sort_keys=True)
    shared = store / hashlib.sha256(text.encode()).hexdigest()[:16]
    store.mkdir(parents=True, exist_ok=True)
    with _lock(store / f"{name}.lock") as mine:
        made: tuple[str, ...] = ()
        if _commit(name, project) is None:
            with _turn(shared) as turn:
                made = _experiment(name, settings(raw, project), project, (mine, *turn))
        return Outcome(_metrics(name, project), made, None, name)


def settings(raw: Raw, project: Path) -> list[str]:
    """What `dvc exp run` is told: `-S key=value` of all that differs from the working tree.

    Raises:
        ConfigError: A value is a mapping, for which `-S` has no notation.
    """
    now = dict(leaves(of_stages(load_raw(project / PARAMS))))
    words = []
    for key, value in leaves(raw):
        if repr(now.get(key)) != repr(value):
            if isinstance(value, Mapping):
                raise ConfigError(key, value, f"the value in {PARAMS}, with --backend dvc")
            words += ["-S", f"{key}={json.dumps(value)}"]
    return words


def _experiment(
    name: str, words: list[str], project: Path, locks: Sequence[int]
) -> tuple[str, ...]:
    """Run it; return the stages that DVC did not find in its cache."""
    # No stage after `evaluate`: they repeat the training, or compare it with another one.
    run = ["exp", "run", "--temp", "-n", name, "evaluate"]
    command = [sys.executable, "-m", "dvc", *run, *words]
    done = _run(command, project, locks)
    if done.returncode or _commit(name, project) is None:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise DataError(f"dvc exp run {name}: {lines[-1] if lines else done.returncode}")
    return tuple(re.findall(r"Running stage '(\w+)'", done.stdout))


def _metrics(name: str, project: Path) -> dict[str, float]:
    """Figures of an experiment, out of DVC's cache."""
    commit = str(_commit(name, project))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.json"
        words = ["get", ".", METRICS, "--rev", commit, "-o", str(path)]
        _run([sys.executable, "-m", "dvc", *words], project, ())
        return read_metrics(path)


def _commit(name: str, project: Path) -> str | None:
    """Commit of an experiment, on whichever commit it is based; None if there is none."""
    form = "--format=%(objectname) %(refname)"
    refs = _run(["git", "for-each-ref", form, "refs/exps"], project, ()).stdout.splitlines()
    found = [ref.split()[0] for ref in refs if ref.endswith(f"/{name}")]
    return found[0] if found else None


@contextmanager
def _turn(shared: Path) -> Iterator[tuple[int, ...]]:
    """Wait while another experiment makes what this one can share; give the locks held."""
    done = shared.with_suffix(".done")
    with _lock(shared.with_suffix(".lock")) as lock:
        if not done.exists():
            yield (lock,)
            done.touch()
            return
    yield ()


@contextmanager
def _lock(path: Path) -> Iterator[int]:
    """Hold a lock that a child process can hold on to, as the number of an open file."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()  # closing unlocks, unless a child has it open still


def _run(words: list[str], project: Path, locks: Sequence[int]) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's Python for the stages.

    When stopped, `subprocess.run` kills DVC, and a stage follows.
    """
    with stoppable():
        return subprocess.run(
            words,
            cwd=project,
            env=environment_of_stages(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            pass_fds=tuple(locks),
        )
